"""Generated overhead scenes: equal seeds, true captions, masks of the objects."""

import numpy as np
import pytest
from datasets import load_dataset

from vsehub.demos import generated_overhead as module
from vsehub.demos.generated_overhead import (
    CLASSES,
    COVERED,
    SIZE,
    captions,
    generate,
    object_mask,
    object_pixels,
    scene_of,
    true_of,
    words,
    write_dataset,
)


def test_equal_seeds_give_equal_scenes_and_others_give_others():
    first, again, other = (generate(10, seed).with_format(None) for seed in (0, 0, 1))
    assert first["captions"] == again["captions"] != other["captions"]
    assert first[3]["image"] == again[3]["image"] != other[3]["image"]


def test_splits_are_read_by_datasets_and_every_caption_is_true_and_known(tmp_path):
    write_dataset(tmp_path, train=16, validation=8, test=8)
    rows = load_dataset(str(tmp_path), split="train")
    assert rows.features["label"].names == list(CLASSES) and rows[0]["image"].size == (64, 64)
    for index, row in enumerate(rows):
        scene, _ = scene_of(0, index)
        for caption in row["captions"]:
            said = caption.split()
            assert set(said) <= set(words())
            for fact, names in (
                ("ground", ("green", "brown", "grey", "sandy")),
                ("colour", ("white", "red", "blue", "yellow")),
            ):
                assert all(word == scene[fact] for word in said if word in names)


def test_the_mask_covers_what_was_drawn_of_the_class_and_nothing_else():
    for index in range(16):
        scene = scene_of(0, index)[0]
        pixels, (left, top, side) = object_pixels(0, index), scene["box"]
        rows, columns = (np.flatnonzero(pixels.any(axis)) for axis in (1, 0))
        if scene["label"] == "river":  # it crosses the whole picture
            assert columns[0] == 0 and columns[-1] == SIZE - 1
        elif scene["label"] != "forest":  # whose trees reach over the edge
            assert left - 1 <= columns[0] and columns[-1] <= left + side + 1
            assert top - 1 <= rows[0] and rows[-1] <= top + side + 1
        mask = object_mask(0, index, 8)
        assert mask.shape == (8, 8) and 0.04 < mask.mean() < 0.5
        assert pixels.reshape(8, 8, 8, 8).mean((1, 3))[~mask].max() < COVERED


def test_a_picture_without_its_objects_has_no_mask_of_them(monkeypatch):
    monkeypatch.setattr(module, "_objects", lambda *args: None)
    assert not object_pixels(0, 0).any()


@pytest.mark.parametrize(
    "caption, true",
    [
        ("two red cars at the parking lot on green land", True),
        ("two red cars", True),
        ("two cars with green land around", True),
        ("three red cars", False),
        ("a red car", False),
        ("two blue cars", False),
        ("two red cars on sandy land", False),
        ("two red boats at the port", False),
        ("a river", False),
    ],
)
def test_a_caption_is_true_if_all_that_it_names_is_there(caption, true):
    scene = {"label": "parking", "number": 2, "colour": "red", "ground": "green"}
    assert true_of(caption, scene) is true


def test_a_bridge_has_the_colour_that_its_caption_names():
    scene = {"label": "river", "number": 3, "colour": "red", "ground": "green"}
    assert true_of("a river with a red bridge", scene) and true_of("a river on green land", scene)
    assert not true_of("a river with a blue bridge", scene) and not true_of("a stadium with red stands", scene)


def test_the_colours_of_the_objects_lie_in_every_class_beside_them():
    """Else the mean of a picture would tell the colour, and a model need not look at the objects."""
    for index in range(24):
        pixels = np.asarray(module.draw(*module._drawn(0, index)), dtype=float)[~object_pixels(0, index)]
        shown = [np.abs(pixels - colour).max(1).min() < 40 for colour in module.COLOURS.values()]
        assert sum(shown) >= 2


def test_captions_of_a_scene_are_true_of_it_and_another_class_is_not():
    for index in range(32):
        scene, rng = scene_of(0, index)
        other = scene_of(0, index + 1)[0]
        for caption in captions(scene, rng):
            assert true_of(caption, scene) and not true_of(caption, other)
