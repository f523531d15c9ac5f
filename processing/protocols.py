"""The evaluation protocols of the literature by name: what the data must look like, and what is reported.

Every protocol gives `Outcomes`, what each query came to; metrics are means over them.
"""

from dataclasses import dataclass

import numpy as np

from .counting import TieGroups, finite_embeddings, tie_groups
from .ground_truth import OUTSIDE, GroundTruth
from .outcomes import WAYS, Outcomes
from .ranking import fold_rows, image_text_outcomes, outcomes_of
from .scene_metrics import add_duplicate_aware, captions_are_shared

KS = (1, 5, 10)


@dataclass(frozen=True)
class Protocol:
    """One way of evaluating; `None` means any number."""

    about: str
    images: int | None = None
    captions: int | None = None  # of each image
    spare: bool = False  # captions beyond these are left out; otherwise they are an error
    folds: int = 1
    truth: str | None = None  # `cxc` or `eccv`: positives from a ground truth
    repeats: bool = False  # also recalls in which an identical caption is as good as one's own


COCO = {"images": 5000, "captions": 5, "spare": True}
PROTOCOLS = {
    "recall": Protocol("any split: R@1, R@5, R@10 both ways, rSum, mR, ranks; duplicate-aware", repeats=True),
    "flickr30k-1k": Protocol("1,000 images, 5 captions each: R@1, R@5, R@10, rSum", 1000, 5),
    "coco-5k": Protocol("5,000 images, their first 5 captions: R@1, R@5, R@10, rSum", **COCO),
    "coco-1k": Protocol("mean over 5 consecutive folds of 1,000 of the 5,000 images", folds=5, **COCO),
    "cxc": Protocol("COCO 5K with the further positives of Crisscrossed Captions: R@1, R@5, R@10", truth="cxc", **COCO),
    "eccv": Protocol("ECCV Caption on COCO 5K: mAP@R, R-Precision, R@1", truth="eccv", **COCO),
    "rsicd": Protocol("1,093 images, 5 captions each: R@1, R@5, R@10, mR; duplicate-aware", 1093, 5, repeats=True),
    "rsitmd": Protocol("452 images, 5 captions each: R@1, R@5, R@10, mR; duplicate-aware", 452, 5, repeats=True),
}


def protocol_of(name: str) -> Protocol:
    """The protocol of that name, or an error that lists them."""
    if name not in PROTOCOLS:
        raise ValueError(f"no protocol {name!r}; there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def captions_that_count(name: str, images: int, text_to_image) -> np.ndarray:
    """Rows of the captions that a protocol looks at, ascending.

    Raises:
        ValueError: another number of images, or an image with fewer captions, or with more if none may be spared.
    """
    protocol, owners = protocol_of(name), np.asarray(text_to_image).astype(np.int64)
    if protocol.images is not None and images != protocol.images:
        raise ValueError(f"{name} is about {protocol.images} images, these are {images}: the wrong split or protocol")
    if protocol.captions is None:
        return np.arange(len(owners))
    counts = np.bincount(owners, minlength=images)
    wrong = np.flatnonzero(counts < protocol.captions if protocol.spare else counts != protocol.captions)
    if len(wrong):
        raise ValueError(
            f"{name} needs {protocol.captions} captions of each image; {len(wrong)} images have another number, first "
            f"row {wrong[0]} with {counts[wrong[0]]}"
        )
    order = np.argsort(owners, kind="stable")
    place = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)  # within its image
    return np.sort(order[place < protocol.captions])


def protocol_outcomes(
    name: str,
    image_embeds,
    text_embeds,
    text_to_image,
    ties: str = "expected",
    texts=None,
    image_ids=None,
    caption_ids=None,
    truth: GroundTruth | None = None,
) -> Outcomes:
    """Evaluate embeddings by a protocol.

    Args:
        name: one of `PROTOCOLS`.
        image_embeds: (N, D), each image once.
        text_embeds: (T, D).
        text_to_image: (T,) row of the image that each text belongs to.
        ties: `expected`, `optimistic` or `pessimistic`.
        texts: the T captions, for duplicate-aware recalls where the protocol has them and captions repeat.
        image_ids, caption_ids, truth: of `cxc` and `eccv`; see `GroundTruth.pairs` and `read_ground_truth`.

    Raises:
        ValueError: data that are not the protocol's, NaN or infinity; the message names rows.
    """
    protocol, kept = protocol_of(name), captions_that_count(name, len(image_embeds), text_to_image)
    owners = np.asarray(text_to_image).astype(np.int64)[kept]
    images, captions = finite_embeddings(image_embeds, "image"), finite_embeddings(text_embeds, "text")
    if len(kept) < len(captions):
        captions = captions[kept]
    if protocol.truth is not None:
        if truth is None or image_ids is None:
            raise ValueError(f"{name} needs a ground truth and the COCO ids of the images")
        ids = None if caption_ids is None else np.asarray(caption_ids)[kept]
        return _with_truth(protocol, images, captions, owners, truth.pairs(image_ids, owners, ids), ties)
    if protocol.folds > 1:
        return _folded(protocol.folds, images, captions, owners, ties)
    outcomes = image_text_outcomes(images, captions, owners, KS, ties)
    texts = [texts[row] for row in kept] if protocol.repeats and texts is not None else []
    if captions_are_shared(texts, owners):
        add_duplicate_aware(outcomes, images, captions, owners, texts, KS, ties)
    return outcomes


def _folded(folds: int, images, texts, owners, ties: str) -> Outcomes:
    """Every query within its fold; folds are equally large, so means over all queries are means over folds."""
    whole, parts = Outcomes(images={way: [] for way in WAYS}), []
    for rows, inside in fold_rows(owners, len(images), folds):
        parts.append(image_text_outcomes(images[rows], texts[inside], owners[inside] - rows.start, KS, ties))
        for way in WAYS:
            whole.images[way].append(parts[-1].images[way] + rows.start)
    whole.images = {way: np.concatenate(found) for way, found in whole.images.items()}
    whole.values = {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values}
    whole.sums = parts[0].sums
    return whole


def _with_truth(protocol: Protocol, images, texts, owners, pairs: dict[str, np.ndarray], ties: str) -> Outcomes:
    """Queries are those of the ground truth; the gallery is whole."""
    eccv, groups, of_images = protocol.truth == "eccv", {}, {}
    for way, queries, gallery in ((WAYS[0], images, texts), (WAYS[1], texts, images)):
        asked, numbers = np.unique(pairs[way][0], return_inverse=True)
        inside = pairs[way][1] != OUTSIDE
        found = tie_groups(queries[asked], gallery, np.stack([numbers, pairs[way][1]])[:, inside], best_only=not eccv)
        groups[way] = _with_last(found, numbers[~inside], len(gallery))
        of_images[way] = asked if way == WAYS[0] else owners[asked]
    outcomes = outcomes_of(groups, of_images, (1,) if eccv else KS, ties, all_positives=eccv)
    if eccv:
        outcomes.sums = {}
    return outcomes


def _with_last(groups: TieGroups, queries: np.ndarray, size: int) -> TieGroups:
    """Add positives of queries that stand behind the whole gallery."""
    queries, counts = np.unique(queries, return_counts=True)
    columns = (queries, np.full(len(queries), size), counts, counts)
    joined = [np.concatenate(both) for both in zip(groups[:4], columns)]
    order = np.argsort(joined[0], kind="stable")
    return TieGroups(*(column[order] for column in joined), groups.count)


__all__ = ["PROTOCOLS", "Protocol", "captions_that_count", "protocol_of", "protocol_outcomes"]
