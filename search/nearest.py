"""Exact nearest neighbours by inner product, with faiss or numpy; both return the same rows.

Both engines only propose candidates, in float32 and with different rounding. The candidates are scored again in
float64, row by row, and ties go to the lower row, so the result does not depend on the engine.
"""

import numpy as np

from .vector_types import Vectors, products

MARGIN = 16  # candidates beyond k
TIE = 2e-6  # the order of scores closer than this depends on the engine's rounding in float32
SCORES_AT_ONCE = 1 << 24  # in the numpy engine: 64 MB
ASKED_BEYOND = (
    64  # up to so many left-out rows, faiss is asked for more rows and they are dropped; above, numpy masks scores
)


def load_faiss():
    """The faiss module, or None where it is not installed."""
    try:
        import faiss
    except ImportError:
        return None
    return faiss


def candidates(vectors: Vectors, queries: np.ndarray, count: int, left_out: np.ndarray | None = None) -> np.ndarray:
    """Rows that hold the `count` best of `vectors` (R, D) for each of the queries (Q, D): (Q, <= count + 64), -1 none.

    Args:
        vectors: in memory or memory-mapped; those that are not float32 are decoded block by block.
        queries: float32.
        count: how many.
        left_out: boolean (R,), rows that are not searched.
    """
    dropped = 0 if left_out is None else int(left_out.sum())
    if len(vectors) - dropped <= 0:
        return np.full((len(queries), 0), -1)
    count = min(count, len(vectors) - dropped)
    faiss = load_faiss()
    if faiss is None or dropped > ASKED_BEYOND or not isinstance(vectors, np.ndarray):
        return _by_numpy(vectors, queries, count, left_out if dropped else None)
    rows = faiss.knn(queries, vectors, count + dropped, metric=faiss.METRIC_INNER_PRODUCT)[1]
    if dropped:
        rows[left_out[rows] & (rows >= 0)] = -1
    return rows


def _by_numpy(vectors, queries, count, left_out) -> np.ndarray:
    block = max(1024, SCORES_AT_ONCE // len(queries))
    rows, scores = [], []
    for start in range(0, len(vectors), block):
        several = products(vectors, queries, slice(start, start + block))  # (Q, block)
        if left_out is not None:
            several[:, left_out[start : start + block]] = -np.inf
        best = _best(several, count)
        rows.append(best + start)
        scores.append(np.take_along_axis(several, best, 1))
    rows, scores = np.concatenate(rows, 1), np.concatenate(scores, 1)
    best = _best(scores, count)
    rows, scores = np.take_along_axis(rows, best, 1), np.take_along_axis(scores, best, 1)
    return np.where(np.isneginf(scores), -1, rows)


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """Columns of the `count` largest scores of each row, in no order."""
    if count >= scores.shape[1]:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return np.argpartition(scores, scores.shape[1] - count, axis=1)[:, -count:]


def ranked(rows: np.ndarray, vectors: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order candidate rows (C,) with their vectors (C, D) for one query (D,).

    Returns:
        rows and cosines (float64), best first, ties by row.
    """
    # one sum for each row: BLAS may round equal rows differently at different places of a matrix
    scores = (vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
    order = np.lexsort((rows, -scores))
    return rows[order], scores[order]


def cut_through_tie(scores: np.ndarray, k: int, count: int) -> bool:
    """Whether rows that were not proposed may tie with the k-th of these candidates' scores (best first).

    An engine that left out a tied row has proposed `count` others that are no worse, so the score at `count` decides.
    The last candidate does not: it may come from a segment with fewer good rows.
    """
    return len(scores) >= count and scores[k - 1] - scores[count - 1] <= TIE


__all__ = ["MARGIN", "candidates", "cut_through_tie", "load_faiss", "ranked"]
