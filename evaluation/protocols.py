"""The evaluation protocols of the literature by name: the data that each needs and what it reports.

Every protocol gives `Outcomes`, one for each query; metrics are means over them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .counting import TieGroups, finite_embeddings, restricted, tie_groups_both_ways, unique_pairs
from .ground_truth import OUTSIDE, GroundTruth
from .outcomes import WAYS, Outcomes
from .ranking import equal_ids, fold_rows, image_text_outcomes, outcomes_of
from .scene_metrics import add_duplicate_aware, captions_are_shared

KS = (1, 5, 10)


@dataclass(frozen=True)
class Protocol:
    """One way of evaluating; `None` means any number."""

    about: str
    images: int | None = None
    captions: int | None = None  # of each image
    spare: bool = False  # whether further captions are left out; otherwise they are an error
    folds: int = 1
    truth: str | None = None  # `cxc` or `eccv`: positives from a ground truth
    repeats: bool = False  # also recalls in which identical captions of other images count as right


COCO: dict[str, Any] = {"images": 5000, "captions": 5, "spare": True}
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
    """Rows of the captions that a protocol uses, ascending.

    Raises:
        ValueError: another number of images, or an image with too few captions, or with too many if none may be left
            out.
    """
    protocol, owners = protocol_of(name), np.asarray(text_to_image).astype(np.int64)
    if protocol.images is not None and images != protocol.images:
        raise ValueError(f"{name} needs {protocol.images} images, these are {images}: choose another split or protocol")
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


def protocol_outcomes(name: str, image_embeds, text_embeds, text_to_image, truth=None, **given) -> Outcomes:
    """Evaluate embeddings by one protocol; see `protocols_outcomes`."""
    return protocols_outcomes({name: truth}, image_embeds, text_embeds, text_to_image, **given)[name]


def protocols_outcomes(
    truths: dict[str, GroundTruth | None],
    image_embeds,
    text_embeds,
    text_to_image,
    texts=None,
    image_ids=None,
    caption_ids=None,
) -> dict[str, Outcomes]:
    """Evaluate embeddings by several protocols; those over the same COCO gallery share one matrix product.

    Args:
        truths: names of `PROTOCOLS`, with the result of `read_ground_truth` for `cxc` and `eccv`, else None.
        image_embeds: (N, D), each image once.
        text_embeds: (T, D).
        text_to_image: (T,) row of the image that each text belongs to.
        texts: the T captions, for duplicate-aware recalls where the protocol has these and captions repeat.
        image_ids, caption_ids: for `cxc` and `eccv`; see `GroundTruth.pairs`.

    Raises:
        ValueError: data that do not fit the protocol, NaN or infinity; the message names rows.
    """
    images, every = finite_embeddings(image_embeds, "image"), finite_embeddings(text_embeds, "text")
    shared, outcomes = {}, {}
    for name, truth in truths.items():
        protocol, kept = protocol_of(name), captions_that_count(name, len(images), text_to_image)
        owners = np.asarray(text_to_image).astype(np.int64)[kept]
        captions = every[kept] if len(kept) < len(every) else every
        if protocol.truth is not None:
            if truth is None or image_ids is None:
                raise ValueError(f"{name} needs a ground truth and the COCO ids of the images")
            ids = None if caption_ids is None else np.asarray(caption_ids)[kept]
            shared[name] = truth.pairs(image_ids, owners, ids)
        elif protocol.folds > 1:
            outcomes[name] = _folded(protocol.folds, images, captions, owners)
        elif protocol.spare:
            rows = np.arange(len(owners))
            shared[name] = {WAYS[0]: equal_ids(np.arange(len(images)), owners), WAYS[1]: np.stack([rows, owners])}
        else:
            outcomes[name] = image_text_outcomes(images, captions, owners, KS)
            if protocol.repeats and texts is not None and captions_are_shared(texts, owners):
                add_duplicate_aware(outcomes[name], images, captions, owners, texts, KS)
        if name in shared:
            gallery = images, captions, owners
    if shared:
        outcomes |= _over_one_gallery(shared, *gallery)
    return {name: outcomes[name] for name in truths}


def _folded(folds: int, images, texts, owners) -> Outcomes:
    """Every query within its fold; folds are equally large, so means over all queries are means over folds."""
    whole, parts = Outcomes(), []
    images_of = {way: [] for way in WAYS}
    for rows, inside in fold_rows(owners, len(images), folds):
        parts.append(image_text_outcomes(images[rows], texts[inside], owners[inside] - rows.start, KS))
        for way in WAYS:
            images_of[way].append(parts[-1].images[way] + rows.start)
    whole.images = {way: np.concatenate(rows) for way, rows in images_of.items()}
    # No medians: that over all folds is not the mean of the medians of the folds.
    means = [name for name in parts[0].values if "median" not in name]
    whole.values = {name: np.concatenate([part.values[name] for part in parts]) for name in means}
    whole.sums = parts[0].sums
    return whole


def _over_one_gallery(positives: dict[str, dict], images, texts, owners) -> dict[str, Outcomes]:
    """Protocols that differ in their positives; queries are those that have any."""
    inside = {
        name: {way: pairs[:, pairs[1] != OUTSIDE] for way, pairs in both.items()} for name, both in positives.items()
    }
    union = {way: unique_pairs(*np.concatenate([inside[name][way] for name in inside], axis=1)) for way in WAYS}
    best_only = len(positives) == 1 and "eccv" not in positives
    counted = dict(zip(WAYS, tie_groups_both_ways(images, texts, union[WAYS[0]], union[WAYS[1]], best_only)))
    outcomes = {}
    for name, both in positives.items():
        groups, of_images = {}, {}
        for way, pairs in both.items():
            some = counted[way] if best_only else restricted(counted[way], union[way], inside[name][way])
            asked = np.unique(pairs[0])
            some = some._replace(query=np.searchsorted(asked, some.query), num_queries=len(asked))
            lost = np.searchsorted(asked, pairs[0, pairs[1] == OUTSIDE])
            groups[way] = _with_last(some, lost, len(texts) if way == WAYS[0] else len(images))
            of_images[way] = asked if way == WAYS[0] else owners[asked]
        eccv = PROTOCOLS[name].truth == "eccv"
        outcomes[name] = outcomes_of(groups, of_images, (1,) if eccv else KS, all_positives=eccv)
        if eccv:
            outcomes[name].sums = {}
    return outcomes


def _with_last(groups: TieGroups, queries: np.ndarray, size: int) -> TieGroups:
    """Add positives of queries that rank behind the whole gallery."""
    queries, counts = np.unique(queries, return_counts=True)
    columns = (queries, np.full(len(queries), size), counts, counts)
    joined = [np.concatenate(both) for both in zip(groups[:4], columns)]
    order = np.argsort(joined[0], kind="stable")
    query, above, tied, positives = (column[order] for column in joined)
    return TieGroups(query, above, tied, positives, groups.num_queries)


__all__ = ["PROTOCOLS", "Protocol", "captions_that_count", "protocol_of", "protocol_outcomes", "protocols_outcomes"]
