"""What a page of HTML holds: the names of its tags, and their attributes."""

from html.parser import HTMLParser


class Tags(HTMLParser):
    """Collects the tags and the attributes of a page."""

    def __init__(self):
        super().__init__()
        self.found, self.attributes = set(), []

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)
        self.attributes += attrs


def tags_of(page):
    parser = Tags()
    parser.feed(page)
    return parser
