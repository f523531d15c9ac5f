"""Retrieval metrics: many positives per query, exact ranks by counting, ties by their expectation, NaN refused.

A query's rank is the number of gallery items that score higher than its best positive. Counting needs one blocked
matrix product and no sort; the full score matrix is never held.

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
import torch

SCORES_AT_ONCE = 32_000_000  # 128 MB of float32


class Ranks(NamedTuple):
    """Where each of Q queries finds its best positive; all (Q,) int64."""

    above: np.ndarray  # items that score higher than the best positive (all of them wrong)
    tied: np.ndarray  # items that score the same, the best positive included
    tied_positives: np.ndarray  # how many of those are positives


def retrieval_ranks(queries, gallery, query_ids, gallery_ids, names: str = "query", also=None) -> Ranks:
    """Rank the best positive of every query by dot product.

    Args:
        queries: (Q, D) array or tensor; unit vectors for cosine similarity.
        gallery: (G, D).
        query_ids, gallery_ids: (Q,), (G,) integers; equal ids are positives.
        names: how errors call the queries.
        also: for each query a list of further positives, rows of the gallery; or None.

    Raises:
        ValueError: a NaN or infinite embedding (rows are named), or a query without any positive.
    """
    queries, gallery = finite_embeddings(queries, names), finite_embeddings(gallery, f"gallery of the {names} rows")
    query_ids = torch.as_tensor(np.asarray(query_ids), device=queries.device)
    gallery_ids = torch.as_tensor(np.asarray(gallery_ids), device=queries.device)
    orphans = ~torch.isin(query_ids, gallery_ids)
    if orphans.any():
        raise ValueError(f"{names} rows {orphans.nonzero().flatten()[:10].tolist()} have no positive in the gallery")
    block = max(1, SCORES_AT_ONCE // max(1, len(gallery)))
    parts = []
    for start in range(0, len(queries), block):
        scores = queries[start : start + block] @ gallery.t()  # (b, G)
        positive = query_ids[start : start + block, None] == gallery_ids[None]
        if also is not None:
            lists = also[start : start + block]
            rows = torch.arange(len(lists)).repeat_interleave(torch.tensor([len(found) for found in lists]))
            positive[rows, torch.tensor([item for found in lists for item in found], dtype=torch.long)] = True
        best = scores.masked_fill(~positive, -torch.inf).amax(1, keepdim=True)
        equal = scores == best
        parts.append(torch.stack([(scores > best).sum(1), equal.sum(1), (equal & positive).sum(1)]))
    return Ranks(*torch.cat(parts, dim=1).cpu().numpy()) if parts else Ranks(*np.zeros((3, 0), np.int64))


def recall_at_k(ranks: Ranks, k: int) -> float:
    """Per cent of queries with a positive among the first k; ties broken at random, in expectation.

    Of `tied` items m = min(k - above, tied) fall within the first k; none of the p positives among them is drawn with
    probability C(tied - p, m) / C(tied, m).
    """
    drawn = np.clip(k - ranks.above, 0, ranks.tied)
    missed = np.ones(len(ranks.above))
    for i in range(int(ranks.tied_positives.max(initial=0))):
        factor = np.clip(ranks.tied - drawn - i, 0, None) / np.clip(ranks.tied - i, 1, None)
        missed *= np.where(i < ranks.tied_positives, factor, 1.0)
    return 100.0 * float(np.mean(1.0 - missed))


def image_text_metrics(image_embeds, text_embeds, text_to_image, ks=(1, 5, 10)) -> dict[str, float]:
    """Recall@k both ways and their sum.

    Args:
        image_embeds: (N, D), each image once.
        text_embeds: (T, D).
        text_to_image: (T,) row of the image that each text belongs to.

    Returns:
        `image_to_text_recall@k`, `text_to_image_recall@k` in per cent, `rsum`, the sum of them all, and `mean_recall`,
        their mean (mR of the remote-sensing papers).
    """
    text_to_image = np.asarray(text_to_image)
    rows = np.arange(len(image_embeds))
    metrics = {}
    for name, ranks in (
        ("image_to_text", retrieval_ranks(image_embeds, text_embeds, rows, text_to_image, "image")),
        ("text_to_image", retrieval_ranks(text_embeds, image_embeds, text_to_image, rows, "text")),
    ):
        metrics |= {f"{name}_recall@{k}": recall_at_k(ranks, k) for k in ks}
    rsum = sum(metrics.values())
    return metrics | {"rsum": rsum, "mean_recall": rsum / len(metrics)}


def folded_metrics(image_embeds, text_embeds, text_to_image, folds: int, ks=(1, 5, 10)) -> dict[str, float]:
    """Mean of `image_text_metrics` over `folds` consecutive parts of the images (COCO 1K: 5 folds of 5,000).

    Raises:
        ValueError: the images do not divide into so many equal folds.
    """
    text_to_image, size = np.asarray(text_to_image), len(image_embeds) // folds
    if size * folds != len(image_embeds) or size == 0:
        raise ValueError(f"{len(image_embeds)} images do not make {folds} equal folds")
    parts = []
    for start in range(0, len(image_embeds), size):
        inside = np.flatnonzero((text_to_image >= start) & (text_to_image < start + size))
        parts.append(
            image_text_metrics(
                image_embeds[start : start + size], text_embeds[inside], text_to_image[inside] - start, ks
            )
        )
    return {key: float(np.mean([part[key] for part in parts])) for key in parts[0]}


def finite_embeddings(embeds, name: str) -> torch.Tensor:
    """Float32 embeddings (N, D), or an error that names the rows that are not finite."""
    embeds = torch.as_tensor(embeds).float()
    bad = ~torch.isfinite(embeds).all(1)
    if bad.any():
        rows = bad.nonzero().flatten()
        raise ValueError(f"{name}: {len(rows)} embeddings hold NaN or infinity, rows {rows[:10].tolist()}")
    return embeds


__all__ = ["Ranks", "finite_embeddings", "folded_metrics", "image_text_metrics", "recall_at_k", "retrieval_ranks"]
