import doctest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vsehub.evaluation import counting, ranking
from vsehub.evaluation.ranking import folded_metrics, image_text_metrics, recall_at_k, retrieval_ranks


def brute_force_recall(scores, positive, k, draws=None):
    """Mean over all (or many) random orders of tied items, of whether a positive is among the first k."""
    import itertools

    hits = []
    for row, own in zip(scores, positive):
        items = range(len(row))
        orders = itertools.permutations(items) if draws is None else draws
        found = [any(own[i] for i in sorted(order, key=lambda i: -row[i])[:k]) for order in orders]
        hits.append(np.mean(found))
    return 100 * np.mean(hits)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_recall_with_ties_is_the_mean_over_all_orders(data):
    gallery = data.draw(st.integers(1, 5))
    queries = data.draw(st.integers(1, 3))
    row = st.lists(st.integers(0, 2), min_size=gallery, max_size=gallery)
    scores = np.array(data.draw(st.lists(row, min_size=queries, max_size=queries)), float)
    gallery_ids = np.array(data.draw(st.lists(st.integers(0, 1), min_size=gallery, max_size=gallery)))
    query_ids = np.array([data.draw(st.sampled_from(sorted(set(gallery_ids)))) for _ in range(queries)])
    k = data.draw(st.integers(1, 6))
    ranks = retrieval_ranks(scores, np.eye(gallery), query_ids, gallery_ids)
    expected = brute_force_recall(scores, query_ids[:, None] == gallery_ids[None], k)
    assert recall_at_k(ranks, k) == pytest.approx(expected, abs=1e-9)


def test_ranks_equal_a_full_sort_on_random_embeddings():
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(40, 8)), rng.normal(size=(200, 8))
    owner = np.repeat(np.arange(40), 5)
    metrics = image_text_metrics(images, texts, owner)
    scores = images.astype(np.float32) @ texts.astype(np.float32).T
    for k in (1, 5, 10):
        i2t = [np.isin(np.argsort(-row)[:k], np.flatnonzero(owner == i)).any() for i, row in enumerate(scores)]
        t2i = [owner[j] in np.argsort(-column)[:k] for j, column in enumerate(scores.T)]
        assert metrics[f"image_to_text_recall@{k}"] == pytest.approx(100 * np.mean(i2t))
        assert metrics[f"text_to_image_recall@{k}"] == pytest.approx(100 * np.mean(t2i))
    assert metrics["rsum"] == pytest.approx(sum(v for key, v in metrics.items() if "@" in key))


def test_blocks_do_not_change_the_ranks(monkeypatch):
    rng = np.random.default_rng(1)
    images, texts, owner = rng.normal(size=(17, 4)), rng.normal(size=(34, 4)), np.repeat(np.arange(17), 2)
    whole = image_text_metrics(images, texts, owner)
    monkeypatch.setattr(counting, "SCORES_AT_ONCE", 50)
    assert image_text_metrics(images, texts, owner) == pytest.approx(whole)


def test_a_constant_scorer_scores_exactly_chance():
    metrics = image_text_metrics(np.ones((20, 3)), np.ones((100, 3)), np.repeat(np.arange(20), 5))
    assert metrics["text_to_image_recall@1"] == pytest.approx(100 / 20)
    assert metrics["text_to_image_recall@10"] == pytest.approx(100 * 10 / 20)
    assert metrics["image_to_text_recall@1"] == pytest.approx(100 * 5 / 100)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_embeddings_are_named(value):
    images = np.ones((3, 2))
    images[1, 0] = value
    with pytest.raises(ValueError, match=r"rows \[1\]"):
        image_text_metrics(images, np.ones((3, 2)), [0, 1, 2])


def test_a_query_without_positive_is_named():
    with pytest.raises(ValueError, match=r"rows \[1\] have no positive"):
        image_text_metrics(np.eye(2), np.eye(2), [0, 0])


def test_folds_average_consecutive_parts():
    rng = np.random.default_rng(2)
    images, texts, owner = rng.normal(size=(10, 4)), rng.normal(size=(20, 4)), np.repeat(np.arange(10), 2)
    folded = folded_metrics(images, texts, owner, folds=2)
    first = image_text_metrics(images[:5], texts[:10], owner[:10])
    second = image_text_metrics(images[5:], texts[10:], owner[:10])
    assert folded["rsum"] == pytest.approx((first["rsum"] + second["rsum"]) / 2)
    with pytest.raises(ValueError, match="equal folds"):
        folded_metrics(images, texts, owner, folds=3)


def test_tensors_and_arrays_give_the_same():
    rng = np.random.default_rng(3)
    images, texts = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
    assert image_text_metrics(torch.tensor(images), torch.tensor(texts), range(5)) == image_text_metrics(
        images, texts, np.arange(5)
    )


def test_the_worked_example_is_true():
    assert doctest.testmod(ranking).failed == 0
