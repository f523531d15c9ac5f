"""Count for every query how many items score above its positives and how many tie, without sorting or a full matrix.

The score matrix is computed tile by tile, and each tile is counted in both directions against the scores of the
positives. These are computed beforehand in small products and must equal those in the tiles to the last bit. Where a
library's sums depend on the size of the product, each tile is computed twice instead. So equal vectors tie exactly.
"""

from typing import NamedTuple

import numpy as np
import torch

from .tiles import BlockGroups, count_tile

SCORES_AT_ONCE = 32_000_000  # 128 MB of float32
WIDEST = 32_768  # scores of one row of a tile, so that it stays in the processor's cache
PROBED = 256  # rows of a small product; many tiny products would wait for threads each time
THIN = 16  # with fewer rows or columns, libraries may sum in another order


class TieGroups(NamedTuple):
    """The positives of Q queries; those of one query with one score are a group, best groups first."""

    query: np.ndarray  # (P,) ascending: the query of each group
    above: np.ndarray  # (P,) items that score higher, earlier positives included
    tied: np.ndarray  # (P,) items that score the same, the group's positives included
    positives: np.ndarray  # (P,) number of positives among them
    num_queries: int  # Q
    group: np.ndarray | None = None  # number of each pair's group, in the order of the pairs; -1 for none


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


def restricted(groups: TieGroups, pairs: np.ndarray, fewer: np.ndarray) -> TieGroups:
    """The groups of some of the positives; counts stay the same, because they refer to the whole gallery.

    Args:
        groups: of `pairs`, not `best_only`.
        pairs, fewer: (2, P) as from `unique_pairs`; the latter's are among the former's.
    """
    width = 1 + int(max(pairs[1].max(initial=0), fewer[1].max(initial=0)))
    index = np.searchsorted(pairs[0] * width + pairs[1], fewer[0] * width + fewer[1])
    kept, group, counts = np.unique(groups.group[index], return_inverse=True, return_counts=True)
    return TieGroups(groups.query[kept], groups.above[kept], groups.tied[kept], counts, groups.num_queries, group)


def unique_pairs(queries, items) -> np.ndarray:
    """Positives (2, P) in ascending order of query and item, each once."""
    return np.unique(np.stack([np.asarray(queries, np.int64), np.asarray(items, np.int64)]), axis=1)


def finite_embeddings(embeds, name: str) -> torch.Tensor:
    """Float32 embeddings (N, D); an error names rows that are not finite, or whose scores would overflow."""
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
    """One direction of the count: which tile holds which positives, and their scores once they are known."""

    def __init__(self, pairs: np.ndarray, edges: np.ndarray, item_edges: np.ndarray, best_only: bool):
        self.query, self.item = pairs
        self.edges, self.best_only = edges, best_only
        self.score, self.probed = np.empty(pairs.shape[1], np.float32), False
        block = np.searchsorted(edges, self.query, "right") - 1
        item_block = np.searchsorted(item_edges, self.item, "right") - 1
        self.pending = np.bincount(block, minlength=len(edges) - 1)
        self.bounds = np.searchsorted(block, np.arange(len(edges)))
        order = np.lexsort((item_block, block))
        keys = np.stack([block[order], item_block[order]])
        starts = np.flatnonzero(np.r_[True, (keys[:, 1:] != keys[:, :-1]).any(0)][: len(order)])
        self.members = dict(zip(map(tuple, keys[:, starts].T.tolist()), np.split(order, starts[1:])))
        self.groups: list[BlockGroups | None] = [None] * (len(edges) - 1)

    def see(self, block: int, item_block: int, tile: torch.Tensor, item_start: int) -> bool:
        """Store the scores of the positives in a tile (queries, items), or say whether they equal the probed ones."""
        index = self.members.pop((block, item_block), None)
        if index is None:
            return True
        rows, columns = self.query[index] - self.edges[block], self.item[index] - item_start
        where = [torch.from_numpy(x).to(tile.device) for x in (rows, columns)]
        scores = tile[where[0], where[1]].cpu().numpy()
        if self.probed:
            return np.array_equal(scores, self.score[index])
        self.score[index] = scores
        self.pending[block] -= len(index)
        return True

    def probe(self, scores: np.ndarray):
        """Use scores of all positives that were computed before."""
        self.score, self.probed = scores, True
        self.pending[:] = 0

    def settled(self, block: int) -> BlockGroups | None:
        """The groups of a block of queries, once all its positives are known."""
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
            raise FloatingPointError(
                "a score differed when it was computed again: matrix products are not reproducible here"
            )
        starts = np.cumsum([0, *(len(part.query) for part in parts)])
        group = np.concatenate([np.where(p.group < 0, -1, p.group + start) for p, start in zip(parts, starts)])
        return TieGroups(query, above, reach - above, positives, int(self.edges[-1]), group)


@torch.no_grad()
def _sweep(rows, columns, pairs, pairs_back, best_only, probe: bool = True) -> tuple[TieGroups, ...]:
    """Count every tile against the positives of its rows and, with `pairs_back`, of its columns."""
    both = pairs_back is not None
    column_edges = _edges(len(columns), -(-len(columns) // WIDEST) if both else 1)
    widest = int(np.diff(column_edges).max())
    row_edges = _edges(len(rows), -(-len(rows) * widest // SCORES_AT_ONCE))
    ways = [_Way(pairs, row_edges, column_edges, best_only)]
    if both:
        ways.append(_Way(pairs_back, column_edges, row_edges, best_only))
    tiles = [(r, c) for r in range(len(row_edges) - 1) for c in range(len(column_edges) - 1)]
    if both and probe and len(tiles) > 1 and min(len(rows), len(columns)) >= THIN:
        for way, scores in zip(ways, _probed(rows, columns, pairs, pairs_back)):
            way.probe(scores)
    room = torch.empty(int(np.diff(row_edges).max()) * widest, device=rows.device)
    while tiles:
        left = []
        for r, c in tiles:
            (r0, r1), (c0, c1) = row_edges[r : r + 2].tolist(), column_edges[c : c + 2].tolist()
            scores = room[: (r1 - r0) * (c1 - c0)].view(r1 - r0, c1 - c0)
            torch.matmul(rows[r0:r1], columns[c0:c1].t(), out=scores)
            same = ways[0].see(r, c, scores, c0) and (not both or ways[1].see(c, r, scores.t(), r0))
            if not same:
                return _sweep(rows, columns, pairs, pairs_back, best_only, probe=False)
            groups = [ways[0].settled(r), *([ways[1].settled(c)] if both else [])]
            if any(group is None for group in groups):
                left.append((r, c))
                continue
            count_tile(scores, *groups)
        tiles = left
    return tuple(way.result() for way in ways)


def _edges(count: int, blocks: int) -> np.ndarray:
    return np.linspace(0, count, max(1, min(blocks, count)) + 1).astype(np.int64)


def _probed(rows, columns, pairs: np.ndarray, pairs_back: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of both lists of pairs: a few rows at a time with all columns that are a positive of one of them."""
    codes = [pairs[0] * len(columns) + pairs[1], pairs_back[1] * len(columns) + pairs_back[0]]
    every = np.unique(np.concatenate(codes))
    row, column = np.divmod(every, len(columns))
    scores, fill = np.empty(len(every), np.float32), np.arange(THIN)
    for start in range(0, len(rows), PROBED):
        part = slice(*np.searchsorted(row, [start, start + PROBED]))
        # The last product overlaps the one before, because a thin one may sum in another order.
        first = max(0, min(start, len(rows) - PROBED))
        wanted, place = np.unique(column[part], return_inverse=True)
        taken = columns[torch.from_numpy(np.r_[wanted, fill[: max(0, THIN - len(wanted))]]).to(columns.device)]
        small = (rows[first : first + PROBED] @ taken.t()).cpu().numpy()
        scores[part] = small[row[part] - first, place]
    return tuple(scores[np.searchsorted(every, code)] for code in codes)


__all__ = [
    "SCORES_AT_ONCE",
    "TieGroups",
    "finite_embeddings",
    "restricted",
    "tie_groups",
    "tie_groups_both_ways",
    "unique_pairs",
]
