"""Choosing the minimum cosine of a hit, against loops."""

import numpy as np
import pytest

from vsehub.search.cutoff import Cutoff, best_of_others, calibrated_cutoff, default_cutoff


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 1.0])
def test_it_is_the_lowest_cut_off_that_rejects_the_share(share):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=40).round(1)  # with ties
    cutoff = calibrated_cutoff([1.0], noise, share)["text"]
    assert np.mean(noise < cutoff) >= share
    lower = noise[noise < cutoff].max()  # the next that could be chosen: it rejects too few
    assert np.mean(noise < lower) < share


def test_what_is_told_counts_both_sides():
    found = calibrated_cutoff([0.1, 0.5, 0.9, 0.5], [0.2, 0.4], reject_share=1)
    assert found["text"] == np.nextafter(0.4, 1)
    assert (found["rejected"], found["kept"], found["pairs"], found["off_topic"]) == (1.0, 0.75, 4, 2)


@pytest.mark.parametrize("share", [0, -1, 1.01, float("nan")])
def test_a_share_is_above_0_and_at_most_1(share):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        calibrated_cutoff([0.5], [0.1], share)


def test_the_best_of_others_equals_its_loop():
    rng = np.random.default_rng(1)
    texts, images, owners = rng.normal(size=(7, 3)), rng.normal(size=(4, 3)), rng.integers(0, 4, 7)
    others = [np.delete(images, own, axis=0) for own in owners]
    expected = [max(text @ image for image in some) for text, some in zip(texts, others)]
    assert best_of_others(texts, images, owners) == pytest.approx(expected)
    with pytest.raises(ValueError, match="at least two validation images"):
        best_of_others(texts, images[:1], np.zeros(7, int))


def test_the_cut_off_rejects_irrelevant_queries():
    noise, own = np.linspace(0, 0.5, 101), np.linspace(0.3, 0.9, 61)
    found = calibrated_cutoff(own, noise, reject_share=0.95)
    assert 0.475 <= found["text"] < 0.48 and found["rejected"] >= 0.95
    assert found["kept"] == np.mean(own >= found["text"])
    assert calibrated_cutoff(own, [0.2] * 5, reject_share=1)["text"] > 0.2  # a tie is rejected
    for wrong in ([], [np.nan]):
        with pytest.raises(ValueError):
            calibrated_cutoff(own, wrong)
    scores = best_of_others(np.eye(3)[:2], np.eye(3), [0, 1])
    assert scores.tolist() == [0, 0]


def test_the_default_makes_the_fewest_mistakes():
    draw = np.random.default_rng(0)
    noise, own = draw.normal(0.2, 0.05, (30, 40)), draw.normal(0.5, 0.1, 200)
    facts = default_cutoff(own, noise)
    mistakes = {}
    for cosine in np.floor(own * 1e4) / 1e4:
        hits = [answered_elsewhere(row, cosine) for row in noise]
        mistakes[cosine] = np.mean(hits) + np.mean(own < cosine)
    best = min(mistakes, key=mistakes.get)
    assert facts["cosine"] == pytest.approx(best)
    assert facts["rejected"] + facts["kept"] == pytest.approx(2 - mistakes[best], abs=2e-3)
    assert (facts["images"], facts["captions"], facts["queries"]) == (40, 200, 30)


def answered_elsewhere(cosines, cutoff: float) -> float:
    """Chance of a hit among as many other pictures, by the exponential tail of the seven best."""
    *best, start = sorted(cosines, reverse=True)[:8]
    width = np.mean(best) - start
    return 1 - np.exp(-7 * np.exp(-max(cutoff - start, 0) / width))


@pytest.mark.parametrize(("distinct", "held"), [(25, 0.95), (1, 0.6)])  # words that a model does not know are all one
def test_the_default_holds_in_galleries_that_it_has_not_seen(distinct, held):
    draw, rejected, plain, kept = np.random.default_rng(1), [], [], []
    for _ in range(60):
        noise, others = (np.repeat(draw.beta(20, 20, (distinct, 300)), 25 // distinct, axis=0) for _ in range(2))
        own = draw.normal(0.9, 0.05, 600)
        facts = default_cutoff(own, noise)
        rejected.append((others.max(axis=1) < facts["cosine"]).mean())
        plain.append((others.max(axis=1) < calibrated_cutoff(own, noise.max(axis=1))["text"]).mean())
        kept.append(facts["kept"])
    assert np.mean(rejected) > 0.95 and np.mean(kept) > 0.9
    assert np.mean(plain) < held  # just above what was seen


def test_no_default_where_it_would_be_wrong_too_often():
    noise = np.random.default_rng(0).normal(0.3, 0.1, (100, 30))
    weak = default_cutoff(np.linspace(0.3, 0.6, 61), noise)
    assert weak["cosine"] is None and weak["kept"] < 0.5 and weak["rejected"] == 0.95  # what 95 % would cost
    strong = default_cutoff(np.linspace(0.8, 1.0, 61), noise)
    assert strong["cosine"] == 0.8 and strong["kept"] == 1.0 and strong["rejected"] > 0.9
    for own, few in (([0.5], noise[:19]), ([0.5], noise[:, :19]), ([], noise)):
        assert default_cutoff(own, few) is None
    with pytest.raises(ValueError, match="not finite"):
        default_cutoff([np.nan], noise)


def test_one_picture_may_be_all_that_a_query_meets():
    facts = default_cutoff([0.6] * 30, np.full((20, 20), 0.5))  # all cosines are equal: the tail has no width
    assert facts["cosine"] == 0.6 and facts["rejected"] == 1.0 == facts["kept"]


def test_a_cut_off_says_whose_it_is():
    assert str(Cutoff(0.25)) == "cut-off 0.250" and str(Cutoff(None)) == "no cut-off"
    assert "calibrated for this index" in str(Cutoff(0.25, "index"))
    assert "the model's default, from its validation" in str(Cutoff(0.25, "model"))
