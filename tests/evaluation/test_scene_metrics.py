"""Duplicate-aware recall, its ceiling and scene precision, against brute force over all orders."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vsehub.evaluation import counting, scene_metrics
from vsehub.evaluation.ranking import image_text_metrics
from vsehub.evaluation.scene_metrics import (
    captions_are_shared,
    duplicate_aware_metrics,
    scene_precision,
    text_to_image_ceiling,
)


def small(draw_from, *shape):
    """Embeddings of few values, so that scores tie."""
    return np.random.default_rng(draw_from).integers(-1, 2, shape).astype(np.float32)


def expected_recall(scores, positives, k):
    """Mean over all orders that respect the scores."""
    items, hits = range(len(scores)), []
    for order in itertools.permutations(items):
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order)):
            hits.append(bool(set(order[:k]) & set(positives)))
    return np.mean(hits)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_duplicate_aware_recall_is_its_expectation_over_all_orders(seed, k):
    rng = np.random.default_rng(seed)
    images, texts, owners = small(seed, 3, 2), small(seed + 1, 5, 2), np.array([0, 0, 1, 2, 2])
    words = [str(rng.choice(["a port", "A  port ", "two ships", "sand"])) for _ in owners]
    said = [scene_metrics.same_words(word) for word in words]
    metrics = duplicate_aware_metrics(images, texts, owners, words, ks=(k,))
    t2i = [expected_recall(images @ texts[t], {owners[j] for j in range(5) if said[j] == said[t]}, k) for t in range(5)]
    i2t = [
        expected_recall(
            texts @ images[i], {j for j in range(5) if said[j] in {said[t] for t in range(5) if owners[t] == i}}, k
        )
        for i in range(3)
    ]
    assert metrics[f"duplicate_aware_text_to_image_recall@{k}"] == pytest.approx(100 * np.mean(t2i), abs=1e-6)
    assert metrics[f"duplicate_aware_image_to_text_recall@{k}"] == pytest.approx(100 * np.mean(i2t), abs=1e-6)


def test_without_duplicates_both_recalls_are_one():
    images, texts, owners = small(0, 6, 4), small(1, 12, 4), np.repeat(np.arange(6), 2)
    plain = image_text_metrics(images, texts, owners)
    aware = duplicate_aware_metrics(images, texts, owners, [f"caption {i}" for i in range(12)])
    assert all(aware[f"duplicate_aware_{key}"] == pytest.approx(plain[key]) for key in plain if "recall" in key)
    assert plain["mean_recall"] == pytest.approx(plain["rsum"] / 6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("xyz")), min_size=1, max_size=7), st.integers(1, 3))
def test_no_ranking_of_the_images_beats_the_ceiling_and_one_reaches_it(pairs, k):
    owners, words = [owner for owner, _ in pairs], [word for _, word in pairs]
    best = 0
    for word in set(words):
        asked = [owner for owner, said in pairs if said == word]
        best += max(sum(owner in order[:k] for owner in asked) for order in itertools.permutations(range(3)))
    assert text_to_image_ceiling(words, owners, ks=(k,))[k] == pytest.approx(100 * best / len(pairs))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.booleans())
def test_scene_precision_is_its_expectation_over_all_orders(seed, k, exclude_self):
    rng = np.random.default_rng(seed)
    embeds, labels = small(seed, 4, 2), rng.choice(["port", "river"], 4)
    queries = embeds if exclude_self else small(seed + 1, 3, 2)
    asked = labels if exclude_self else rng.choice(["port", "river"], 3)
    expected = []
    for row, (query, label) in enumerate(zip(queries, asked)):
        items = [i for i in range(4) if not (exclude_self and i == row)]
        scores = {i: float(query @ embeds[i]) for i in items}
        orders = [
            o for o in itertools.permutations(items) if all(scores[a] >= scores[b] for a, b in itertools.pairwise(o))
        ]
        expected.append(np.mean([np.mean([labels[i] == label for i in order[:k]]) for order in orders]))
    found = scene_precision(queries, embeds, asked, labels, ks=(k,), exclude_self=exclude_self)
    assert found[f"precision@{k}"] == pytest.approx(100 * np.mean(expected), abs=1e-4)


def test_a_constant_scorer_scores_chance():
    labels = ["port"] * 3 + ["river"] * 7
    found = scene_precision(np.zeros((10, 2)), np.zeros((10, 2)), labels, labels)
    assert found["precision@5"] == pytest.approx(100 * (0.3 * 0.3 + 0.7 * 0.7), abs=1e-4)


def test_small_blocks_change_nothing(monkeypatch):
    images, texts, owners = small(0, 6, 4), small(1, 12, 4), np.repeat(np.arange(6), 2)
    words = ["a port", "a river", "sand"] * 4
    whole = duplicate_aware_metrics(images, texts, owners, words), scene_precision(images, texts, range(6), owners)
    monkeypatch.setattr(counting, "SCORES_AT_ONCE", 12)
    assert whole == (
        duplicate_aware_metrics(images, texts, owners, words),
        scene_precision(images, texts, range(6), owners),
    )


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="precision@10 of a gallery of 2"):
        scene_precision(torch.zeros(2, 2), torch.zeros(2, 2), [0, 1], [0, 1])
    with pytest.raises(ValueError, match="NaN"):
        scene_precision(torch.full((2, 2), torch.nan), torch.zeros(2, 2), [0, 1], [0, 1], ks=(1,))
    with pytest.raises(ValueError, match="one length"):
        scene_precision(torch.zeros(3, 2), torch.zeros(2, 2), [0, 1, 1], [0, 1], ks=(1,), exclude_self=True)


def test_texts_without_owners_and_embeddings_without_classes_are_refused():
    for metric in (text_to_image_ceiling, captions_are_shared):
        with pytest.raises(ValueError, match="1 texts, and text_to_image has 2 rows"):
            metric(["a"], [0, 1])
    with pytest.raises(ValueError, match="1 texts, and text_to_image has 2 rows"):
        duplicate_aware_metrics(np.eye(2), np.eye(2), [0, 1], ["a"])
    for name, labels in (("query", ([0, 1, 1], [0, 1])), ("gallery", ([0, 1], [0, 1, 1]))):
        with pytest.raises(ValueError, match=f"3 {name}_labels for 2 embeddings"):
            scene_precision(torch.eye(2), torch.eye(2), *labels, ks=(1,))
