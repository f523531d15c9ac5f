"""The Space in a real browser: type words, see ranked pictures.

Run by `make test-space`, in an environment of its own (gradio wants another huggingface_hub than the newest
transformers): `GALLERY` and `MODEL` name what to serve, Chromium must be installed. Screenshots go to runs/space/.
"""

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

APP = os.environ.get("APP")
SHOTS = Path(os.environ.get("SHOTS", "."))
PORT = 7861
WORDS = "a red circle"
MODEL, GALLERY = os.environ.get("MODEL"), os.environ.get("GALLERY")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(not (APP and MODEL and GALLERY and CHROMIUM), reason="run by make test-space")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A browser's page at the running Space."""
    playwright = pytest.importorskip("playwright.sync_api")
    log = tmp_path_factory.mktemp("space") / "log.txt"
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(PORT), "GRADIO_ANALYTICS_ENABLED": "False"}
    with log.open("w") as file:
        server = subprocess.Popen([sys.executable, APP], env=environment, stdout=file, stderr=file)
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}", timeout=2)
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.5)
        with playwright.sync_playwright() as browsers:
            browser = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(f"http://127.0.0.1:{PORT}")
            yield page
            browser.close()
    finally:
        server.terminate()
        server.wait(20)


def captions(page) -> list[tuple[str, float]]:
    """File names and scores of the hits, in the order shown."""
    page.wait_for_function("document.querySelectorAll('#hits img').length >= 8", timeout=60_000)
    text = page.locator("#hits").inner_text()
    return [(name, float(score)) for name, score in re.findall(r"(\S+\.png): (-?\d\.\d+)", text)]


def shoot(page, name: str):
    """Keep a screenshot for people."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(SHOTS / f"{Path(MODEL).parent.name}-{name}.png"))


def test_words_find_ranked_pictures(page):
    page.fill("#words textarea, #words input", WORDS)
    page.click("#search")
    hits = captions(page)
    scores = [score for _, score in hits]
    assert len(hits) == 8 and scores == sorted(scores, reverse=True)
    page.wait_for_timeout(1000)  # the pictures fade in
    shoot(page, "search")
    from transformers import AutoModel  # the same ranking without the Space

    model = AutoModel.from_pretrained(MODEL, trust_remote_code=True)
    from PIL import Image

    paths = sorted(Path(GALLERY).glob("*.png"))
    cosines = model.encode_image([Image.open(path) for path in paths]) @ model.encode_text([WORDS]).T
    best = cosines.squeeze(1).topk(8)
    assert [name for name, _ in hits] == [paths[row].name for row in best.indices]


def test_no_words_and_no_picture_say_what_is_missing(page):
    page.fill("#words textarea, #words input", "")
    page.click("#search")
    page.get_by_text("Type some words or give a picture.").first.wait_for(timeout=20_000)


def test_a_model_with_a_prior_shows_what_it_believes(page):
    tab = page.get_by_role("tab", name="Belief")
    if "instruction_config" not in (Path(MODEL) / "config.json").read_text():
        assert tab.count() == 0
        return
    tab.click()
    page.locator("input[type=file]").last.set_input_files(str(sorted(Path(GALLERY).glob("*.png"))[0]))
    page.wait_for_selector("#belief img", timeout=60_000)
    page.wait_for_timeout(1000)
    shoot(page, "belief")
