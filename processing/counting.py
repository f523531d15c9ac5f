"""Count, for every query, how many items score above its positives and how many tie with them: no sort, no full matrix.

The score matrix is computed once, tile by tile. A tile is counted as soon as the positives of its rows and columns have
all been seen, both ways at once; where captions follow their images, the tiles on the diagonal hold them all and no
tile is computed twice. Scores are compared as computed, so equal vectors tie exactly.
"""

from typing import NamedTuple

import numpy as np
import torch

from .tiles import BlockGroups, count_tile

SCORES_AT_ONCE = 32_000_000  # 128 MB of float32
THIN = 16  # below so many rows or columns, matrix libraries sum in another order and equal vectors would not tie


class TieGroups(NamedTuple):
    """The positives of Q queries; those of one query with one score are a group, best groups first."""

    query: np.ndarray  # (P,) ascending: whose group it is
    above: np.ndarray  # (P,) items that score higher, earlier positives included
    tied: np.ndarray  # (P,) items that score the same, the group's positives included
    positives: np.ndarray  # (P,) how many of those are positives
    count: int  # Q


def tie_groups(queries: torch.Tensor, gallery: torch.Tensor, pairs: np.ndarray, best_only: bool = False) -> TieGroups:
    """Count one way.

    Args:
        queries: (Q, D) finite float32.
        gallery: (G, D) on the same device.
        pairs: (2, P) query and item of every positive, ascending and without repetition (`unique_pairs`).
        best_only: only each query's best group; several times faster where queries have many positives.
    """
    return _sweep(queries, gallery, pairs, None, best_only)[0]


def tie_groups_both_ways(rows, columns, pairs, pairs_back, best_only: bool = False) -> tuple[TieGroups, TieGroups]:
    """Count for rows as queries (`pairs`: row, column) and for columns as queries (`pairs_back`: column, row)."""
    return _sweep(rows, columns, pairs, pairs_back, best_only)


def unique_pairs(queries, items) -> np.ndarray:
    """Positives (2, P) in ascending order of query and item, each once."""
    return np.unique(np.stack([np.asarray(queries, np.int64), np.asarray(items, np.int64)]), axis=1)


def finite_embeddings(embeds, name: str) -> torch.Tensor:
    """Float32 embeddings (N, D), or an error that names the rows that are not finite, or whose scores may not be."""
    embeds = torch.as_tensor(embeds).detach().float()
    bad = ~torch.isfinite(embeds.sum(1))  # a sum is finite only if all its terms are
    if bad.any():
        bad = ~torch.isfinite(embeds).all(1)
    if bad.any():
        rows = bad.nonzero().flatten()
        raise ValueError(f"{name}: {len(rows)} embeddings hold NaN or infinity, rows {rows[:10].tolist()}")
    large = torch.linalg.vector_norm(embeds, dim=1) > 1e18  # the product of two such lengths overflows float32
    if large.any():
        raise ValueError(f"{name}: rows {large.nonzero().flatten()[:10].tolist()} are too long: their scores overflow")
    return embeds


class _Way:
    """One direction of a sweep: where its positives lie among the tiles, and their scores once they have been seen."""

    def __init__(self, pairs: np.ndarray, edges: np.ndarray, item_edges: np.ndarray, best_only: bool):
        self.query, self.item = pairs
        self.edges, self.best_only = edges, best_only
        self.score = np.empty(pairs.shape[1], np.float32)
        block, item_block = (
            np.searchsorted(e, x, "right") - 1 for e, x in ((edges, self.query), (item_edges, self.item))
        )
        self.pending = np.bincount(block, minlength=len(edges) - 1)
        self.bounds = np.searchsorted(block, np.arange(len(edges)))
        order = np.lexsort((item_block, block))
        keys = np.stack([block[order], item_block[order]])
        starts = np.flatnonzero(np.r_[True, (keys[:, 1:] != keys[:, :-1]).any(0)][: len(order)])
        self.members = dict(zip(map(tuple, keys[:, starts].T.tolist()), np.split(order, starts[1:])))
        self.groups: list[BlockGroups | None] = [None] * (len(edges) - 1)

    def see(self, block: int, item_block: int, tile: torch.Tensor, item_start: int):
        """Keep the scores of the positives that lie in a tile (queries, items)."""
        index = self.members.pop((block, item_block), None)
        if index is None:
            return
        rows, columns = self.query[index] - self.edges[block], self.item[index] - item_start
        where = [torch.from_numpy(x).to(tile.device) for x in (rows, columns)]
        self.score[index] = tile[where[0], where[1]].cpu().numpy()
        self.pending[block] -= len(index)

    def settled(self, block: int) -> BlockGroups | None:
        """The groups of a block of queries, once all its positives have been seen."""
        if self.groups[block] is None and not self.pending[block]:
            part = slice(self.bounds[block], self.bounds[block + 1])
            self.groups[block] = BlockGroups(self.query[part] - self.edges[block], self.score[part], self.best_only)
        return self.groups[block]

    def result(self) -> TieGroups:
        parts = self.groups
        query = np.concatenate([part.query + start for part, start in zip(parts, self.edges)])
        above, reach, positives = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("above", "reach", "positives")
        )
        if (reach - above < positives).any():
            raise FloatingPointError("a score came out differently when it was computed again: matrix products vary")
        return TieGroups(query, above, reach - above, positives, int(self.edges[-1]))


@torch.no_grad()
def _sweep(rows, columns, pairs, pairs_back, best_only) -> tuple[TieGroups, ...]:
    """Go through the tiles that hold positives first, then through those that are still to be counted."""
    both = pairs_back is not None
    order = None
    if both and len(rows) * len(columns) > SCORES_AT_ONCE:
        home = np.zeros(len(columns), np.int64)
        home[pairs_back[0, ::-1]] = pairs_back[1, ::-1]  # the first of several stays
        if (np.diff(home) < 0).any():  # put the columns in the order of their rows, so that the diagonal holds them
            order = np.argsort(home, kind="stable")
            place = np.argsort(order)
            columns, home = columns[torch.from_numpy(order).to(columns.device)], home[order]
            pairs, pairs_back = (
                unique_pairs(pairs[0], place[pairs[1]]),
                unique_pairs(place[pairs_back[0]], pairs_back[1]),
            )
        row_edges, column_edges = _square_edges(len(rows), len(columns), home)
    else:
        blocks = -(-len(rows) * len(columns) // SCORES_AT_ONCE)
        row_edges, column_edges = _even_edges(len(rows), blocks), np.array([0, len(columns)])
    ways = [_Way(pairs, row_edges, column_edges, best_only)]
    if both:
        ways.append(_Way(pairs_back, column_edges, row_edges, best_only))
    first = {*ways[0].members, *((r, c) for c, r in (ways[1].members if both else ()))}
    tiles = [(r, c) for r in range(len(row_edges) - 1) for c in range(len(column_edges) - 1)]
    room = torch.empty(np.diff(row_edges).max(initial=0) * np.diff(column_edges).max(initial=0), device=rows.device)
    waiting = sorted(tiles, key=lambda tile: (tile not in first, tile))
    while waiting:
        left = []
        for r, c in waiting:
            (r0, r1), (c0, c1) = row_edges[r : r + 2].tolist(), column_edges[c : c + 2].tolist()
            scores = room[: (r1 - r0) * (c1 - c0)].view(r1 - r0, c1 - c0)
            torch.matmul(rows[r0:r1], columns[c0:c1].t(), out=scores)
            ways[0].see(r, c, scores, c0)
            if both:
                ways[1].see(c, r, scores.t(), r0)
            groups = [ways[0].settled(r), *([ways[1].settled(c)] if both else [])]
            if any(group is None for group in groups):
                left.append((r, c))
                continue
            count_tile(scores, *groups)
        waiting = left
    found = [way.result() for way in ways]
    if order is not None:
        found[1] = reordered(found[1], order)
    return tuple(found)


def reordered(groups: TieGroups, names: np.ndarray) -> TieGroups:
    """Rename query i to names[i], a permutation, and restore the ascending order."""
    query = names[groups.query]
    order = np.argsort(query, kind="stable")
    return TieGroups(query[order], *(column[order] for column in groups[1:4]), groups.count)


def _even_edges(count: int, blocks: int) -> np.ndarray:
    return np.linspace(0, count, max(1, min(blocks, count)) + 1).astype(np.int64)


def _square_edges(rows: int, columns: int, home: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equally many blocks of rows and of columns, a column in the block of its `home` row if that leaves none thin."""
    row_edges = _even_edges(rows, int(np.ceil(np.sqrt(rows * columns / SCORES_AT_ONCE))))
    column_edges = np.searchsorted(home, row_edges)
    column_edges[0], column_edges[-1] = 0, columns
    widths = np.diff(column_edges)
    fits = widths.min() >= min(THIN, columns // len(widths)) and widths.max() <= 2 * columns / len(widths)
    return row_edges, column_edges if fits else _even_edges(columns, len(widths))


__all__ = ["SCORES_AT_ONCE", "TieGroups", "finite_embeddings", "tie_groups", "tie_groups_both_ways", "unique_pairs"]
