"""A server tells no path, opens none that it is told, and shows no picture beside those of named folders."""

import json
import os
import shutil

import numpy as np
import pytest
from served import base64_of, client_of

from vsehub.search.retriever import Retriever
from vsehub.search.vector_index import VectorIndex

PATHS = ["/etc/passwd", "../private.png", "file:///etc/passwd", "http://127.0.0.1:9/a.png", "\\\\host\\share", "~/.ssh"]


@pytest.fixture
def place(tmp_path, tiny_folder, tiny_pictures):
    """A folder with photos (one a link to a picture outside), a picture outside, and the index of the photos."""
    (tmp_path / "photos").mkdir()
    tiny_pictures[0].save(tmp_path / "photos" / "a.png")
    tiny_pictures[1].save(tmp_path / "private.png")
    retriever = Retriever.from_pretrained(shutil.copytree(tiny_folder, tmp_path / "my model"))
    retriever.add_images([tmp_path / "photos" / "a.png"])
    retriever.save(tmp_path / "index")
    return tmp_path


def requests_of(client, hit):
    """Answers to requests of all kinds, right and wrong."""
    texts = ["a dog", *PATHS, str(hit), "\ud800", "a" * 20_000]
    for text in texts:
        for body in ({"text": text}, {"like": text}, {"image": text}, {"plus": text}, {"minus": [{"image": text}]}):
            yield client.post("/search", content=json.dumps(body), headers={"Content-Type": "application/json"})
        for given in (text, [{"image": text}], [{"text": text}]):
            yield client.post(
                "/v1/embeddings", content=json.dumps({"input": given}), headers={"Content-Type": "application/json"}
            )
    for path in ("/", "/about", "/health", "/metrics", "/v1/models", "/search", *PATHS, f"/pictures/{hit}?side=9"):
        yield client.get(path if path.startswith("/") else f"/{path}")
        yield client.get("/pictures/" + path.replace("/", "%2f"))
        yield client.get("/belief/" + path.replace("/", "%2f"))


def test_no_answer_tells_a_path_of_the_server(place):
    with client_of(place / "index") as client:
        hit = client.post("/search", json={"text": "a dog"}).json()["hits"][0]
        assert hit["name"] == "a.png"
        count = 0
        for answer in requests_of(client, hit["id"]):
            count += 1
            assert str(place) not in answer.text and str(place) not in str(answer.headers)
            assert answer.status_code < 500, answer.text
        assert count > 60 and client.get("/about").json()["model"] == "my model"


def test_texts_like_paths_are_texts_and_no_file_is_opened(place, monkeypatch):
    opened = []
    with client_of(place / "index") as client:
        plain = Retriever.open(place / "index")
        real = open

        def noted(file, *more, **others):
            opened.append(str(file))
            return real(file, *more, **others)

        picture = str(place / "photos" / "a.png")
        with monkeypatch.context() as patch:
            patch.setattr("builtins.open", noted)
            patch.setattr(
                os, "stat", lambda path, *more, real=os.stat, **others: opened.append(str(path)) or real(path)
            )
            answers = [client.post("/search", json={"text": text}) for text in (picture, *PATHS)]
            refused = [client.post("/search", json={"image": text}) for text in (picture, *PATHS)]
        for text, answer in zip((picture, *PATHS), answers):
            assert answer.json()["hits"][0]["score"] == pytest.approx(plain.search(text)[0].score, abs=1e-5)
        assert {answer.status_code for answer in refused} == {400}
        assert not [path for path in opened if path in (picture, *PATHS)]


def test_an_id_of_an_index_is_no_way_to_ask_for_a_path(place):
    """A client that guesses a path learns nothing: ids of the index are not taken, only those that were shown."""
    with client_of(place / "index") as client:
        for name in (str(place / "photos" / "a.png"), "a.png"):
            assert client.post("/search", json={"like": name}).status_code == 404
            assert client.get("/pictures/" + name.replace("/", "%2f")).status_code == 404


@pytest.mark.parametrize("path", ["private.png", "photos/../private.png", "photos/link.png", "/etc/passwd"])
def test_a_received_index_shows_no_picture_of_this_machine(path, place, tiny_folder):
    (place / "photos" / "link.png").symlink_to(place / "private.png")
    made_by = Retriever.from_pretrained(tiny_folder).made_by
    index = VectorIndex(made_by)
    items = [{"id": "a", "path": str(place / path), "modality": "image"}]
    items.append({"id": "b", "path": str(place / "photos" / "a.png"), "modality": "image"})
    index.add(np.eye(2, 16, dtype=np.float32), items)
    index.save(place / "received")
    for images, shown in ([], 0), ([str(place / "photos")], 1):
        with client_of(place / "received", images=images) as client:
            hits = client.post("/search", json={"text": "a dog"}).json()["hits"]
            answers = [client.get(hit["picture"]) for hit in hits]
            assert sum(answer.status_code == 200 for answer in answers) == shown
            assert all(str(place) not in answer.text for answer in answers if answer.status_code != 200)


def test_a_picture_that_became_a_link_is_not_followed(place):
    with client_of(place / "index") as client:
        hit = client.post("/search", json={"text": "a dog"}).json()["hits"][0]
        assert client.get(hit["picture"], params={"side": 1280}).status_code == 200
        (place / "photos" / "a.png").unlink()
        (place / "photos" / "a.png").symlink_to(place / "private.png")
        assert client.get(hit["picture"], params={"side": 1280}).status_code == 404


def test_pictures_of_formats_that_start_programs_are_not_decoded(place):
    import base64

    eps = base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n").decode()
    with client_of(place / "index") as client:
        assert client.post("/search", json={"image": eps}).status_code == 400
        from PIL import Image

        hidden = base64_of(Image.new("1", (1, 1)), "PCX")
        assert client.post("/v1/embeddings", json={"input": [{"image": hidden}]}).status_code == 400
