"""Fixed views of an image: the first is plain, the others are the same in every run."""

import numpy as np

from vsehub.data.rows import row_image
from vsehub.training.inputs.views import PLAIN, Views


def pixels(views, row, view):
    return np.asarray(views.open(row, view, 24))


def test_the_first_view_is_the_plain_picture(rows):
    assert np.array_equal(pixels(Views(3), rows[1], 0), np.asarray(row_image(rows[1])))
    assert np.array_equal(pixels(Views(3, "none"), rows[1], 2), np.asarray(row_image(rows[1])))


def test_a_view_follows_from_its_number_and_the_image_id_alone(rows):
    first = pixels(Views(3), rows[1], 2)
    assert first.shape == (24, 24, 3)
    assert np.array_equal(first, pixels(Views(5), rows[1], 2))
    assert not np.array_equal(first, pixels(Views(3), rows[1], 1))
    other = {**rows[1], "image_id": "another"}
    assert not np.array_equal(first, pixels(Views(3), other, 2))


def test_the_augmentation_decides_the_views_and_is_part_of_their_name(rows):
    assert not np.array_equal(pixels(Views(3), rows[1], 1), pixels(Views(3, "rand_augment"), rows[1], 1))
    assert str(Views(3)) == "3 x crop" and str(Views(3, "rand_augment")) == "3 x rand_augment"
    assert str(PLAIN) == str(Views(1, "rand_augment")) == "1"
