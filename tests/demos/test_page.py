"""A demo's page: self-contained, and its numbers are those of `metrics.json`."""

import pytest
from PIL import Image

from vsehub.demos.page import Figures, Picture, recall_figures, write_page

METRICS = {
    "<both>": {
        **{f"{way}_recall@{k}": 10.06 * k for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)},
        "rsum": 321.96,
        "seconds": 99.4,
    },
    "search": {"mean": None, "count": 20},
}


def write(folder, metrics=METRICS):
    Image.new("RGB", (30, 20), "red").save(folder / "red.png")
    parts = [
        recall_figures("Retrieval", ["<both>"], "A note & more"),
        Figures("Search", ["mean", "count"], [("all", [("search", "mean"), ("search", "count")])]),
        Picture(folder / "red.png", "A picture", "It is <red>.", "a red area"),
    ]
    write_page(folder / "index.html", "A title", "About it.", metrics, parts, [("why not", "vsehub search 'a < b'")])
    return (folder / "index.html").read_text()


def test_the_page_is_self_contained_and_its_numbers_are_those_of_the_file(tmp_path, check_page):
    text = write(tmp_path)
    page = check_page(text, METRICS)
    assert page.pictures[0].size == (30, 20)
    assert page.numbers["<both>/rsum"] == "322.0" and page.numbers["search/count"] == "20"
    assert page.numbers["search/mean"] == "-" and len(page.numbers) == 10
    assert "It is &lt;red&gt;." in text and "vsehub search &#x27;a &lt; b&#x27;" in text


def test_a_number_that_the_file_lacks_is_an_error(tmp_path):
    with pytest.raises(KeyError, match="search"):
        write(tmp_path, {"<both>": METRICS["<both>"]})


def test_the_check_notices_wrong_numbers_and_what_a_page_loads(tmp_path, check_page):
    text = write(tmp_path)
    for wrong in (text.replace("322.0", "323.0"), text + '<img alt="x" src="https://example.org/x.png">'):
        with pytest.raises(AssertionError):
            check_page(wrong, METRICS)
