"""Retrieval metrics for sets whose captions repeat and whose images have classes, as in remote sensing.

Several images of RSICD have a caption such as "many planes are parked near a terminal". Plain recall counts all of
these images but one as wrong; duplicate-aware recall counts them all as right. Both are reported.
"""

from collections import Counter, defaultdict

import numpy as np
import torch

from . import counting
from .counting import finite_embeddings
from .outcomes import Outcomes
from .rank_metrics import recalls
from .ranking import retrieval_groups


def same_words(text: str) -> str:
    """Normalise a caption to compare it with others: lower case, single spaces."""
    return " ".join(text.casefold().split())


def captions_are_shared(texts, text_to_image) -> bool:
    """Whether two images have a caption in common.

    Raises:
        ValueError: another number of texts than of owners.
    """
    _check_lengths(texts, text_to_image)
    first_image: dict[str, int] = {}
    for text, image in zip(texts, text_to_image):
        if first_image.setdefault(same_words(text), int(image)) != int(image):
            return True
    return False


def add_duplicate_aware(outcomes: Outcomes, image_embeds, text_embeds, text_to_image, texts, ks=(1, 5, 10)):
    """Add the recalls of `duplicate_aware_metrics`, query by query."""
    text_to_image, rows = np.asarray(text_to_image), np.arange(len(image_embeds))
    _check_lengths(texts, text_to_image)
    words = [same_words(text) for text in texts]
    places, images = defaultdict(list), defaultdict(set)
    for place, (word, image) in enumerate(zip(words, text_to_image)):
        places[word].append(place)
        images[word].add(int(image))
    of_images = [set() for _ in rows]
    for word, image in zip(words, text_to_image):
        of_images[image].update(places[word])
    of_texts = [sorted(images[word]) for word in words]
    ways = {
        "image_to_text": (image_embeds, text_embeds, rows, text_to_image, "image", list(map(sorted, of_images))),
        "text_to_image": (text_embeds, image_embeds, text_to_image, rows, "text", of_texts),
    }
    for way, inputs in ways.items():
        groups = retrieval_groups(*inputs, best_only=True)
        outcomes.values |= {f"duplicate_aware_{way}_recall@{k}": 100 * recalls(groups, k) for k in ks}
    outcomes.sums["duplicate_aware_mean_recall"] = [name for name in outcomes.values if "duplicate_aware" in name]


def duplicate_aware_metrics(image_embeds, text_embeds, text_to_image, texts, ks=(1, 5, 10)) -> dict[str, float]:
    """Recalls in which identical captions of other images count as right.

    Args:
        image_embeds: (N, D), each image once.
        text_embeds: (T, D).
        text_to_image: (T,) row of the image that each text belongs to.
        texts: the T captions.
        ks: of the recalls.

    Returns:
        `duplicate_aware_image_to_text_recall@k`, `duplicate_aware_text_to_image_recall@k` and
        `duplicate_aware_mean_recall`, in per cent.
    """
    outcomes = Outcomes()
    add_duplicate_aware(outcomes, image_embeds, text_embeds, text_to_image, texts, ks)
    return outcomes.metrics()


def text_to_image_ceiling(texts, text_to_image, ks=(1, 5, 10)) -> dict[int, float]:
    """The largest plain text-to-image recall@k, in per cent, of any encoder that gives equal captions equal vectors.

    Such captions rank all images alike; at best they put their own images first, the most frequent one at the
    top.

    Raises:
        ValueError: another number of texts than of owners.
    """
    _check_lengths(texts, text_to_image)
    owners = defaultdict(Counter)
    for text, image in zip(texts, text_to_image):
        owners[same_words(text)][int(image)] += 1
    best = [sorted(counts.values(), reverse=True) for counts in owners.values()]
    return {k: 100.0 * sum(sum(counts[:k]) for counts in best) / len(texts) for k in ks}


def scene_precision(
    queries, gallery, query_labels, gallery_labels, ks=(1, 5, 10), exclude_self: bool = False
) -> dict[str, float]:
    """Per cent of the first k hits that are of the query's class, mean over queries; ties in expectation.

    Args:
        queries: (Q, D).
        gallery: (G, D).
        query_labels, gallery_labels: classes, (Q,) and (G,), of any kind.
        ks: numbers of hits, each at most the size of the gallery.
        exclude_self: query i is item i of the gallery and never counts as a hit.

    Returns:
        `precision@k` for each k.

    Raises:
        ValueError: a k that is larger than the gallery, NaN or infinity, labels of another number, or unequal lengths
            with `exclude_self`.
    """
    queries, gallery = finite_embeddings(queries, "query"), finite_embeddings(gallery, "gallery")
    size = len(gallery) - exclude_self
    if max(ks) > size:
        raise ValueError(f"precision@{max(ks)} of a gallery of {size}: choose a smaller k")
    if exclude_self and len(queries) != len(gallery):
        raise ValueError(f"exclude_self needs queries and gallery of one length, got {len(queries)} and {len(gallery)}")
    for name, embeds, labels in (("query", queries, query_labels), ("gallery", gallery, gallery_labels)):
        if len(labels) != len(embeds):
            raise ValueError(f"{len(labels)} {name}_labels for {len(embeds)} embeddings: give each its class")
    numbers = {label: number for number, label in enumerate(dict.fromkeys([*query_labels, *gallery_labels]))}
    of_queries, of_gallery = (
        torch.tensor([numbers[label] for label in labels], device=queries.device)
        for labels in (query_labels, gallery_labels)
    )
    block, shares = max(1, counting.SCORES_AT_ONCE // len(gallery)), {k: [] for k in ks}
    most = min(max(ks) + 1, len(gallery))  # one more, which tells whether a tie goes over the edge
    for start in range(0, len(queries), block):
        scores, asked = queries[start : start + block] @ gallery.t(), of_queries[start : start + block]
        if exclude_self:
            rows = torch.arange(len(scores), device=scores.device)
            scores[rows, rows + start] = -torch.inf
        best, places = scores.topk(most, dim=1)
        right = (of_gallery[places] == asked[:, None]).double()
        for k in ks:
            share = right[:, :k].mean(1)
            if k < most:
                tied = (best[:, k] == best[:, k - 1]).nonzero()[:, 0]
                share[tied] = _expected_share(scores[tied], asked[tied, None] == of_gallery, best[tied, k - 1, None], k)
            shares[k].append(share)
    return {f"precision@{k}": 100.0 * float(torch.cat(parts).mean()) for k, parts in shares.items()}


def _check_lengths(texts, text_to_image):
    if len(texts) != len(text_to_image):
        raise ValueError(f"{len(texts)} texts, and text_to_image has {len(text_to_image)} rows: name the image of each")


def _expected_share(scores: torch.Tensor, right: torch.Tensor, edge: torch.Tensor, k: int) -> torch.Tensor:
    """Share of the first k items (R, G) that are right, where items tied at the edge (R, 1) come in any order."""
    above, tied = scores > edge, scores == edge
    left = k - above.sum(1)  # places left for tied items
    return ((above & right).sum(1) + left * (tied & right).sum(1).double() / tied.sum(1)) / k


__all__ = [
    "add_duplicate_aware",
    "captions_are_shared",
    "duplicate_aware_metrics",
    "same_words",
    "scene_precision",
    "text_to_image_ceiling",
]
