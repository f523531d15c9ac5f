"""Queries of several parts: weights, and the sum against its definition."""

from fractions import Fraction

import numpy as np
import pytest

from vsehub.search.query import checked, combined, listed, with_weight


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("sunset", ("sunset", 1.0)), ("sunset:0.5", ("sunset", 0.5)), ("a:b", ("a:b", 1.0)), (":2", (":2", 1.0)),
        ("at 12:30:1", ("at 12:30", 1.0)), ("q.jpg:.25", ("q.jpg", 0.25)), ("two\nlines:3", ("two\nlines", 3.0)),
        ("sunset:5e-1", ("sunset", 0.5)), ("sunset:1.2.3", ("sunset:1.2.3", 1.0)),
    ],
)  # fmt: skip
def test_a_weight_stands_behind_the_last_colon(word, expected):
    assert with_weight(word) == expected


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), 10**400, Fraction(10**400), "2", None, True])
def test_a_weight_is_a_number_above_0(weight):
    with pytest.raises(ValueError, match="must be a number above 0"):
        checked(("sunset", weight))
    with pytest.raises(ValueError, match="must be a number above 0"):
        with_weight("sunset:0")


@pytest.mark.parametrize("weight", [np.float32(0.5), np.int64(2)])
def test_numbers_of_numpy_are_weights(weight):
    assert checked(("sunset", weight)) == ("sunset", float(weight))


def test_a_pair_outside_a_list_is_told_from_two_parts():
    with pytest.raises(ValueError, match=r'a part of a query is no number, as 0.5: .*plus=\[\("sunset", 0.5\)\]'):
        [checked(part) for part in listed(("sunset", 0.5))]


@pytest.mark.parametrize("part", [(), ("sunset",), ("sunset", 0.5, 1)])
def test_a_tuple_that_is_no_pair_is_told(part):
    with pytest.raises(ValueError, match=f"is a pair, .* not a tuple of {len(part)}"):
        checked(part)


@pytest.mark.parametrize("word", ["sunset:-0.5", "sunset:nan", "sunset:-inf", "q.jpg:0"])
def test_a_number_that_is_no_weight_is_not_taken_for_text(word):
    with pytest.raises(ValueError, match=r"the weight of '(sunset|q.jpg)' must be a number above 0"):
        with_weight(word)


def test_one_text_is_one_part():
    assert listed("sunset") == ["sunset"] and listed((("a", 2), "b")) == [("a", 2), "b"] and listed([]) == []


def test_the_sum_is_normalised_and_never_nothing():
    a, b = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    assert combined([(a, 3.0), (b, -4.0)]).tolist() == pytest.approx([0.6, -0.8])
    with pytest.raises(ValueError, match="cancel each other"):
        combined([(a, 1.0), (a, -1.0)])


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e300])
def test_weights_that_are_all_small_or_large_give_the_same_sum(size):
    a, b = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    assert combined([(a, 3 * size), (b, -4 * size)]).tolist() == pytest.approx([0.6, -0.8])
    with pytest.raises(ValueError, match="cancel each other"):
        combined([(a, size), (a, -size)])
