"""A public Space serves the pictures of its gallery, and nothing beside them."""

import shutil
from pathlib import Path

import pytest
from served import client_of

from vsehub.__main__ import main
from vsehub.hub_cards import demo as folder
from vsehub.search.pages import moved
from vsehub.serving.server import check_token

HERE = Path(folder.__path__[0])


@pytest.fixture
def place(tmp_path, tiny_folder, tiny_pictures):
    """An index in a Space whose gallery also holds other files."""
    gallery = tmp_path / "gallery"
    gallery.mkdir()
    tiny_pictures[0].save(gallery / "a.png")
    tiny_pictures[1].save(tmp_path / "private.png")
    for name in (".env", "page.html", "drawing.svg", "notes.txt"):
        (gallery / name).write_text("secret")
    assert main(["index", str(gallery), "--model", str(tiny_folder), "--out", str(tmp_path / "index"), "--quiet"]) == 0
    shutil.copy(HERE / "app.py", tmp_path)
    return tmp_path


def test_only_pictures_of_the_gallery_are_served(place):
    with client_of(place / "index", hosts=None, images=[str(place / "gallery")]) as client:
        (hit,) = client.post("/search", json={"text": "a dog"}, headers={"Host": "org-name.hf.space"}).json()["hits"]
        assert client.get(hit["picture"]).status_code == 200
        for path in (".env", "page.html", "notes.txt", "app.py", "gallery/a.png", "private.png", "index/manifest.json"):
            for asked in (f"/{path}", f"/pictures/{path}", f"/pictures/..%2f{path}"):
                answer = client.get(asked)
                assert answer.status_code in (404, 405) and "secret" not in answer.text, asked


def test_a_public_server_keeps_its_limits(place):
    with client_of(place / "index", hosts=None) as client:
        assert client.post("/search", json={"text": "a" * 20_000}).status_code == 413
        assert client.post("/search", json={"text": "a dog", "k": 101}).status_code == 413
        assert client.get("/").headers["content-security-policy"].endswith("frame-ancestors 'none'")


def test_public_and_a_token_exclude_each_other():
    check_token("0.0.0.0", None, public=True)
    with pytest.raises(ValueError, match="--public"):
        check_token("0.0.0.0", "a-token-of-many-letters", public=True)
    with pytest.raises(ValueError, match="token"):
        check_token("0.0.0.0", None)


def test_a_moved_index_leads_to_files_of_the_named_folder_alone(place):
    gallery = place / "gallery"
    (gallery / "link.png").symlink_to(place / "private.png")
    for path, expected in {
        "/home/me/photos/a.png": gallery / "a.png",
        "/home/me/photos/../private.png": None,
        "/home/me/photos/link.png": None,
        "/home/me/photos/absent.png": None,
        "/home/me/other/a.png": None,
    }.items():
        assert moved(path, ["/home/me/photos"], [str(gallery)]) == str(expected or path)
