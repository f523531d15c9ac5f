"""Rank pictures and texts together, with the mean of its modality subtracted from every vector.

Embeddings of pictures and of texts lie around two means (the modality gap; Liang et al., NeurIPS 2022), so that cosines
within a modality are larger than those across, and a query finds its own modality first. The means are those of the
training data, in the model's configuration.
"""

import numpy as np

from .nearest import ranked
from .rows import Rows, check_request
from .vector_types import products

LEAST = 1e-6  # squared norm of a vector less the mean: one that equals the mean is near nothing
SLACK = 1e-5  # candidates are chosen in float32, whose errors grow as vectors near the mean, and ranked in float64


def centred(vectors: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Unit vectors (R, D) of vectors minus a mean, float64; `mean` is (D,), or (R, D)."""
    moved = vectors.astype(np.float64) - mean
    return moved / np.maximum(np.linalg.norm(moved, axis=-1, keepdims=True), LEAST**0.5)


def search_mixed(
    snapshot: Rows,
    query: np.ndarray,
    means: dict[str, np.ndarray],
    k: int,
    cutoff: float | None = None,
    chosen: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest rows of one query, exactly.

    Args:
        snapshot: of an index that is not empty.
        query: unit vector (D,), its own mean subtracted already.
        means: of `image` and `text`, (D,).
        k, cutoff: of `Snapshot.search`; the cut-off is one of cosines after the subtraction.
        chosen: boolean (all rows,), which rows are searched.

    Returns:
        Rows and cosines, best first, ties by row.
    """
    check_request(k, cutoff)
    k = int(k)
    left_out = ~snapshot.alive if chosen is None else ~(snapshot.alive & chosen)
    both = np.stack([means["image"], means["text"]])  # (2, D)
    scores, slack = np.zeros((2, len(left_out)), np.float32)
    for part, vectors in snapshot.blocks():
        of = snapshot.texts[part].astype(int)  # the modality of each row: a row of `both`
        sums = products(vectors, np.stack([query, *both]).astype(np.float32), slice(None))  # (3, R)
        squares = 1 - 2 * sums[1 + of, np.arange(len(of))] + (both**2).sum(1)[of]
        squares = np.maximum(squares, LEAST)
        scores[part] = (sums[0] - (both @ query)[of]) / np.sqrt(squares)
        slack[part] = (SLACK + 2 * getattr(vectors, "length_error", 0)) / squares
    scores[left_out] = -np.inf
    last = np.partition(scores - slack, -k)[-k] if k < len(scores) else -np.inf
    rows = np.flatnonzero((scores + slack >= last) & ~left_out)
    rows, cosines = ranked(rows, centred(snapshot.vectors(rows), both[snapshot.texts[rows].astype(int)]), query)
    kept = slice(0, k if cutoff is None else min(k, int((cosines >= cutoff).sum())))
    return rows[kept], cosines[kept]


__all__ = ["centred", "search_mixed"]
