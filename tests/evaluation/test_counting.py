"""Counts against comparing everything, in tiles of any size: 4,000 cases."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vsehub.evaluation import counting, tiles
from vsehub.evaluation.counting import restricted, tie_groups, tie_groups_both_ways, unique_pairs
from vsehub.evaluation.ranking import retrieval_groups

SEEDS = st.integers(0, 2**32 - 1)


def plain_counts(scores, pairs):
    """Above, tied and positives of every query's distinct positive scores, by comparing everything."""
    found = []
    for query in range(len(scores)):
        items = pairs[1][pairs[0] == query]
        for value in sorted(set(scores[query][items].tolist()), reverse=True):
            row = scores[query]
            found.append((query, (row > value).sum(), (row == value).sum(), (row[items] == value).sum()))
    return np.array(found).reshape(-1, 4).T


@pytest.mark.parametrize("examples", [400, pytest.param(4000, marks=pytest.mark.slow)])
def test_counts_equal_plain_counting_in_tiles_of_any_size(monkeypatch, examples):
    monkeypatch.setattr(counting, "PROBED", 3)
    monkeypatch.setattr(counting, "THIN", 2)

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    @given(SEEDS, st.integers(1, 12), st.integers(1, 20), st.integers(12, 150))
    def check(seed, rows, columns, size):
        rng = np.random.default_rng(seed)
        a, b = (rng.integers(-2, 3, (n, 3)).astype(np.float32) for n in (rows, columns))
        density = rng.choice([0.05, 0.3, 0.9])
        right = rng.random((rows, columns)) < density
        pairs, back = unique_pairs(*np.nonzero(right)), unique_pairs(*np.nonzero(right.T))
        monkeypatch.setattr(counting, "SCORES_AT_ONCE", size)
        monkeypatch.setattr(counting, "WIDEST", 1 + size // 4)
        for found, scores, positives in zip(
            tie_groups_both_ways(torch.from_numpy(a), torch.from_numpy(b), pairs, back),
            (a @ b.T, b @ a.T),
            (pairs, back),
        ):
            assert np.array_equal(np.stack(found[:4]), plain_counts(scores, positives))
            fewer = positives[:, rng.random(positives.shape[1]) < 0.5]
            assert np.array_equal(np.stack(restricted(found, positives, fewer)[:4]), plain_counts(scores, fewer))
        one_way = tie_groups(torch.from_numpy(a), torch.from_numpy(b), pairs)
        assert np.array_equal(np.stack(one_way[:4]), plain_counts(a @ b.T, pairs))

    check()


@pytest.mark.parametrize("size", [100_000, 10**9])
def test_hundreds_of_rows_and_columns_in_a_mixed_order(monkeypatch, size):
    monkeypatch.setattr(counting, "SCORES_AT_ONCE", size)
    monkeypatch.setattr(counting, "WIDEST", 400)
    rng = np.random.default_rng(0)
    a, b = rng.integers(-3, 4, (600, 5)).astype(np.float32), rng.integers(-3, 4, (1500, 5)).astype(np.float32)
    owner = rng.permutation(np.repeat(np.arange(600), 3))[:1500]
    pairs, back = unique_pairs(owner, np.arange(1500)), unique_pairs(np.arange(1500), owner)
    found = tie_groups_both_ways(torch.from_numpy(a), torch.from_numpy(b), pairs, back)
    assert np.array_equal(np.stack(found[0][:4]), plain_counts(a @ b.T, pairs))
    assert np.array_equal(np.stack(found[1][:4]), plain_counts(b @ a.T, back))


def test_equal_vectors_tie_wherever_they_stand():
    rng = np.random.default_rng(0)
    texts = np.tile(rng.normal(size=(300, 64)), (4, 1))
    groups = retrieval_groups(rng.normal(size=(40, 64)), texts, np.arange(40), np.arange(1200))
    assert (groups.tied == 4).all()


def test_an_accelerator_counts_as_the_processor_does(monkeypatch):
    monkeypatch.setattr(tiles, "LINES_AT_ONCE", 70)
    rng = np.random.default_rng(1)
    scores = torch.from_numpy(rng.integers(0, 5, (30, 20)).astype(np.float32))
    query = np.sort(rng.integers(0, 20, 50))
    one, other = (
        tiles.BlockGroups(query, rng.integers(0, 5, 50).astype(np.float32), False)
        for rng in map(np.random.default_rng, (2, 2))
    )
    tiles._count_on_device(scores.t(), one)
    tiles._count_columns(scores.numpy(), other)
    assert np.array_equal(one.above, other.above) and np.array_equal(one.reach, other.reach) and one.reach.any()


def test_a_product_that_varies_is_an_error(monkeypatch):
    """If a tile came out differently the second time, a positive might not even reach its own score."""
    a, b = (torch.from_numpy(np.random.default_rng(seed).normal(size=(40, 8)).astype(np.float32)) for seed in (0, 1))
    real, calls = torch.matmul, []

    def varying(x, y, out):
        calls.append(1)
        return real(x, y, out=out).sub_(1e-3 * len(calls))

    monkeypatch.setattr(counting, "SCORES_AT_ONCE", 300)
    monkeypatch.setattr(counting, "WIDEST", 20)
    monkeypatch.setattr(torch, "matmul", varying)
    everything = np.indices((40, 40)).reshape(2, -1)
    with pytest.raises(FloatingPointError, match="computed again"):
        tie_groups_both_ways(a, b, everything, everything)


@pytest.mark.parametrize("same", [True, False])
def test_tiles_are_computed_once_or_where_products_depend_on_their_size_twice(monkeypatch, same):
    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.normal(size=(n, 16)).astype(np.float32)) for n in (100, 300))
    right = rng.random((100, 300)) < 0.02
    pairs, back = unique_pairs(*np.nonzero(right)), unique_pairs(*np.nonzero(right.T))
    whole = tie_groups_both_ways(a, b, pairs, back)
    computed, real, probed = [], torch.matmul, counting._probed
    monkeypatch.setattr(counting, "SCORES_AT_ONCE", 5000)
    monkeypatch.setattr(counting, "WIDEST", 100)
    monkeypatch.setattr(counting, "PROBED", 32)
    monkeypatch.setattr(torch, "matmul", lambda x, y, out: computed.append(out.numel()) or real(x, y, out=out))
    if not same:
        monkeypatch.setattr(counting, "_probed", lambda *given: [np.nextafter(x, np.inf) for x in probed(*given)])
    for found, expected in zip(tie_groups_both_ways(a, b, pairs, back), whole):
        assert all(np.array_equal(x, y) for x, y in zip(found, expected))
    assert max(computed) <= 5000 and (sum(computed) == 30_000 if same else sum(computed) > 30_000)
