"""Counting in a tile of scores, against loops: by rows, by columns, and as an accelerator does it."""

import numpy as np
import pytest
import torch

from vsehub.evaluation import tiles
from vsehub.evaluation.tiles import BlockGroups, count_tile


def positives(scores, share, rng):
    """Some pairs of a tile, (2, P), ascending by row, and their scores."""
    pairs = np.stack(np.nonzero(rng.random(scores.shape) < share))
    return pairs, scores[pairs[0], pairs[1]]


def by_loops(scores, query, score):
    """(query, score) -> above, reach."""
    return {(q, s): (int((scores[q] > s).sum()), int((scores[q] >= s).sum())) for q, s in zip(query, score)}


def counted(groups):
    return {(q, s): (a, r) for q, s, a, r in zip(groups.query, groups.score, groups.above, groups.reach)}


def test_positives_of_one_score_are_one_group_and_the_best_come_first():
    groups = BlockGroups(np.array([1, 0, 1, 1, 0]), np.array([5.0, 1.0, 7.0, 5.0, 3.0], np.float32), best_only=False)
    assert groups.query.tolist() == [0, 0, 1, 1] and groups.score.tolist() == [3, 1, 7, 5]
    assert groups.positives.tolist() == [1, 1, 1, 2]
    assert groups.group.tolist() == [3, 1, 2, 3, 0]  # of each positive, in the order given


def test_the_best_group_alone_leaves_the_others_without_a_number():
    groups = BlockGroups(np.array([1, 0, 1, 1, 0]), np.array([5.0, 1.0, 7.0, 5.0, 3.0], np.float32), best_only=True)
    assert groups.query.tolist() == [0, 1] and groups.score.tolist() == [3, 7]
    assert groups.positives.tolist() == [1, 1] and groups.group.tolist() == [-1, -1, 1, -1, 0]


def test_a_block_may_have_no_positive():
    groups = BlockGroups(np.zeros(0, int), np.zeros(0, np.float32), best_only=False)
    count_tile(torch.zeros(2, 3), groups, groups)
    assert len(groups.above) == len(groups.group) == 0


@pytest.mark.parametrize("best_only", [False, True])
@pytest.mark.parametrize(("shape", "share"), [((7, 9), 0.3), ((300, 5), 0.02), ((4, 40), 0.9), ((260, 3), 1.0)])
def test_rows_and_columns_equal_loops(shape, share, best_only):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, shape).astype(np.float32)  # many ties
    pairs, values = positives(scores, share, rng)
    order = np.argsort(pairs[1], kind="stable")
    by_row = BlockGroups(pairs[0], values, best_only)
    by_column = BlockGroups(pairs[1][order], values[order], best_only)
    count_tile(torch.from_numpy(scores), by_row, by_column)
    for groups, plain in ((by_row, scores), (by_column, scores.T)):
        assert counted(groups) == by_loops(plain, groups.query, groups.score)


def test_tiles_add_up():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 5, (6, 20)).astype(np.float32)
    pairs, values = positives(scores, 0.3, rng)
    groups = BlockGroups(pairs[0], values, False)
    for start in range(0, 20, 7):
        count_tile(torch.from_numpy(scores[:, start : start + 7].copy()), groups)
    assert counted(groups) == by_loops(scores, groups.query, groups.score)


@pytest.mark.parametrize("at_once", [1, 50, 10**6])
def test_an_accelerator_counts_the_same_in_parts_of_any_size(at_once, monkeypatch):
    monkeypatch.setattr(tiles, "LINES_AT_ONCE", at_once)
    rng = np.random.default_rng(2)
    scores = rng.integers(0, 5, (8, 11)).astype(np.float32)
    pairs, values = positives(scores, 0.4, rng)
    groups = BlockGroups(pairs[0], values, False)
    tiles._count_on_device(torch.from_numpy(scores), groups)
    assert counted(groups) == by_loops(scores, groups.query, groups.score)
