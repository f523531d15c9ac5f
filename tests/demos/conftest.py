"""Reads a demo's page: what it shows, and what it would load."""

import base64
import io
from html.parser import HTMLParser

import pytest
from PIL import Image


class Page(HTMLParser):
    """What a page shows and what it would load.

    Attributes: `numbers` by their path in `metrics.json`, decoded `pictures`, `loads` (everything that is not inlined).
    """

    def __init__(self, text: str):
        super().__init__()
        self.numbers: dict[str, str] = {}
        self.pictures: list[Image.Image] = []
        self.loads: list[str] = []
        self.cell: str | None = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        facts = dict(attrs)
        if tag == "td":
            self.cell = facts.get("data-metric")
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = facts.get(name)
            if value is None or tag == "a":
                continue
            kind, _, content = value.partition(",")
            if tag == "img" and kind == "data:image/png;base64":
                picture = Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
                picture.load()
                assert facts["alt"]
                self.pictures.append(picture)
            else:
                self.loads.append(value)
        if tag in ("script", "link", "iframe"):
            self.loads.append(tag)

    def handle_data(self, data):
        if self.cell is not None:
            self.numbers[self.cell] = data

    def handle_endtag(self, tag):
        if tag == "td":
            self.cell = None


@pytest.fixture
def check_page():
    """A function: the page and `metrics.json` -> the page, checked: it loads nothing and shows those numbers."""
    return _checked


def _checked(text: str, metrics: dict) -> Page:
    page = Page(text)
    assert (
        page.loads == []
        and "http:" not in text
        and "https:" not in text
        and "url(" not in text
        and "@import" not in text
    )
    assert page.pictures and page.numbers
    for path, shown in page.numbers.items():
        value = metrics
        for key in path.split("/"):
            value = value[key]
        assert shown == ("-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)), path
    return page
