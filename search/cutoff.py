"""The minimum cosine of a hit; below it a search returns nothing.

An index has its own, where it was calibrated. A model that was trained here brings a default, `text_cutoff` of its
configuration, which holds for whole vectors and for queries that are one text.
"""

from typing import NamedTuple

import numpy as np

LEAST_KEPT = 0.5  # share of right answers; a cut-off that keeps fewer is refused
TOO_HIGH = (
    "the cut-off {:.4f} would hide {:.1f} % of the right answers and is not kept: the model hardly separates them from "
    "wrong ones on this data, or the data's images answer each other's captions; give --off_topic FILE, lower "
    "--reject_share, or keep it with --force"
)
LEAST_QUERIES = 20  # irrelevant queries, and pictures, that a default cut-off needs
LEAST_GAIN = 0.5  # Youden's index of a default cut-off: 1 makes no mistakes, 0 is no better than none
TAIL = 7  # best cosines of a query; more are no tail of a few hundred pictures, fewer are luck (docs/log.md)


class Cutoff(NamedTuple):
    """The minimum cosine of a hit, None for none, and where it comes from: a key of `ORIGINS`."""

    cosine: float | None
    origin: str = "given"

    def __str__(self) -> str:
        return "no cut-off" if self.cosine is None else f"cut-off {self.cosine:.3f}{ORIGINS[self.origin]}"


ORIGINS = {
    "given": "",
    "index": " (calibrated for this index)",
    "model": " (the model's default, from its validation)",
}


def calibrated_cutoff(own, noise, reject_share: float = 0.95) -> dict:
    """Choose the minimum cosine of a hit so that a fraction of irrelevant queries returns no hit.

    Args:
        own: cosines of texts with the pictures that they describe, (N,).
        noise: for each irrelevant query the best cosine that it reaches among pictures that do not answer it, (M,).
        reject_share: fraction of irrelevant queries that should return no hit.

    Returns:
        `text` (the cut-off, for text queries), `rejected` (the fraction reached), `kept` (share of `own` at or above
        it), `pairs` and `off_topic` (the number of each).

    Raises:
        ValueError: nothing to choose from, NaN, or a share outside 0..1.
    """
    own, noise = np.asarray(own, np.float64), np.asarray(noise, np.float64)
    if not 0 < reject_share <= 1:
        raise ValueError(f"reject_share must be above 0 and at most 1, not {reject_share}")
    if not len(own) or not len(noise):
        raise ValueError("a cut-off needs validation pairs and irrelevant queries")
    if not (np.isfinite(own).all() and np.isfinite(noise).all()):
        raise ValueError("a cosine of the validation pairs is not finite: look at the model")
    rank = max(0, int(np.ceil(reject_share * len(noise))) - 1)  # at least rank + 1 scores must be below the cut-off
    cutoff = float(np.nextafter(np.sort(noise)[rank], np.inf))
    return {
        "text": cutoff,
        "rejected": float((noise < cutoff).mean()),
        "kept": float((own >= cutoff).mean()),
        "pairs": len(own),
        "off_topic": len(noise),
    }


def best_of_others(texts, images, owners) -> np.ndarray:
    """For each text (T, D) its best cosine among the images (B, D) that are not its own, `owners` (T,): (T,).

    Raises:
        ValueError: fewer than two images.
    """
    if len(images) < 2:
        raise ValueError("a cut-off needs at least two validation images")
    scores = np.asarray(texts, np.float64) @ np.asarray(images, np.float64).T
    scores[np.arange(len(scores)), owners] = -np.inf
    return scores.max(axis=1)


def rejected_elsewhere(noise: np.ndarray, cosines: np.ndarray) -> np.ndarray:
    """Expected share of irrelevant queries that find nothing among as many pictures that were not seen.

    The best of equally many other pictures lies above the best of these every second time, so a cut-off just above what
    was seen holds in every second gallery. A query's best cosines, as an exponential tail, say how many pictures lie
    above a cut-off: a little too many, since cosines have a bound. Queries that are nearly the same do no harm: this is
    a mean over them, no quantile.

    Args:
        noise: cosines of the queries with the pictures, (M, B).
        cosines: cut-offs, (C,).

    Returns:
        A share for each cut-off, (C,).
    """
    count = min(TAIL, noise.shape[1] // 2)
    best = np.sort(noise, axis=1)[:, -count - 1 :]
    start = best[:, :1]
    width = np.maximum((best[:, 1:] - start).mean(axis=1, keepdims=True), 1e-9)  # equal cosines have no width
    above = count * np.exp(-np.maximum(cosines - start, 0) / width)  # expected number of pictures
    return np.exp(-above).mean(axis=0)


def default_cutoff(own, noise) -> dict | None:
    """`text_cutoff` of a model's configuration: the cosine that makes the fewest mistakes among other pictures.

    Mistakes are irrelevant queries with a hit, and right pictures that are hidden; the two shares count alike. So it
    has the largest Youden's index, `rejected` + `kept` - 1.

    Args:
        own: cosines of validation captions with their own pictures, (N,).
        noise: cosines of irrelevant queries with all validation pictures, (M, B).

    Returns:
        `cosine`, `rejected` (of `rejected_elsewhere`), `kept` (share of `own` at or above it), `images`, `captions` and
        `queries` (the number of each). Where the index is below `LEAST_GAIN`, `cosine` is None, and the shares are
        those of `calibrated_cutoff`. None where there is too little to say anything.

    Raises:
        ValueError: a cosine is not finite.
    """
    own, noise = np.sort(np.asarray(own, np.float64)), np.asarray(noise, np.float64)
    if min(noise.shape) < LEAST_QUERIES or not len(own):
        return None
    usual = calibrated_cutoff(own, noise.max(axis=1))
    cosines = np.unique(np.floor(own * 1e4) / 1e4)  # up to the next of them, nothing more is hidden
    rejected = rejected_elsewhere(noise, cosines)
    kept = 1 - np.searchsorted(own, cosines) / len(own)
    best = int(np.argmax(rejected + kept))
    found = rejected[best] + kept[best] - 1 >= LEAST_GAIN
    return {
        "cosine": round(float(cosines[best]), 4) if found else None,
        "rejected": round(float(rejected[best]) if found else usual["rejected"], 3),
        "kept": round(float(kept[best]) if found else usual["kept"], 3),
        "images": noise.shape[1],
        "captions": len(own),
        "queries": len(noise),
    }


__all__ = ["Cutoff", "best_of_others", "calibrated_cutoff", "default_cutoff", "rejected_elsewhere"]
