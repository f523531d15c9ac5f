"""The minimum cosine of a hit; below it a search returns nothing.

An index has its own, where it was calibrated. A model that was trained here brings a default, `text_cutoff` of its
configuration, which holds for whole vectors and for queries that are one text.
"""

from typing import NamedTuple

import numpy as np

KEPT = 0.9  # share of right answers that a default cut-off keeps where it can also hide the noise
LEAST_KEPT = 0.5  # share of right answers; a cut-off that keeps fewer is refused
TOO_HIGH = (
    "the cut-off {:.4f} would hide {:.1f} % of the right answers and is not kept: the model hardly separates them from "
    "wrong ones on this data, or the data's images answer each other's captions; give --off_topic FILE, lower "
    "--reject_share, or keep it with --force"
)
LEAST_QUERIES = 20  # irrelevant queries, and pictures, that a default cut-off needs


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


def default_cutoff(own, noise, images: int, reject_share: float = 0.95) -> dict | None:
    """`text_cutoff` of a model's configuration: among other pictures it should hold, too.

    Where nine tenths of the right pictures lie above the noise, it is in the middle between the two.

    Args:
        own: cosines of validation captions with their own pictures, (N,).
        noise: for each irrelevant query the best cosine among the validation pictures, (M,).
        images: number of these pictures.
        reject_share: of `calibrated_cutoff`.

    Returns:
        `cosine` (None where a cut-off would hide most right pictures), `rejected`, `kept`, `images`, `captions` and
        `queries`: what `calibrated_cutoff` says, and the number of each. None where there is too little to say
        anything.
    """
    if min(len(noise), images) < LEAST_QUERIES or not len(own):
        return None
    own, noise = np.asarray(own, np.float64), np.asarray(noise, np.float64)
    facts = calibrated_cutoff(own, noise, reject_share)
    above = float(np.quantile(own, 1 - KEPT))
    if above > facts["text"]:  # room is left: words that a model does not know lie close together, and move together
        middle = (facts["text"] + above) / 2
        facts |= {"text": middle, "rejected": float((noise < middle).mean()), "kept": float((own >= middle).mean())}
    return {
        "cosine": round(facts["text"], 4) if facts["kept"] >= LEAST_KEPT else None,
        "rejected": round(facts["rejected"], 3),
        "kept": round(facts["kept"], 3),
        "images": images,
        "captions": facts["pairs"],
        "queries": facts["off_topic"],
    }


__all__ = ["Cutoff", "best_of_others", "calibrated_cutoff", "default_cutoff"]
