"""Gains over seeds and images against closed forms and their coverage."""

import numpy as np
import pytest

from vsehub.evaluation.ranking import image_text_outcomes
from vsehub.evaluation.seeds import gain, shares_of_images


def embeddings(rng, images, captions):
    owners = np.repeat(np.arange(images), captions)
    pictures = rng.normal(size=(images, 8))
    return pictures, pictures[owners] + 1.5 * rng.normal(size=(len(owners), 8)), owners


@pytest.mark.parametrize("metric", ["rsum", "mean_recall", "image_to_text_recall@1"])
def test_the_mean_of_the_shares_is_the_metric(metric):
    outcomes = image_text_outcomes(*embeddings(np.random.default_rng(0), 40, 5), (1, 5, 10))
    shares = shares_of_images(outcomes, metric)
    assert shares.shape == (40,)
    assert shares.mean() == pytest.approx(outcomes.metrics()[metric])


def test_shares_need_as_many_captions_for_each_image_and_a_metric_that_is_a_mean():
    images, texts, owners = embeddings(np.random.default_rng(1), 10, 5)
    outcomes = image_text_outcomes(images, texts[:-1], owners[:-1], (1, 5, 10))
    with pytest.raises(ValueError, match="different numbers of captions"):
        shares_of_images(outcomes, "rsum")
    with pytest.raises(ValueError, match="no metric 'text_to_image_median_rank'"):
        shares_of_images(outcomes, "text_to_image_median_rank")


def test_with_equal_images_only_the_seeds_count():
    """The bootstrap's deviation of a mean of S runs is their population deviation over sqrt(S)."""
    rng = np.random.default_rng(2)
    a, b = (np.repeat(rng.normal(size=(30, 1)), 50, axis=1) for _ in range(2))
    result = gain(a, b, level=0.95)
    deviation = np.sqrt(a[:, 0].var() / 30 + b[:, 0].var() / 30)
    assert result.mean == pytest.approx(b.mean() - a.mean())
    assert (result.high - result.low) / 2 == pytest.approx(1.96 * deviation, rel=0.06)


def test_with_equal_seeds_only_the_images_count():
    rng = np.random.default_rng(3)
    a, b = (np.repeat(rng.normal(size=(1, 400)), 4, axis=0) for _ in range(2))
    result = gain(a, b, level=0.95)
    assert (result.high - result.low) / 2 == pytest.approx(1.96 * (b - a)[0].std() / 20, rel=0.06)


def test_the_interval_covers_the_truth_where_one_over_images_alone_does_not():
    rng, covered, covered_by_images = np.random.default_rng(4), 0, 0
    for trial in range(100):
        pictures = rng.normal(size=100)
        a, b = (rng.normal(size=(5, 1)) + pictures * own + 0.5 * rng.normal(size=(5, 100)) for own in (1.0, 1.2))
        result = gain(a, b, samples=400, level=0.95, seed=trial)
        covered += result.low <= 0 <= result.high
        one = gain(a[[0, 0]], b[[0, 0]], samples=400, level=0.95, seed=trial)
        covered_by_images += one.low <= 0 <= one.high
    assert covered >= 85 > 50 > covered_by_images


def test_a_gain_holds_only_when_its_whole_interval_is_above_zero():
    rng = np.random.default_rng(5)
    a = rng.normal(size=(5, 200))
    assert gain(a, a + 3).holds
    assert not gain(a, a + 0.01 * rng.normal(size=a.shape)).holds
    assert not gain(a, a - 3).holds


def test_one_run_or_other_images_are_refused():
    runs = np.zeros((3, 10))
    with pytest.raises(ValueError, match="at least two"):
        gain(runs[0], runs)
    with pytest.raises(ValueError, match="different images"):
        gain(runs, np.zeros((3, 9)))
