"""The flags of data: one spelling, each explained."""

import re
from dataclasses import fields

import pytest

from vsehub.data.arguments import DataArguments, underscored

# A name of this form says all: which split, which column, the most pictures of which part.
SAYS_ALL = re.compile(r"(train|eval)_split|(image|captions|id)_column|max_(train|eval)_images")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("--image-root", "--image_root"),
        ("--image_root", "--image_root"),
        ("--image-root=my-folder/a-b", "--image_root=my-folder/a-b"),
        ("--a-b=c=d-e", "--a_b=c=d-e"),
        ("my-folder", "my-folder"),
        ("-h", "-h"),
        ("-1", "-1"),
        ("-", "-"),
        ("--", "--"),
        ("", ""),
    ],
)
def test_dashes_in_the_name_of_a_flag_become_underscores_and_nothing_else_changes(word, expected):
    assert underscored(word) == expected


@pytest.mark.parametrize("field", fields(DataArguments), ids=lambda field: field.name)
def test_every_flag_says_what_it_is(field):
    text = field.metadata.get("help")
    if text is None:
        assert SAYS_ALL.fullmatch(field.name), f"--{field.name} needs a help text"
        return
    assert text.endswith("."), f"--{field.name}: a help text is a sentence"
    assert text % {}, "argparse fills in what a single % announces"


def test_the_defaults_select_on_validation_and_stop_at_a_bad_row():
    data = DataArguments()
    assert (data.train_split, data.eval_split, data.on_bad_sample) == ("train", "validation", "error")
    assert (data.image_column, data.captions_column, data.id_column) == ("image", "captions", "image_id")
    assert data.max_train_images is None and data.max_eval_images is None and not data.data
