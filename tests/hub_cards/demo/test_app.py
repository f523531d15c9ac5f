"""The Space's script: which index it serves, to whom, and in a slow test the page in a browser."""

import os
import runpy
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from served import client_of

from vsehub.__main__ import main
from vsehub.hub_cards import demo as folder
from vsehub.serving import server

HERE = Path(folder.__path__[0])
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
VARIABLES = ("MODEL", "REVISION", "INDEX", "GALLERY", "EXAMPLES", "HOST", "PORT", server.TOKEN)


@pytest.fixture
def space(tmp_path, tiny_pictures, monkeypatch):
    """A copy of the Space with a gallery, a picture beside it, and no variables."""
    here = tmp_path / "space"
    shutil.copytree(HERE, here, ignore=shutil.ignore_patterns("__pycache__"))
    for number, picture in enumerate(tiny_pictures[:3]):
        (here / "gallery").mkdir(exist_ok=True)
        picture.save(here / "gallery" / f"{number}.png")
    tiny_pictures[3].save(here / "private.png")
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PORT", "0")
    return here


@pytest.fixture
def served(monkeypatch):
    """What the server is called with; it returns at once."""
    calls = []

    def serve(retriever, own, token, images, stamp, limits, ready, **others):
        calls.append({"retriever": retriever, "images": images, "token": token, "limits": limits, **others})
        own.close()

    monkeypatch.setattr(server, "serve", serve)
    return calls


def start(space) -> dict:
    """Run the script as far as the server."""
    return runpy.run_path(str(space / "app.py"))["serve"]()


def test_without_an_index_the_gallery_is_embedded(space, served, pir_folder, monkeypatch):
    monkeypatch.setenv("MODEL", str(pir_folder))
    monkeypatch.setenv("EXAMPLES", "a river\n\n two boats \n")
    assert start(space) == 0
    (call,) = served
    hits = call["retriever"].search("a river")
    assert sorted(Path(hit.path).name for hit in hits) == ["0.png", "1.png", "2.png"]
    assert call["examples"] == ("a river", "two boats") and call["limits"].body == 20_000_000
    assert call["framed_by"] == "https://huggingface.co" and call["hosts"] is None and call["token"] is None


def test_an_index_beside_the_script_is_served_with_its_pictures_in_the_gallery(
    space, served, tiny_folder, tmp_path, monkeypatch
):
    made = tmp_path / "elsewhere" / "photos"
    shutil.copytree(space / "gallery", made / "2024")
    assert main(["index", str(made), "--model", str(tiny_folder), "--out", str(space / "photos.index"), "--quiet"]) == 0
    shutil.rmtree(space / "gallery")
    shutil.move(made, space / "gallery")  # as in the repository of a Space: nothing is where it was indexed
    (space / "gallery" / "2024" / "2.png").unlink()
    (space / "gallery" / "2024" / "2.png").symlink_to(space / "private.png")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "another home"))
    assert start(space) == 0
    with client_of(space / "photos.index", images=served[0]["images"]) as client:
        hits = client.post("/search", json={"text": "a dog"}).json()["hits"]
        statuses = {hit["name"]: client.get(hit["picture"]).status_code for hit in hits}
    assert statuses == {"2024/0.png": 200, "2024/1.png": 200, "2024/2.png": 404}


def test_a_space_is_public_unless_it_has_a_token(space, served, tiny_folder, monkeypatch):
    monkeypatch.setenv("MODEL", str(tiny_folder))
    monkeypatch.setenv("HOST", "0.0.0.0")  # noqa: S104
    assert start(space) == 0 and served[0]["token"] is None and served[0]["hosts"] == "any"
    monkeypatch.setenv(server.TOKEN, "a-token-of-many-letters")
    assert start(space) == 0 and served[1]["token"] == "a-token-of-many-letters" and served[1]["hosts"] is None


def test_without_pictures_or_a_model_the_script_says_what_is_missing(space, served, monkeypatch):
    with pytest.raises(SystemExit, match="MODEL"):
        start(space)
    monkeypatch.setenv("MODEL", "./nowhere")
    with pytest.raises(SystemExit, match="could not be indexed"):
        start(space)
    assert not served


def test_the_files_of_the_space_agree():
    settings = yaml.safe_load((HERE / "README.md").read_text(encoding="utf-8").split("---")[1])
    image = (HERE / "Dockerfile").read_text(encoding="utf-8")
    assert settings["sdk"] == "docker" and f"PORT={settings['app_port']}" in image
    assert "HOST=0.0.0.0" in image and "app.py" in image and "requirements.txt" in image
    assert (HERE / "requirements.txt").read_text(encoding="utf-8").split() == ["vsehub[serve]"]


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
def test_the_page_of_a_space_in_a_browser(space, pir_folder):
    playwright = pytest.importorskip("playwright.sync_api")
    own = server.bound("127.0.0.1", 0)
    port = own.getsockname()[1]
    own.close()
    address, log = f"http://127.0.0.1:{port}", space / "log.txt"
    environment = os.environ | {"MODEL": str(pir_folder), "PORT": str(port), "EXAMPLES": "a river"}
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, "app.py"], cwd=space, env=environment, stdout=file, stderr=file)
    try:
        end = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2)
                break
            except OSError:
                time.sleep(0.3)
        with playwright.sync_playwright() as browsers:
            browser = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(address)
            page.get_by_role("button", name="a river").click()
            page.wait_for_selector("#hits img")
            assert page.locator("#hits li").count() == 3
            page.get_by_role("button", name="belief").first.click()
            page.locator("#belief").wait_for()
            if os.environ.get("SHOTS"):
                page.screenshot(path=os.path.join(os.environ["SHOTS"], "space.png"))
            browser.close()
    finally:
        process.terminate()
        process.wait(20)
