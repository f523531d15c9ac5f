"""Metrics against their definitions, and ties against the mean over all orders: 3,000 cases."""

import doctest
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vsehub.evaluation import counting, rank_metrics
from vsehub.evaluation.counting import tie_groups, unique_pairs
from vsehub.evaluation.rank_metrics import (
    average_precisions_at_r,
    first_ranks,
    r_precisions,
    recalls,
)
from vsehub.evaluation.ranking import image_text_metrics, image_text_outcomes

SEEDS = st.integers(0, 2**32 - 1)


def in_order(right, k):
    """Each metric of one ranked list of hits (1) and misses (0), by its definition."""
    wanted = sum(right)
    precision = [sum(right[: r + 1]) / (r + 1) for r in range(len(right))]
    return {
        "recall": float(any(right[:k])),
        "rank": right.index(1) + 1,
        "r_precision": sum(right[:wanted]) / wanted,
        "map": sum(p for p, hit in zip(precision[:wanted], right) if hit) / wanted,
    }


def in_all_orders(scores, right, k):
    """The mean of the same over every order that the scores allow."""
    tied = [[i for i in range(len(scores)) if scores[i] == score] for score in sorted(set(scores), reverse=True)]
    patterns = [sorted(set(itertools.permutations([right[i] for i in group]))) for group in tied]  # equally likely
    found = [in_order([*itertools.chain(*choice)], k) for choice in itertools.product(*patterns)]
    return {name: sum(each[name] for each in found) / len(found) for name in found[0]}


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(SEEDS, st.integers(1, 7), st.integers(1, 8))
def test_every_metric_equals_all_orders(seed, gallery, k):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, rng.integers(1, 5), (2, gallery)).astype(np.float32)
    right = rng.random((2, gallery)) < rng.uniform(0.1, 0.9)
    right[:, rng.integers(gallery)] = True
    groups = tie_groups(torch.from_numpy(scores), torch.eye(gallery), unique_pairs(*np.nonzero(right)))
    found = {
        "recall": recalls(groups, k),
        "rank": first_ranks(groups),
        "r_precision": r_precisions(groups),
        "map": average_precisions_at_r(groups),
    }
    for query in range(2):
        expected = in_all_orders(scores[query].tolist(), right[query].astype(int).tolist(), k)
        for name, value in expected.items():
            assert found[name][query] == pytest.approx(value, abs=1e-9), name


def test_outcomes_equal_sorting_when_nothing_ties(monkeypatch):
    monkeypatch.setattr(counting, "PROBED", 3)
    monkeypatch.setattr(counting, "THIN", 2)

    @settings(max_examples=400, deadline=None, derandomize=True, database=None)
    @given(SEEDS, st.integers(1, 8), st.integers(10, 100))
    def check(seed, images, size):
        rng = np.random.default_rng(seed)
        owners = np.r_[np.arange(images), rng.integers(0, images, rng.integers(0, 12))]
        rng.shuffle(owners)
        scores = rng.permutation(images * len(owners)).reshape(images, len(owners)).astype(np.float32)
        monkeypatch.setattr(counting, "SCORES_AT_ONCE", size)
        monkeypatch.setattr(counting, "WIDEST", 1 + size // 4)
        found = image_text_outcomes(scores, np.eye(len(owners)), owners, ks=(1, 3), all_positives=True).values
        for way, table, right in (
            ("image_to_text", scores, owners[None] == np.arange(images)[:, None]),
            ("text_to_image", scores.T, owners[:, None] == np.arange(images)[None]),
        ):
            for query in range(len(table)):
                expected = in_order(right[query][np.argsort(-table[query])].astype(int).tolist(), 3)
                assert found[f"{way}_recall@3"][query] == pytest.approx(100 * expected["recall"], abs=1e-9)
                assert found[f"{way}_map@r"][query] == pytest.approx(100 * expected["map"], abs=1e-9)
                assert found[f"{way}_r_precision"][query] == pytest.approx(100 * expected["r_precision"], abs=1e-9)
                assert found[f"{way}_median_rank"][query] == expected["rank"]

    check()


def test_a_constant_scorer_is_chance_in_every_metric():
    images, per_image = 6, 3
    owners = np.repeat(np.arange(images), per_image)
    texts = len(owners)
    found = image_text_metrics(np.ones((images, 2)), np.ones((texts, 2)), owners, ks=(1, 5), all_positives=True)
    missed = math.comb(texts - per_image, 5) / math.comb(texts, 5)
    assert found["image_to_text_recall@5"] == pytest.approx(100 * (1 - missed))
    assert found["text_to_image_recall@5"] == pytest.approx(100 * 5 / images)
    assert found["image_to_text_mean_rank"] == pytest.approx((texts + 1) / (per_image + 1))
    assert found["image_to_text_r_precision"] == pytest.approx(100 * per_image / texts)
    lists = [[int(i in chosen) for i in range(texts)] for chosen in itertools.combinations(range(texts), per_image)]
    expected = np.mean([in_order(right, 1)["map"] for right in lists])
    assert found["image_to_text_map@r"] == pytest.approx(100 * expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_what_has_no_score_is_named(value):
    texts = np.ones((4, 2))
    texts[2, 1] = value
    with pytest.raises(ValueError, match=r"text.* rows \[2\]"):
        image_text_metrics(np.ones((4, 2)), texts, range(4))


def test_owners_outside_the_images_are_named():
    with pytest.raises(ValueError, match=r"text rows \[1\]"):
        image_text_metrics(np.eye(2), np.eye(2), [0, 2])


def test_the_worked_example_is_true():
    assert doctest.testmod(rank_metrics).failed == 0
