"""Count within one tile of the score matrix: how many scores are above each positive, how many are equal."""

import numpy as np
import torch

LINES_AT_ONCE = 32_000_000  # scores that are gathered on an accelerator


class BlockGroups:
    """The tie groups of one block of queries, and their counts so far."""

    def __init__(self, query: np.ndarray, score: np.ndarray, best_only: bool):
        order = np.lexsort((-score, query))
        query, score = query[order], score[order]
        new_query = np.r_[True, query[1:] != query[:-1]][: len(query)]
        new = new_query | np.r_[True, score[1:] != score[:-1]][: len(query)]
        starts = np.flatnonzero(new)
        self.query, self.score = query[starts], score[starts]
        self.positives = np.diff(np.r_[starts, len(query)])
        number = np.cumsum(new) - 1
        if best_only:
            best = new_query[starts]
            self.query, self.score, self.positives = self.query[best], self.score[best], self.positives[best]
            number = np.where(best[number], np.cumsum(best)[number] - 1, -1)
        self.group = np.empty(len(order), np.int64)  # of each positive, in the order given
        self.group[order] = number
        self.above, self.reach = np.zeros((2, len(self.query)), np.int64)


def count_tile(scores: torch.Tensor, by_row: BlockGroups, by_column: BlockGroups | None = None):
    """Add a tile's counts to the groups of its rows and of its columns."""
    if scores.device.type == "cpu":
        _count_rows(scores.numpy(), by_row)
        if by_column is not None:
            _count_columns(scores.numpy(), by_column)
    else:
        _count_on_device(scores, by_row)
        if by_column is not None:
            _count_on_device(scores.t(), by_column)


def _count_rows(scores: np.ndarray, groups: BlockGroups):
    """Count row by row: a row stays in the processor's cache, and torch's sums of booleans are ten times slower."""
    flags = np.empty(scores.shape[1], bool)
    for number, (row, score) in enumerate(zip(groups.query.tolist(), groups.score)):
        groups.above[number] += np.count_nonzero(np.greater(scores[row], score, out=flags))
        groups.reach[number] += np.count_nonzero(np.greater_equal(scores[row], score, out=flags))


def _count_columns(scores: np.ndarray, groups: BlockGroups):
    """Count the first groups of all columns at once, then their second, ...; where few columns are left, only these."""
    slot = np.arange(len(groups.query)) - np.searchsorted(groups.query, groups.query)
    for number in range(int(slot.max(initial=-1)) + 1):
        chosen = np.flatnonzero(slot == number)
        columns = groups.query[chosen]
        if 2 * len(chosen) > scores.shape[1]:
            limits = np.full(scores.shape[1], np.inf, np.float32)
            limits[columns] = groups.score[chosen]
            above, reach = _column_sums(scores, limits)
            above, reach = above[columns], reach[columns]
        else:
            above, reach = _column_sums(scores[:, columns], groups.score[chosen])
        groups.above[chosen] += above
        groups.reach[chosen] += reach


def _column_sums(scores: np.ndarray, limits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many scores of each column exceed its limit, and how many reach it."""
    above, reach = np.zeros((2, len(limits)), np.int64)
    flags = np.empty(len(limits), bool)
    for start in range(0, len(scores), 255):  # a byte counts up to 255
        few_above, few_reach = np.zeros((2, len(limits)), np.uint8)
        for row in scores[start : start + 255]:
            few_above += np.greater(row, limits, out=flags).view(np.uint8)
            few_reach += np.greater_equal(row, limits, out=flags).view(np.uint8)
        above += few_above
        reach += few_reach
    return above, reach


def _count_on_device(scores: torch.Tensor, groups: BlockGroups):
    step = max(1, LINES_AT_ONCE // max(1, scores.shape[1]))
    for start in range(0, len(groups.query), step):
        part = slice(start, start + step)
        lines = scores[torch.from_numpy(groups.query[part]).to(scores.device)]
        limits = torch.from_numpy(groups.score[part]).to(scores.device)[:, None]
        groups.above[part] += (lines > limits).sum(1).cpu().numpy()
        groups.reach[part] += (lines >= limits).sum(1).cpu().numpy()


__all__ = ["BlockGroups", "count_tile"]
