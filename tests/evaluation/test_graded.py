"""NDCG with graded relevance against loops and all orders, and ROUGE-L against its definition."""

import doctest
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vsehub.evaluation import counting, graded
from vsehub.evaluation.graded import class_relevance, graded_metrics, ndcg


def dcg(gains, k):
    return sum(gain / np.log2(rank + 2) for rank, gain in enumerate(gains[:k]))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_ndcg_is_its_expectation_over_all_orders(seed, k):
    rng = np.random.default_rng(seed)
    scores, gains = rng.integers(0, 3, 5).astype(float), rng.uniform(0, 1, 5)
    orders = [
        o for o in itertools.permutations(range(5)) if all(scores[a] >= scores[b] for a, b in itertools.pairwise(o))
    ]
    expected = np.mean([dcg(gains[list(o)], k) for o in orders]) / dcg(sorted(gains, reverse=True), k)
    assert ndcg(scores[None], gains[None], k)[0] == pytest.approx(expected, abs=1e-9)


def test_relevance_may_be_true_or_false():
    scores, relevant = np.array([[3.0, 2.0, 1.0]]), np.array([[False, True, True]])
    assert ndcg(scores, relevant, 2) == pytest.approx(ndcg(scores, relevant.astype(float), 2))


def in_the_mean_order(scores, gains, k):
    """Each item's gain is the mean of those it ties with; then the plain definition."""
    shared = np.array([gains[scores == score].mean() for score in scores])
    ideal = dcg(sorted(gains, reverse=True), k)
    return dcg(shared[np.argsort(-scores, kind="stable")], k) / ideal if ideal else 0.0


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 12), st.integers(1, 60))
def test_blocks_of_any_size_and_ties_at_any_place(seed, gallery, k, size):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, rng.integers(1, 30), (5, gallery)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    gains = rng.integers(0, 3, scores.shape) * np.isfinite(scores)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "SCORES_AT_ONCE", size)
        found = ndcg(scores, gains, k)
    assert found == pytest.approx([in_the_mean_order(*row, k) for row in zip(scores, gains)], abs=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_named(value):
    bad = np.zeros((3, 4))
    bad[1, 2] = value
    with pytest.raises(ValueError, match=r"scores: 1 rows .* rows \[1\]"):
        ndcg(bad, np.zeros((3, 4)), 2)
    with pytest.raises(ValueError, match=r"relevance: 1 rows .* rows \[1\]"):
        graded_metrics(np.eye(4), np.eye(4)[:3], [0, 1, 2], bad)


def unit(*shape, seed=0):
    values = np.random.default_rng(seed).normal(size=shape)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@pytest.mark.parametrize("legacy", [False, True])
def test_the_four_tasks_equal_their_loops(legacy):
    images, texts, owners = unit(4, 3), unit(8, 3, seed=1), np.repeat(np.arange(4), 2)
    relevance = np.random.default_rng(2).uniform(0, 1, (8, 4))
    found = graded_metrics(images, texts, owners, relevance, ks=(3,), legacy=legacy)
    expected = {name: [] for name in ("image_to_image", "text_to_text", "image_to_mixed", "text_to_mixed")}
    for i in range(4):
        query, first = texts[2 * i], 2 * i
        to_images = [(images[i] @ images[j], relevance[first, j], i == j) for j in range(4)]
        to_texts = [(query @ texts[c], relevance[c, i], c == first) for c in range(8)]
        lists = {
            "image_to_image": to_images,
            "text_to_text": to_texts,
            "image_to_mixed": [*to_images, *((images[i] @ texts[c], relevance[c, i], False) for c in range(8))],
            "text_to_mixed": [*to_texts, *((query @ images[j], relevance[2 * j, i], False) for j in range(4))],
        }
        for name, items in lists.items():
            if legacy and name.endswith("mixed"):
                items = [(score, gain, False) for score, gain, _ in items]
            elif legacy and name == "image_to_image":
                items = [(0.0, 0.0, False) if own else (score, gain, False) for score, gain, own in items]
            kept = [(score, gain) for score, gain, own in items if not own]
            ranked = [gain for _, gain in sorted(kept, key=lambda pair: -pair[0])]
            expected[name].append(dcg(ranked, 3) / dcg(sorted(ranked, reverse=True), 3))
    for name, values in expected.items():
        assert found[f"{name}_ndcg@3"] == pytest.approx(100 * np.mean(values), abs=1e-4), name


def test_the_order_of_the_captions_is_no_matter_and_every_image_needs_one():
    images, texts, owners = unit(6, 8, seed=1), unit(12, 8, seed=2), np.repeat(np.arange(6), 2)
    relevance = np.random.default_rng(3).random((12, 6))
    for images_first in ([3, 1, 5, 0, 2, 4], [0, 1, 2, 3, 5, 4]):
        order = np.concatenate([np.flatnonzero(owners == image) for image in images_first])
        moved = graded_metrics(images, texts[order], owners[order], relevance[order], ks=(3,))
        assert moved == pytest.approx(graded_metrics(images, texts, owners, relevance, ks=(3,)))
    with pytest.raises(ValueError, match=r"image rows \[2\] have no caption"):
        graded_metrics(images, texts, np.where(owners == 2, 3, owners), relevance)


def test_a_space_ordered_by_class_is_perfect_and_nothing_relevant_counts_nothing():
    labels, owners = ["port", "port", "river", "river"], np.repeat(np.arange(4), 2)
    images = np.eye(2)[[0, 0, 1, 1]]
    found = graded_metrics(images, images[owners], owners, class_relevance(labels, owners))
    assert all(value == pytest.approx(100) for value in found.values())
    assert ndcg(np.ones((1, 3)), np.zeros((1, 3)), 2)[0] == 0


def test_the_worked_example_is_true():
    assert doctest.testmod(graded).failed == 0


def apart(seed: int = 0):
    """Pictures and captions of 20 classes, each modality around a place of its own; relevance by class; the means."""
    generator = torch.Generator().manual_seed(seed)
    things, labels = torch.randn(20, 16, generator=generator), torch.arange(60) % 20
    owners = torch.arange(60).repeat_interleave(2)
    places = 3 * torch.randn(2, 16, generator=generator)
    images = things[labels] + 0.5 * torch.randn(60, 16, generator=generator) + places[0]
    texts = things[labels[owners]] + 0.5 * torch.randn(120, 16, generator=generator) + places[1]
    images, texts = F.normalize(images, dim=-1), F.normalize(texts, dim=-1)
    means = {"image": images.mean(0), "text": texts.mean(0)}
    return (images, texts, owners), class_relevance(labels, owners), means


def test_without_the_means_of_the_modalities_mixed_retrieval_rises_and_nothing_else_changes():
    embeds, relevance, means = apart()
    raw, less = graded_metrics(*embeds, relevance), graded_metrics(*embeds, relevance, means=means)
    for task in ("image_to_image", "text_to_text"):
        assert {name: value for name, value in raw.items() if task in name} == pytest.approx(
            {name: value for name, value in less.items() if task in name}, abs=1e-3
        )
    for task in ("image_to_mixed", "text_to_mixed"):
        assert less[f"{task}_ndcg@10"] > raw[f"{task}_ndcg@10"] + 5, task


def test_the_mixed_tasks_are_those_of_vectors_that_were_centred_by_hand():
    (images, texts, owners), relevance, means = apart(1)
    by_hand = [F.normalize(side - means[kind], dim=-1) for side, kind in ((images, "image"), (texts, "text"))]
    expected = graded_metrics(*by_hand, owners, relevance)
    less = graded_metrics(images, texts, owners, relevance, means=means)
    assert {k: v for k, v in less.items() if "mixed" in k} == pytest.approx(
        {k: v for k, v in expected.items() if "mixed" in k}, abs=1e-4
    )


def test_gains_are_counted_on_the_cpu_whatever_the_default_device():
    """`meta` stands for a GPU: its tensors cannot be mixed with those of the CPU, either."""
    scores, gains = np.array([[3.0, 2.0, 1.0]]), np.array([[0.0, 1.0, 0.5]])
    with torch.device("meta"):
        found = ndcg(scores, gains, 3)
    assert found == pytest.approx(ndcg(scores, gains, 3))


@pytest.mark.parametrize("shape", [(6, 12), (13, 6), (12, 7), (12,)])
def test_relevance_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"relevance is .*must be \(texts, images\), \(12, 6\)"):
        graded_metrics(unit(6, 8, seed=1), unit(12, 8, seed=2), np.repeat(np.arange(6), 2), np.ones(shape))
    with pytest.raises(ValueError, match=r"must both be \(Q, G\)"):
        ndcg(np.ones((12, 6)), np.ones(shape), 3)
