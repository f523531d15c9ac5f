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


def test_the_default_keeps_most_right_pictures_or_is_none():
    noise = np.linspace(0, 0.5, 101)
    facts = default_cutoff(np.linspace(0.3, 0.9, 61), noise, images=30)
    assert facts == {"cosine": 0.475, "rejected": 0.95, "kept": 0.705, "images": 30, "captions": 61, "queries": 101}
    weak = default_cutoff(np.linspace(0.3, 0.6, 61), noise, images=30)
    assert weak["cosine"] is None and weak["kept"] < 0.5 and weak["rejected"] >= 0.95
    for few in (default_cutoff([0.5], noise, 19), default_cutoff([0.5], noise[:19], 30), default_cutoff([], noise, 30)):
        assert few is None


def test_a_cut_off_says_whose_it_is():
    assert str(Cutoff(0.25)) == "cut-off 0.250" and str(Cutoff(None)) == "no cut-off"
    assert "calibrated for this index" in str(Cutoff(0.25, "index"))
    assert "the model's default, from its validation" in str(Cutoff(0.25, "model"))


def test_a_default_cutoff_lies_between_noise_and_right_pictures_where_there_is_room():
    noise, own = np.full(100, 0.5), np.linspace(0.5, 1.0, 1001)  # nine tenths of the right ones lie at 0.55 or above
    facts = default_cutoff(own, noise, images=100)
    assert facts["cosine"] == pytest.approx(0.525, abs=1e-4) and facts["rejected"] == 1.0 and facts["kept"] > 0.9
    crowded = default_cutoff(np.linspace(0.4, 0.8, 1001), noise, images=100)  # a quarter lies below the noise
    assert crowded["cosine"] == pytest.approx(0.5, abs=1e-4) and crowded["kept"] == pytest.approx(0.75, abs=1e-2)
