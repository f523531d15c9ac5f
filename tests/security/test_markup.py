"""Names from outside stay text in the card."""

import pytest
import yaml

from vsehub.hub_cards.model_card import write_model_card

NAMES = ["a](http://x).jpg", "a b.jpg", "a\n.jpg", "a`.jpg", "<img>.jpg", "a|b.jpg", "../a.jpg", "/a.jpg", "a/b.jpg"]
NAMES += ["a\\b.jpg", "a#.jpg", "a?.jpg", "a%2e.jpg", "a:b.jpg", ".a.jpg", "-a.jpg", "", "a\u202e.jpg", "é.jpg"]
EVIL = '"]\n---\n# x <script>alert(1)</script> | [l](http://x) `` {{ 71*73 }} {% for %} ${x}'


@pytest.mark.parametrize("src", NAMES, ids=repr)
def test_a_picture_is_named_plainly(src, tmp_path, tiny_model):
    with pytest.raises(ValueError, match=r"examples\[0\] needs src"):
        example = {"src": src, "labels": ["a"], "output": []}
        write_model_card(tmp_path, model=tiny_model, name="a/b", results=[], training={}, examples=[example])


FIELDS = {
    "name": {"name": EVIL},
    "training": {"training": {EVIL: EVIL}},
    "bases": {"base_models": [EVIL]},
    "datasets": {"datasets": {EVIL: EVIL}},
    "license": {"license": EVIL},
    "languages": {"languages": [EVIL]},
    "labels": {"examples": [{"src": "a.jpg", "labels": [EVIL], "output": [{"label": EVIL, "score": 1}]}]},
    "results": {
        "results": [
            {
                "dataset": EVIL, "split": EVIL, "metrics": {EVIL: 1.0}, "dataset_id": EVIL, "protocol": EVIL,
                "selected": EVIL, "seed": EVIL, "command": EVIL, "intervals": {EVIL: (0, 1)},
            }
        ]
    },
}  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_no_field_ends_the_header_or_becomes_markup(field, tmp_path, tiny_model):
    given = {"name": "a/b", "results": [], "training": {}} | FIELDS[field]
    text = write_model_card(tmp_path, model=tiny_model, **given).read_text()
    header, body = text.removeprefix("---\n").split("\n---\n", 1)
    assert isinstance(yaml.safe_load(header), dict)
    outside = "".join(part for number, part in enumerate(body.split("```")) if number % 2 == 0)
    assert "<script>" not in outside.replace("\\<script\\>", "") and "\n# x" not in outside
    assert "](http://x)" not in outside.replace("\\](http://x)", "") and "5183" not in text
