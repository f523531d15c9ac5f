"""NDCG within one modality, and from one modality into both together (Yang et al., IEEE TIP 2024).

Relevance is ROUGE-L between a caption and the captions of an image, as TERN defines it, or equality of classes. NDCG
has linear gain and a discount of log2(rank + 1); tied scores each get the mean of their gains, which is the expected
gain in random order.

Worked example: gains 3, 2, 0 in the order 2, 3, 0 give (2 + 3 / log2 3) / (3 + 2 / log2 3) = 0.913.

    >>> round(100 * float(ndcg(np.array([[3.0, 2.0, 1.0]]), np.array([[3.0, 2.0, 0.0]]), 3)[0]), 1)
    100.0
    >>> round(100 * float(ndcg(np.array([[3.0, 2.0, 1.0]]), np.array([[2.0, 3.0, 0.0]]), 3)[0]), 1)
    91.3
"""

import numpy as np
import torch
from torch.nn import functional as F

from . import counting
from .counting import finite_embeddings
from .owners import checked_owners
from .rouge import rouge_l_relevance

KS = (10, 20, 50)
TASKS = ("image_to_image", "text_to_text", "image_to_mixed", "text_to_mixed")


def ndcg(scores: np.ndarray, relevance: np.ndarray, k: int) -> np.ndarray:
    """NDCG@k of each query, (Q,) in [0, 1]; a query without anything relevant counts 0.

    Args:
        scores, relevance: (Q, G); an item that must not be a hit has the score -inf and no relevance. Relevance may
            be True and False.
        k: number of hits that count, at most the size of the gallery.

    Raises:
        ValueError: NaN or infinity (rows are named), or arrays of two shapes.
    """
    scores, relevance = (torch.as_tensor(np.asarray(x), device="cpu") for x in (scores, relevance))
    if scores.shape != relevance.shape or scores.dim() != 2:
        raise ValueError(f"scores {tuple(scores.shape)} and relevance {tuple(relevance.shape)} must both be (Q, G)")
    relevance = relevance.double() if relevance.dtype == torch.bool else relevance  # torch ranks no truth values
    _refuse(torch.isnan(scores) | (scores == torch.inf), "scores")
    _refuse(~torch.isfinite(relevance), "relevance")
    step = max(1, counting.SCORES_AT_ONCE // max(1, scores.shape[1]))
    parts = [_ndcg(a, b, (k,)) for a, b in zip(scores.split(step), relevance.split(step))]
    return torch.cat(parts)[:, 0].numpy()


def _refuse(bad: torch.Tensor, name: str):
    rows = bad.any(1).nonzero().flatten()
    if len(rows):
        raise ValueError(f"{name}: {len(rows)} rows hold NaN or infinity, rows {rows[:10].tolist()}")


def _ndcg(scores: torch.Tensor, relevance: torch.Tensor, ks) -> torch.Tensor:
    """NDCG of a block of queries at several k, (b, len(ks)) float64; two `topk`, no sort."""
    deepest = min(max(ks), scores.shape[1])
    discounts = 1 / torch.log2(torch.arange(deepest, dtype=torch.float64, device=scores.device) + 2)
    hits, items = scores.topk(min(deepest + 1, scores.shape[1]), dim=1)
    beyond = (hits[:, deepest:] == hits[:, deepest - 1 : deepest]).any(1).nonzero().flatten()  # the next may tie
    hits, items = hits[:, :deepest], items[:, :deepest]
    gains = relevance.gather(1, items).double()
    best = relevance.topk(deepest, dim=1).values.double()
    tied = (hits[:, 1:] == hits[:, :-1]).any(1).nonzero().flatten()
    if len(tied):
        same = (hits[tied, :, None] == hits[tied, None]).double()
        gains[tied] = ((same @ gains[tied, :, None]) / same.sum(2, keepdim=True))[..., 0]
    edge = hits[:, -1:]
    if len(beyond):
        equal = scores[beyond] == edge[beyond]
        mean = torch.where(equal, relevance[beyond], 0).sum(1, dtype=torch.float64) / equal.sum(1)
        gains[beyond] = torch.where(hits[beyond] == edge[beyond], mean[:, None], gains[beyond])
    values = []
    for k in ks:
        ideal = best[:, :k] @ discounts[:k]
        values.append(torch.where(ideal > 0, gains[:, :k] @ discounts[:k] / ideal.where(ideal > 0, 1.0), 0.0))
    return torch.stack(values, dim=1)


def class_relevance(labels, text_to_image) -> np.ndarray:
    """1 where a caption's image and an image are of one class, (T, N)."""
    labels = np.unique(np.asarray(labels), return_inverse=True)[1]
    return (labels[np.asarray(text_to_image)][:, None] == labels[None]).astype(np.float32)


def graded_metrics(
    image_embeds, text_embeds, text_to_image, relevance, ks=KS, legacy: bool = False, means=None
) -> dict[str, float]:
    """NDCG@k in per cent of four tasks; queries are the images, or each image's first caption.

    `image_to_image`, `text_to_text` (the gallery is every caption), `image_to_mixed` and `text_to_mixed` (images and
    captions ranked together by cosine). A query is never its own hit.

    Args:
        image_embeds: unit vectors (N, D).
        text_embeds: unit vectors (T, D).
        text_to_image: (T,) row of each caption's image.
        relevance: (T, N), of each image for each caption.
        legacy: the official evaluation: an image scores 0 with itself instead of being left out, and in the mixed tasks
            a query is one of its own hits.
        means: mean vectors of `image` and `text` (D,), which the mixed tasks subtract from all vectors of the modality
            before they are normalised again; None: nothing is subtracted.

    Raises:
        ValueError: NaN or infinity, an image without a caption, or what `checked_owners` refuses (rows are named); a
            relevance of another shape.
    """
    images, texts = finite_embeddings(image_embeds, "image"), finite_embeddings(text_embeds, "text")
    owners, size = checked_owners(text_to_image, len(images), len(texts)), (len(texts), len(images))
    relevance = torch.as_tensor(np.asarray(relevance)).to(images.device)
    if relevance.shape != size:
        raise ValueError(f"relevance is {tuple(relevance.shape)}, and must be (texts, images), {size}")
    _refuse(~torch.isfinite(relevance), "relevance")
    known, first = np.unique(owners, return_index=True)
    if not np.array_equal(known, np.arange(len(images))):
        raise ValueError(f"image rows {np.setdiff1d(np.arange(len(images)), known)[:10].tolist()} have no caption")
    first = torch.from_numpy(first)  # each image's first caption
    mixed = (images, texts)
    if means is not None:
        sides = zip(mixed, (means["image"], means["text"]))
        mixed = tuple(F.normalize(side - mean.to(side), dim=-1) for side, mean in sides)
    values = {name: [] for name in TASKS}
    step = max(1, counting.SCORES_AT_ONCE // (2 * (len(images) + len(texts))))
    for rows in torch.arange(len(images), device="cpu").split(step):
        for name, (scores, gains, own) in _tasks((images, texts), mixed, relevance, rows, first, legacy).items():
            if own is not None:
                here = torch.arange(len(rows), device=scores.device)
                scores[here, own] = 0.0 if legacy and name == "image_to_image" else -torch.inf
                gains[here, own] = 0.0
            values[name].append(_ndcg(scores, gains, ks))
    means = {name: 100 * torch.cat(parts).mean(0) for name, parts in values.items()}
    return {f"{name}_ndcg@{k}": float(mean) for name, of_ks in means.items() for k, mean in zip(ks, of_ks)}


def _tasks(embeds, mixed, relevance, rows, first, legacy: bool) -> dict:
    """Scores, gains and the query's own item, or None, of every task, for the queries `rows`.

    The mixed tasks come first: the gains of the others, and their scores where `mixed` is `embeds`, are views of
    theirs, in which the same item is hidden.
    """
    (images, texts), (mixed_images, mixed_texts) = embeds, mixed
    start, count = first[rows], len(images)
    from_images = mixed_images[rows] @ torch.cat([mixed_images, mixed_texts]).t()
    from_texts = mixed_texts[start] @ torch.cat([mixed_texts, mixed_images]).t()
    alone = from_images[:, :count], from_texts[:, : len(texts)]
    if mixed_images is not images:
        alone = images[rows] @ images.t(), texts[start] @ texts.t()
    to_texts = relevance[:, rows].t()
    image_gains = torch.cat([relevance[start], to_texts], 1)
    text_gains = torch.cat([to_texts, relevance[first[:, None], rows].t()], 1)
    return {
        "image_to_mixed": (from_images, image_gains, None if legacy else rows),
        "text_to_mixed": (from_texts, text_gains, None if legacy else start),
        "image_to_image": (alone[0], image_gains[:, :count], rows),
        "text_to_text": (alone[1], text_gains[:, : len(texts)], start),
    }


__all__ = ["class_relevance", "graded_metrics", "ndcg", "rouge_l_relevance"]
