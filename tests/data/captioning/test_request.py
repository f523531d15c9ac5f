"""What is asked: every number in its range, a hash that names the question, pictures that fit."""

import dataclasses
import math

import pytest
from PIL import Image

from vsehub.data.captioning.request import Caption, CaptionError, CaptionRequest, Failure, fitted


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": " \n\t"}, "prompt is empty"),
        ({"prompt": "what \ud800"}, "not UTF-8: give --prompt a question"),
        ({"temperature": -0.1}, r"temperature -0.1 is not in \[0, 10\]"),
        ({"temperature": 10.5}, "temperature 10.5"),
        ({"temperature": math.nan}, "temperature nan"),
        ({"top_p": 0.0}, r"top_p 0.0 is not in \(0, 1\]"),
        ({"top_p": 1.01}, "top_p 1.01"),
        ({"top_p": math.nan}, "top_p nan"),
        ({"max_new_tokens": 0}, "max_new_tokens 0 is not positive"),
        ({"max_image_side": 15}, "max_image_side 15 is below 16 pixels"),
        ({"min_words": 0}, "min_words 0 is not positive"),
    ],
    ids=str,
)
def test_a_number_out_of_its_range_is_refused_with_its_name(change, words):
    with pytest.raises(CaptionError, match=words):
        CaptionRequest(**change)


@pytest.mark.parametrize(
    "edge",
    [
        {"temperature": 0},
        {"temperature": 10},
        {"top_p": 1},
        {"top_p": 1e-6},
        {"max_new_tokens": 1},
        {"max_image_side": 16},
        {"min_words": 1},
        {"prompt": "Décris l'image 🛰"},
    ],
    ids=str,
)
def test_the_ends_of_the_ranges_are_allowed(edge):
    name, value = next(iter(edge.items()))
    assert getattr(CaptionRequest(**edge), name) == value


def test_the_defaults_are_the_papers():
    request = CaptionRequest()
    assert (request.prompt, request.temperature, request.top_p) == ("Describe this image in detail", 0.2, 0.9)
    assert request.max_new_tokens == 500 and request.seed is None


@pytest.mark.parametrize("kind", [CaptionRequest(), Caption("a", "a dog", False, 2, "r"), Failure("a", "torn")])
def test_what_is_hashed_and_journalled_cannot_be_changed(kind):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(kind, dataclasses.fields(kind)[0].name, "other")


def test_the_hash_names_prompt_and_sampling_but_not_the_draw():
    changes = [{}, {"prompt": "Why?"}, {"temperature": 0.3}, {"top_p": 0.8}, {"max_new_tokens": 9}]
    hashes = {CaptionRequest(**change).prompt_hash for change in changes}
    assert len(hashes) == 5 and all(len(text) == 16 for text in hashes)
    assert CaptionRequest(seed=3).prompt_hash == CaptionRequest().prompt_hash
    assert CaptionRequest(temperature=1).prompt_hash == CaptionRequest(temperature=1.0).prompt_hash


def test_the_hash_of_older_tables_is_unchanged():
    assert CaptionRequest().prompt_hash == "9773207d9eaa7f48"


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((300, 200), 150, (150, 100)),
        ((200, 300), 150, (100, 150)),
        ((2000, 3), 20, (20, 1)),  # no side vanishes
        ((301, 200), 300, (300, 199)),
    ],
)
def test_a_picture_is_shrunk_in_proportion_until_its_longest_side_fits(size, side, expected):
    assert fitted(Image.new("RGB", size), side).size == expected


def test_a_picture_that_fits_is_the_same_one_and_none_is_enlarged():
    image = Image.new("RGB", (30, 20))
    assert fitted(image, 30) is image and fitted(image, 500) is image and fitted(image, None) is image
