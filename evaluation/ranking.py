"""Image-text retrieval metrics from embeddings: recall@k, rSum, ranks, duplicate-aware recall.

Worked example, 2 images and 4 texts that belong to images [0, 0, 1, 1]:

    >>> import numpy as np
    >>> images = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> texts = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.0, 1.0]])
    >>> metrics = image_text_metrics(images, texts, np.array([0, 0, 1, 1]), ks=(1,))
    >>> round(metrics["image_to_text_recall@1"], 1), round(metrics["text_to_image_recall@1"], 1)
    (75.0, 75.0)

The first image finds its first text; the second image ties texts 1 (not its own) and 3 (its own) at the top, so R@1
counts one half for it. Text 1 is nearer to the wrong image. All recalls are per cent, as in the papers.
"""

from typing import NamedTuple

import numpy as np

from .counting import TieGroups, finite_embeddings, tie_groups, tie_groups_both_ways, unique_pairs
from .outcomes import WAYS, Outcomes
from .rank_metrics import average_precisions_at_r, first_ranks, r_precisions, recalls


class Ranks(NamedTuple):
    """Rank of the best positive of each of Q queries; all (Q,) int64."""

    above: np.ndarray  # items that score higher than the best positive (all of them wrong)
    tied: np.ndarray  # items that score the same, the best positive included
    tied_positives: np.ndarray  # number of positives among those


def retrieval_groups(
    queries, gallery, query_ids, gallery_ids, names: str = "query", also=None, best_only: bool = False
) -> TieGroups:
    """Group the positives of every query by score and count the items that score higher or the same.

    Args:
        queries: (Q, D) array or tensor; unit vectors for cosine similarity.
        gallery: (G, D).
        query_ids, gallery_ids: (Q,), (G,) integers; equal ids are positives.
        names: name of the queries in errors.
        also: for each query a list of further positives, rows of the gallery; or None.
        best_only: only each query's best group.

    Raises:
        ValueError: a NaN or infinite embedding (rows are named), or a query without any positive.
    """
    queries, gallery = finite_embeddings(queries, names), finite_embeddings(gallery, f"gallery of the {names} rows")
    pairs = equal_ids(query_ids, gallery_ids)
    orphans = np.setdiff1d(np.arange(len(queries)), pairs[0])
    if len(orphans):
        raise ValueError(f"{names} rows {orphans[:10].tolist()} have no positive in the gallery")
    if also is not None:
        rows = np.repeat(np.arange(len(queries)), [len(items) for items in also])
        items = np.array([item for items in also for item in items], np.int64)
        pairs = unique_pairs(np.r_[pairs[0], rows], np.r_[pairs[1], items])
    return tie_groups(queries, gallery, pairs, best_only)


def retrieval_ranks(queries, gallery, query_ids, gallery_ids, names: str = "query", also=None) -> Ranks:
    """Rank the best positive of every query by dot product; arguments and errors of `retrieval_groups`."""
    return Ranks(*retrieval_groups(queries, gallery, query_ids, gallery_ids, names, also, best_only=True)[1:4])


def equal_ids(query_ids, gallery_ids) -> np.ndarray:
    """Pairs (2, P) of equal ids, ascending."""
    query_ids, gallery_ids = np.asarray(query_ids).reshape(-1), np.asarray(gallery_ids).reshape(-1)
    order = np.argsort(gallery_ids, kind="stable")
    start = np.searchsorted(gallery_ids[order], query_ids, "left")
    counts = np.searchsorted(gallery_ids[order], query_ids, "right") - start
    rows = np.repeat(np.arange(len(query_ids)), counts)
    inside = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([rows, order[np.repeat(start, counts) + inside].astype(np.int64)])


def recall_at_k(ranks: Ranks, k: int) -> float:
    """Per cent of queries with a positive among the first k; ties broken at random, in expectation."""
    return 100.0 * float(np.mean(recalls(TieGroups(np.arange(len(ranks.above)), *ranks, len(ranks.above)), k)))


def image_text_outcomes(
    image_embeds, text_embeds, text_to_image, ks=(1, 5, 10), all_positives: bool = False
) -> Outcomes:
    """Rank in both directions at once; the outcome of each query.

    Args:
        image_embeds: (N, D), each image once.
        text_embeds: (T, D).
        text_to_image: (T,) row of the image that each text belongs to.
        ks: of the recalls.
        all_positives: also MAP@R and R-Precision, for which every positive is ranked.

    Raises:
        ValueError: NaN or infinity, a text without an image, or an image without a text; rows are named.
    """
    images, texts = finite_embeddings(image_embeds, "image"), finite_embeddings(text_embeds, "text")
    owners, rows = np.asarray(text_to_image).astype(np.int64).reshape(-1), np.arange(len(images))
    outside = np.flatnonzero((owners < 0) | (owners >= len(images)))
    if len(owners) != len(texts) or len(outside):
        raise ValueError(
            f"text rows {outside[:10].tolist()} have no positive in the gallery: {len(owners)} owners of {len(texts)} "
            f"texts must be rows of {len(images)} images"
        )
    orphans = np.setdiff1d(rows, owners)
    if len(orphans):
        raise ValueError(f"image rows {orphans[:10].tolist()} have no positive in the gallery")
    pairs, pairs_back = equal_ids(rows, owners), np.stack([np.arange(len(owners)), owners])
    groups = tie_groups_both_ways(images, texts, pairs, pairs_back, best_only=not all_positives)
    return outcomes_of(dict(zip(WAYS, groups)), {WAYS[0]: rows, WAYS[1]: owners}, ks, all_positives)


def outcomes_of(groups: dict[str, TieGroups], images: dict, ks, all_positives: bool) -> Outcomes:
    """The outcomes of the queries of each way, from their tie groups; `images` are the rows of their images."""
    outcomes = Outcomes(images=images)
    for way, of_way in groups.items():
        outcomes.values |= {f"{way}_recall@{k}": 100 * recalls(of_way, k) for k in ks}
        if all_positives:
            outcomes.values[f"{way}_map@r"] = 100 * average_precisions_at_r(of_way)
            outcomes.values[f"{way}_r_precision"] = 100 * r_precisions(of_way)
        ranks = first_ranks(of_way)
        outcomes.values |= {f"{way}_median_rank": ranks, f"{way}_mean_rank": ranks}
    of_recall = [name for name in outcomes.values if "recall@" in name]
    outcomes.sums = {"rsum": of_recall, "mean_recall": of_recall}
    return outcomes


def image_text_metrics(
    image_embeds, text_embeds, text_to_image, ks=(1, 5, 10), all_positives: bool = False
) -> dict[str, float]:
    """Recall@k both ways, their sum, and ranks; arguments of `image_text_outcomes`.

    Returns:
        `image_to_text_recall@k`, `text_to_image_recall@k` in per cent, `rsum`, the sum of them all, `mean_recall`,
        their mean (mR of the remote-sensing papers), and `..._median_rank` and `..._mean_rank` of the best positive.
        With `all_positives` also `..._map@r` and `..._r_precision` in per cent.
    """
    return image_text_outcomes(image_embeds, text_embeds, text_to_image, ks, all_positives).metrics()


def fold_rows(text_to_image, images: int, folds: int) -> list[tuple[slice, np.ndarray]]:
    """Rows of the images and of the texts of `folds` consecutive parts.

    Raises:
        ValueError: the number of images is no multiple of `folds`.
    """
    text_to_image, size = np.asarray(text_to_image), images // folds if folds > 0 else 0
    if size * folds != images or size == 0:
        raise ValueError(f"{images} images cannot be divided into {folds} equal folds")
    return [
        (slice(start, start + size), np.flatnonzero((text_to_image >= start) & (text_to_image < start + size)))
        for start in range(0, images, size)
    ]


def folded_metrics(image_embeds, text_embeds, text_to_image, folds: int, ks=(1, 5, 10)) -> dict[str, float]:
    """Mean of `image_text_metrics` over `folds` consecutive parts of the images (COCO 1K: 5 folds of 5,000)."""
    text_to_image = np.asarray(text_to_image)
    parts = [
        image_text_metrics(image_embeds[rows], text_embeds[inside], text_to_image[inside] - rows.start, ks)
        for rows, inside in fold_rows(text_to_image, len(image_embeds), folds)
    ]
    return {key: float(np.mean([part[key] for part in parts])) for key in parts[0]}


__all__ = [
    "WAYS",
    "Outcomes",
    "Ranks",
    "finite_embeddings",
    "fold_rows",
    "folded_metrics",
    "image_text_metrics",
    "image_text_outcomes",
    "recall_at_k",
    "retrieval_groups",
    "retrieval_ranks",
]
