"""Crops, flips, RandAugment and corrupted words: what each does at the papers' level, and that a seed decides all."""

import numpy as np
import pytest
from PIL import Image

from vsehub.training.inputs.augmentation import (
    AUGMENTATIONS,
    corrupt_words,
    crop_and_distort,
    rand_augment,
    random_crop_flip,
)


class Chosen:
    """A generator whose choices are given: these operations, applied, with this sign."""

    def __init__(self, *names, sign=1):
        self.names, self.draws = names, iter([0.0 if sign > 0 else 0.9, *[0.0] * len(names)])

    def random(self):
        return next(self.draws)

    def choice(self, names, count):
        assert set(self.names) <= set(names) and len(names) == 10
        return self.names


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(30, 180, (40, 50, 3), dtype=np.uint8))


def test_brightness_is_raised_by_the_papers_factor(picture):
    found = np.asarray(rand_augment(picture, Chosen("brightness")), float)
    assert np.abs(found - (np.asarray(picture, float) * 1.36).clip(0, 255)).max() <= 1


@pytest.mark.parametrize(("name", "sign", "axis"), [("translate_x", 1, 1), ("translate_y", -1, 0)])
def test_a_shift_is_seven_pixels_and_leaves_grey_behind(picture, name, sign, axis):
    before, after = np.asarray(picture), np.asarray(rand_augment(picture, Chosen(name, sign=sign)))
    moved = np.roll(before, -7 * sign, axis)
    inside = np.s_[:-7] if sign > 0 else np.s_[7:]
    inside = (slice(None), inside) if axis else inside
    outside = np.s_[-6:] if sign > 0 else np.s_[:6]
    outside = (slice(None), outside) if axis else outside
    assert np.array_equal(after[inside], moved[inside]) and (after[outside] == 128).all()


def test_a_rotation_is_by_21_degrees(picture):
    found = rand_augment(picture, Chosen("rotate"))
    assert np.array_equal(
        np.asarray(found), np.asarray(picture.rotate(21, Image.Resampling.BILINEAR, fillcolor=(128,) * 3))
    )


def test_identity_twice_changes_nothing(picture):
    assert np.array_equal(np.asarray(rand_augment(picture, Chosen("identity", "identity"))), np.asarray(picture))


def test_an_operation_is_applied_half_the_time():
    flat, rng = Image.new("RGB", (9, 9), (100, 100, 100)), np.random.default_rng(0)
    brighter = [np.asarray(rand_augment(flat, rng, operations=1))[4, 4, 0] == 136 for _ in range(4000)]
    assert np.mean(brighter) == pytest.approx(0.1 * 0.5, abs=0.012)  # one of ten, half the time


@pytest.mark.parametrize("augment", [random_crop_flip, crop_and_distort])
def test_a_seed_decides_all_and_the_result_is_a_square(picture, augment):
    first, again, other = (augment(picture, 32, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.size == (32, 32) and np.array_equal(np.asarray(first), np.asarray(again))
    assert not np.array_equal(np.asarray(first), np.asarray(other))


def test_every_name_of_the_arguments_has_its_augmentation():
    from typing import get_args

    from vsehub.data.arguments import DataArguments

    assert set(get_args(DataArguments.__annotations__["image_augmentation"])) == set(AUGMENTATIONS)


IDS = [2, 10, 11, 12, 13, 14, 15, 3]
WORDS = [None, 0, 0, 1, 2, 3, 4, None]  # the first word has two pieces


def test_crops_keep_the_square_and_the_ratio():
    from PIL import Image

    picture = Image.fromarray(np.arange(64 * 48 * 3, dtype=np.uint8).reshape(48, 64, 3))
    rng = np.random.default_rng(0)
    assert all(random_crop_flip(picture, 24, rng).size == (24, 24) for _ in range(20))
    whole = random_crop_flip(Image.new("RGB", (10, 10), (9, 9, 9)), 24, rng)
    assert (np.asarray(whole) == 9).all()


def test_word_corruption_masks_half_replaces_a_tenth_and_deletes_the_rest():
    rng = np.random.default_rng(0)
    words = [None, *range(1000), None]
    ids = [2, *[500] * 1000, 3]
    counts = {"mask": 0, "replace": 0, "delete": 0}
    for _ in range(50):
        new = corrupt_words(ids, words, 0.2, 4, 100, rng)
        assert new[0] == 2 and new[-1] == 3
        counts["mask"] += new.count(4)
        counts["delete"] += len(ids) - len(new)
        counts["replace"] += sum(token not in (2, 3, 4, 500) for token in new)
    shares = {name: count / 50_000 for name, count in counts.items()}
    assert shares == pytest.approx({"mask": 0.1, "replace": 0.02, "delete": 0.08}, abs=0.005)


def test_all_pieces_of_a_word_share_its_fate_and_a_caption_never_vanishes():
    rng = np.random.default_rng(1)
    for _ in range(300):
        new = corrupt_words(IDS, WORDS, 0.5, 4, 10, rng)  # a vocabulary of 10: random tokens are none of these
        assert (10 in new) == (11 in new)
        assert len(new) > 2
    for _ in range(100):
        assert len(corrupt_words([2, 10, 3], [None, 0, None], 1.0, 4, 100, rng)) > 2
