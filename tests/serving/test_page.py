"""The page in a real browser (a slow test): needs Chromium and playwright, and is left out without them.

`SHOTS=FOLDER` keeps screenshots.
"""

import os
import shutil
import time

import pytest
from served import running

from vsehub.search.retriever import Retriever

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TOKEN = "a-token-of-many-letters"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")]


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(index_folder):
    """Of a server."""
    with running(index_folder, examples=("a dog", "two boats on the water")) as address:
        yield address


@pytest.fixture
def opened(browser):
    """A function that opens a page; at the end, it must have had no error of its own."""
    pages, errors = [], []

    def page_at(address, width=1280, height=900, wrong=()):
        page = browser.new_context(viewport={"width": width, "height": height}).new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        page.goto(address)
        pages.append(page)
        return page

    page_at.errors = errors
    yield page_at
    for page in pages:
        page.context.close()
    assert not errors


def until(page, condition: str):
    """Wait for a condition in JavaScript; the page's own policy forbids that the page itself evaluates one."""
    end = time.monotonic() + 30
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


def hits_of(page, count=6) -> list[tuple[str, float]]:
    """Name and score of the hits, in the order shown, when their pictures are there."""
    until(page, f"document.querySelectorAll('#hits li').length == {count}")
    until(page, "[...document.querySelectorAll('#hits img')].every(i => i.complete && i.naturalWidth > 0)")
    names = page.locator("#hits .about small").all_inner_texts()
    scores = [float(text.split()[1]) for text in page.locator("#hits .about b").all_inner_texts()]
    return list(zip(names, scores))


def shoot(page, name):
    """Keep a screenshot for people."""
    if os.environ.get("SHOTS"):
        os.makedirs(os.environ["SHOTS"], exist_ok=True)
        page.screenshot(path=os.path.join(os.environ["SHOTS"], f"{name}.png"))


def test_words_a_picture_and_a_hit_are_queries(opened, address, retriever, photos):
    page = opened(address)
    page.get_by_role("button", name="two boats on the water").click()
    found = retriever.search("two boats on the water")
    expected = [(os.path.relpath(hit.path, photos), round(hit.score, 3)) for hit in found]
    names, scores = zip(*hits_of(page))
    assert list(names) == [name for name, _ in expected]
    assert list(scores) == pytest.approx([score for _, score in expected], abs=2e-3)
    assert page.input_value("#words") == "two boats on the water"
    assert page.evaluate("location.search") == "?q=two%20boats%20on%20the%20water"
    shoot(page, "words")
    page.set_input_files("#picture", str(photos / "2.png"))
    page.locator("#given").wait_for()
    page.get_by_text("6 of 6").wait_for()
    assert page.locator("#share").is_visible() and page.locator("#given").is_visible()
    both = retriever.search("two boats on the water", image=photos / "2.png")
    assert [score for _, score in hits_of(page)] == pytest.approx([hit.score for hit in both], abs=2e-3)
    page.fill("#words", "")
    page.click("#search")
    until(page, "document.querySelector('#hits .about b').innerText == '1. 1.000'")
    assert hits_of(page)[0] == ("2.png", 1.0) and not page.locator("#share").is_visible()
    page.get_by_role("button", name="similar").nth(1).click()
    like = hits_of(page, 5)
    assert page.locator("#liked").is_visible() and page.locator("#liked-name").inner_text() not in dict(like)
    shoot(page, "similar")


def test_the_first_hit_and_its_score_are_on_the_first_screen_of_a_phone(opened, address):
    page = opened(f"{address}/?q=a%20dog", 390, 844)
    hits_of(page)
    for part in ("#hits li img", "#hits li b"):
        box = page.locator(part).first.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 844, part
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shoot(page, "phone")


def test_a_cut_off_that_hides_everything_says_how_to_see(opened, address):
    page = opened(f"{address}/?q=a%20dog")
    hits_of(page)
    page.click("#options summary")
    page.select_option("#cutoff", "own")
    page.fill("#least", "0.99")
    page.click("#search")
    page.get_by_text("Nothing comes nearer than the cut-off, 0.990").wait_for()
    assert page.locator("#hits li").count() == 0
    page.get_by_role("button", name="Show the nearest").click()
    assert len(hits_of(page)) == 6


def test_a_picture_is_enlarged_and_has_a_text_for_who_does_not_see_it(opened, address):
    page = opened(f"{address}/?q=a%20dog")
    name = hits_of(page)[0][0]
    page.locator("#hits .open").first.click()
    until(page, "document.querySelector('#large-picture').naturalWidth > 0")
    assert page.locator("#large-picture").get_attribute("alt") == name and not page.locator("#belief").is_visible()
    assert all(image.get_attribute("alt") for image in page.locator("img:visible").all())
    page.keyboard.press("Escape")
    assert not page.locator("#large").is_visible() and page.get_by_role("button", name="belief").count() == 0


def test_what_is_missing_or_refused_is_told(opened, address, tmp_path):
    page = opened(address)
    page.click("#search")
    page.get_by_text("Type some words or give a picture.").wait_for()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no picture")
    page.set_input_files("#picture", str(tmp_path / "broken.png"))
    page.get_by_text("is no base64 of a whole picture").wait_for()
    errors = [error for error in opened.errors if "400" in error or "ERR_" in error]
    for error in errors:  # the browser's own remarks on an answer and a picture that is none
        opened.errors.remove(error)


def test_a_server_with_a_token_asks_for_it_once(opened, index_folder):
    with running(index_folder, token=TOKEN) as address:
        page = opened(f"{address}/?q=a%20dog")
        page.locator("#ask-token").wait_for()
        page.fill("#token", "wrong")
        page.get_by_role("button", name="Go on").click()
        until(page, "document.querySelector('#token').placeholder == 'that was not it'")
        page.fill("#token", TOKEN)
        page.get_by_role("button", name="Go on").click()
        assert len(hits_of(page)) == 6
        page.reload()
        assert len(hits_of(page)) == 6 and not page.locator("#ask-token").is_visible()
        page.context.pages[0].goto("about:blank")
    opened.errors[:] = [error for error in opened.errors if "401" not in error]


def test_nothing_in_a_name_or_caption_becomes_markup(opened, tmp_path, tiny_folder, tiny_pictures):
    hostile = "<img src=x onerror=\"document.title='owned'\"><b>bold</b>"
    retriever = Retriever.from_pretrained(tiny_folder)
    tiny_pictures[0].save(tmp_path / "<b>a&amp;'\u202e.png")
    retriever.add_images([tmp_path / "<b>a&amp;'\u202e.png"], captions=[hostile])
    retriever.save(tmp_path / "index")
    with running(tmp_path / "index") as address:
        page = opened(f"{address}/?q=%3Cb%3Edog")
        assert hits_of(page, 1)[0][0] == "<b>a&amp;'\\u202e.png"
        assert hostile in page.locator("#hits li").inner_text() and page.title() == "Search pictures"
        page.goto("about:blank")


def test_belief_is_shown_beside_its_picture(opened, photos, pir_folder, tmp_path, vsehub_session):
    vsehub_session("index", photos, "--model", pir_folder, "--out", tmp_path / "index")
    with running(tmp_path / "index") as address:
        page = opened(f"{address}/?q=a%20dog")
        hits_of(page)
        page.get_by_role("button", name="belief").first.click()
        until(page, "document.querySelector('#belief').naturalWidth > 0")
        left, right = (page.locator(part).bounding_box() for part in ("#large-picture", "#belief"))
        assert left["x"] + left["width"] <= right["x"] and abs(left["y"] - right["y"]) < 2
        shoot(page, "belief")
        page.goto("about:blank")
