"""Intervals and permutation tests against closed forms, loops and their coverage."""

import itertools

import numpy as np
import pytest

from vsehub.evaluation.outcomes import Outcomes
from vsehub.evaluation.ranking import image_text_outcomes
from vsehub.evaluation.significance import compare_outcomes, intervals


def outcomes(i2t, t2i, owners):
    """Recalls of one k, both ways."""
    values = {"image_to_text_recall@1": np.array(i2t, float), "text_to_image_recall@1": np.array(t2i, float)}
    images = {"image_to_text": np.arange(len(i2t)), "text_to_image": np.array(owners)}
    return Outcomes(values, images, {"rsum": [*values], "mean_recall": [*values]})


def random_outcomes(rng, images, share, owners):
    return outcomes(100 * (rng.random(images) < share), 100 * (rng.random(len(owners)) < share), owners)


def test_small_permutation_tests_are_exact():
    rng, owners = np.random.default_rng(0), [0, 0, 1, 2, 3, 3, 4, 5]
    a, b = random_outcomes(rng, 6, 0.3, owners), random_outcomes(rng, 6, 0.8, owners)
    found = compare_outcomes(a, b)
    gaps = {name: b.values[name] - a.values[name] for name in a.values}
    sums = []
    for signs in itertools.product((1, -1), repeat=6):
        signs = np.array(signs)
        sums.append([np.mean(gap * signs[a.images_of(name)]) for name, gap in gaps.items()])
    sums = np.abs(np.column_stack([sums, np.sum(sums, axis=1)]))
    for column, name in enumerate([*gaps, "rsum"]):
        assert found[name].p == pytest.approx((sums[:, column] >= sums[0, column] - 1e-9).mean())
        assert found[name].difference == pytest.approx(b.metrics()[name] - a.metrics()[name])
    assert found["mean_recall"].p == found["rsum"].p


def test_drawn_permutations_come_near_the_exact_ones():
    rng, owners = np.random.default_rng(1), np.repeat(np.arange(13), 2)
    a, b = random_outcomes(rng, 13, 0.4, owners), random_outcomes(rng, 13, 0.7, owners)
    exact, drawn = compare_outcomes(a, b), compare_outcomes(a, b, permutations=5000)
    assert all(drawn[name].p == pytest.approx(exact[name].p, abs=0.03) for name in exact)


def test_a_model_does_not_differ_from_itself_and_never_has_p_zero():
    rng, owners = np.random.default_rng(2), np.repeat(np.arange(50), 5)
    a = random_outcomes(rng, 50, 0.5, owners)
    same, better = compare_outcomes(a, a), compare_outcomes(a, outcomes([100] * 50, [100] * 250, owners))
    assert all(row.p == 1 and row.difference == row.low == row.high == 0 for row in same.values())
    assert all(0 < row.p < 0.001 and row.low > 0 for row in better.values())


def test_intervals_widen_when_captions_go_with_their_image():
    """200 images whose 5 captions agree: the deviation of the mean is that of 200 values, not of 1,000."""
    rng, owners = np.random.default_rng(3), np.repeat(np.arange(200), 5)
    right = 100.0 * (rng.random(200) < 0.5)
    low, high = intervals(outcomes(right, right[owners], owners))["text_to_image_recall@1"]
    assert high - low == pytest.approx(2 * 1.96 * right.std() / 200**0.5, rel=0.1)
    assert low < right.mean() < high


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng, owners, inside = np.random.default_rng(4), np.repeat(np.arange(80), 2), 0
    for trial in range(200):
        low, high = intervals(random_outcomes(rng, 80, 0.6, owners), samples=300, seed=trial)["rsum"]
        inside += low <= 120 <= high
    assert 0.90 <= inside / 200 <= 0.99


def test_equal_models_are_told_apart_as_often_as_they_say():
    rng, owners, found = np.random.default_rng(5), np.repeat(np.arange(60), 2), []
    for trial in range(200):
        a, b = (random_outcomes(rng, 60, 0.5, owners) for _ in range(2))
        found.append(compare_outcomes(a, b, samples=2, permutations=199, seed=trial)["rsum"].p)
    assert np.mean(np.array(found) <= 0.05) <= 0.1


def test_one_seed_is_one_interval_and_every_mean_has_one():
    rng = np.random.default_rng(6)
    found = image_text_outcomes(rng.normal(size=(20, 4)), rng.normal(size=(40, 4)), np.repeat(np.arange(20), 2))
    assert intervals(found, seed=1) == intervals(found, seed=1) != intervals(found, seed=2)
    assert set(found.metrics()) - set(intervals(found)) == {"image_to_text_median_rank", "text_to_image_median_rank"}
    assert all(low <= found.metrics()[name] <= high for name, (low, high) in intervals(found).items())


def test_other_queries_and_metrics_are_refused():
    a = outcomes([0, 100], [0, 100], [0, 1])
    with pytest.raises(ValueError, match="different text_to_image queries"):
        compare_outcomes(a, outcomes([0, 100], [0, 100], [1, 1]))
    more = outcomes([0, 100], [0, 100], [0, 1])
    more.values["image_to_text_recall@5"] = np.zeros(2)
    with pytest.raises(ValueError, match="only one has image_to_text_recall@5"):
        compare_outcomes(a, more)
