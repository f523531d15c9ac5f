"""Recall by words and content words of a caption: counts, bins, and means against a loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsehub.evaluation.breakdown import bins_of, content_words, recall_by, word_count
from vsehub.evaluation.ranking import image_text_outcomes


@pytest.mark.parametrize(
    ("text", "words", "things"),
    [
        ("A dog and two dogs are on the grass.", 9, 2),
        ("dogs dogs DOG", 3, 1),
        ("a glass on grass", 4, 2),  # the s of a double s is no plural
        ("the of and", 3, 0),
        ("ein Hund läuft", 3, 3),
        ("T-shirt 42", 2, 2),
    ],
)
def test_words_and_what_they_mention(text, words, things):
    assert (word_count(text), content_words(text)) == (words, things)


def test_bins_hold_about_equally_many():
    assert bins_of(range(1, 11)) == [(1, 2), (3, 4), (5, 6), (7, 8), (9, 10)] or len(bins_of(range(1, 11))) == 5
    assert bins_of([7] * 9) == [(7, 7)]
    assert bins_of([1, 2, 2, 2, 2, 2, 2, 2, 2, 3]) == [(1, 1), (2, 3)]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60))
def test_every_number_is_in_one_bin_and_no_bin_is_empty(numbers):
    bins = bins_of(numbers)
    inside = [[first <= number <= last for number in numbers] for first, last in bins]
    assert np.array_equal(np.sum(inside, axis=0), np.ones(len(numbers))) and all(map(any, inside))
    assert all(first <= last for first, last in bins)


def test_recalls_of_bins_are_means_over_their_captions_and_weigh_up_to_the_whole():
    rng = np.random.default_rng(0)
    images, texts, owners = rng.normal(size=(12, 4)), rng.normal(size=(36, 4)), np.repeat(np.arange(12), 3)
    numbers = rng.integers(1, 9, 36)
    outcomes = image_text_outcomes(images, texts, owners)
    rows = recall_by(outcomes, numbers)
    best = (texts.astype(np.float32) @ images.astype(np.float32).T).argmax(1) == owners
    for row in rows:
        inside = (numbers >= row["from"]) & (numbers <= row["to"])
        assert row["texts"] == inside.sum() and row["recall@1"] == pytest.approx(100 * best[inside].mean())
    for k in (1, 5, 10):
        whole = sum(row["texts"] * row[f"recall@{k}"] for row in rows) / 36
        assert whole == pytest.approx(outcomes.metrics()[f"text_to_image_recall@{k}"])


@pytest.mark.parametrize("numbers", [[1, 2], [0.5, 1.5, 2.5], [[1, 2, 3]]])
def test_numbers_are_whole_and_one_a_caption(numbers):
    outcomes = image_text_outcomes(np.eye(3), np.eye(3), range(3))
    with pytest.raises(ValueError, match="must be 3 whole numbers, one for each caption"):
        recall_by(outcomes, numbers)
