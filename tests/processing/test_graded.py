"""NDCG with graded relevance against loops and all orders, and ROUGE-L against its definition."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsehub.processing.graded import class_relevance, graded_metrics, ndcg, rouge_l_relevance


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


def lcs(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, j in itertools.product(range(len(a)), range(len(b))):
        table[i + 1, j + 1] = table[i, j] + 1 if a[i] == b[j] else max(table[i, j + 1], table[i + 1, j])
    return table[-1, -1]


def test_rouge_l_is_its_definition():
    pytest.importorskip("rapidfuzz")
    captions = [["a dog runs in the park", "the dog runs"], ["A boat on the river", "two boats", "a river in the park"]]
    found, flat = rouge_l_relevance(captions), [text.lower().split() for several in captions for text in several]
    for row, text in enumerate(flat):
        for image, several in enumerate(captions):
            refs = [ref.lower().split() for ref in several]
            precision = max(lcs(text, ref) / len(text) for ref in refs)
            recall = max(lcs(text, ref) / len(ref) for ref in refs)
            score = (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision) if precision else 0
            assert found[row, image] == pytest.approx(score, abs=1e-6)
    assert found[0, 0] == pytest.approx(1)


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


def test_a_space_ordered_by_class_is_perfect_and_nothing_relevant_counts_nothing():
    labels, owners = ["port", "port", "river", "river"], np.repeat(np.arange(4), 2)
    images = np.eye(2)[[0, 0, 1, 1]]
    found = graded_metrics(images, images[owners], owners, class_relevance(labels, owners))
    assert all(value == pytest.approx(100) for value in found.values())
    assert ndcg(np.ones((1, 3)), np.zeros((1, 3)), 2)[0] == 0
