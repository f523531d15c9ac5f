"""The generated scenes: reproducible, described truly, near-duplicates in families, and towers that fit them."""

import random

import numpy as np
import pytest
from datasets import load_dataset
from transformers import AutoModel, AutoTokenizer

from vsehub.demos.demo_search import says, things_of
from vsehub.demos.generated_scenes import (
    COLOURS,
    CROWDED,
    FEATURES,
    SHAPES,
    SIZE,
    dense_text,
    draw,
    generate,
    make_scene,
    phrase,
    short_caption,
    vary,
    write_dataset,
    write_towers,
)


@pytest.fixture(scope="module")
def scenes():
    return generate(24, seed=1)


def test_generated_scenes_are_reproducible_and_dense_text_holds_every_caption(tmp_path):
    first, again, other = generate(8, seed=1), generate(8, seed=1), generate(8, seed=2)
    assert first["dense_text"] == again["dense_text"] != other["dense_text"]
    assert all(np.array_equal(a["image"], b["image"]) for a, b in zip(first, again))
    for scene in first:
        assert all(says(caption, scene) for caption in scene["captions"])
    assert not says("a pink elephant", first[0])
    write_dataset(tmp_path, 4, 2, 2)
    assert len(load_dataset(str(tmp_path), split="validation")) == 2


def test_rows_have_the_columns_of_the_features_and_ids_of_their_own(scenes):
    assert scenes.features == FEATURES
    assert scenes["image_id"] == [f"scene-1-{index}" for index in range(24)]
    assert all(scene["image"].size == (SIZE, SIZE) and len(scene["captions"]) == 2 for scene in scenes)


def test_a_dense_text_lists_every_object_and_a_short_caption_one_or_two():
    rng = random.Random(0)
    for _ in range(50):
        scene = make_scene(rng)
        assert len(scene) in (3, 4) and all(colour in COLOURS and shape in SHAPES for colour, shape in scene)
        dense, short = dense_text(scene, rng), short_caption(scene, rng)
        assert sorted(things_of(dense)) == sorted(map(phrase, scene))
        assert len(things_of(short)) in (1, 2) and says(short, {"dense_text": dense})


def test_a_varied_scene_differs_in_at_most_one_object_and_the_given_one_is_left_alone():
    rng, changed = random.Random(0), 0
    for _ in range(50):
        scene = make_scene(rng)
        before = list(scene)
        other = vary(scene, rng)
        assert scene == before and len(other) == len(scene)
        changed += sum(a != b for a, b in zip(scene, other))
        assert sum(a != b for a, b in zip(scene, other)) <= 1
    assert changed > 40  # an object may be redrawn as it was


def test_scenes_of_a_family_share_all_objects_but_one_and_families_differ(scenes):
    things = [sorted(things_of(text)) for text in scenes["dense_text"]]
    for start in range(0, len(things), CROWDED.family):
        first = things[start]
        for other in things[start : start + CROWDED.family]:
            left = list(first)
            kept = [left.remove(thing) for thing in other if thing in left]
            assert len(other) == len(first) and len(kept) >= len(first) - 1
    assert (
        len({tuple(things[start]) for start in range(0, len(things), CROWDED.family)}) == len(things) // CROWDED.family
    )


def test_the_colours_of_a_scene_are_the_colours_of_its_picture():
    for colour, value in COLOURS.items():
        picture = np.asarray(draw([(colour, "square")] * 4, random.Random(1)), float)
        near = np.abs(picture - value).max(-1) < 40  # noise has a deviation of 6
        assert near.mean() > 0.1, colour
    red, ring = (np.asarray(draw([("red", shape)] * 4, random.Random(1)), float) for shape in ("circle", "ring"))
    inside = [(np.abs(picture - COLOURS["red"]).max(-1) < 40).sum() for picture in (red, ring)]
    assert inside[0] > 1.2 * inside[1]  # a ring has a hole


def test_the_towers_know_every_word_of_the_captions(tmp_path, scenes):
    vision, text = write_towers(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(text)
    ids = tokenizer([*scenes["dense_text"], *sum(scenes["captions"], [])])["input_ids"]
    assert tokenizer.unk_token_id not in sum(ids, [])
    assert AutoModel.from_pretrained(text).config.vocab_size == len(tokenizer)
    again = AutoModel.from_pretrained(write_towers(tmp_path / "again")[0]).state_dict()
    first = AutoModel.from_pretrained(vision).state_dict()
    assert all(np.array_equal(first[name], again[name]) for name in first)
