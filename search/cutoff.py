"""From which cosine on a picture answers a text: a cut-off, so that a search may say that there is nothing."""

import numpy as np


def calibrated_cutoff(own, noise, quiet: float = 0.95) -> dict:
    """Choose the least cosine of a hit so that a share of hopeless queries finds nothing.

    Args:
        own: cosines of texts with the pictures that they describe, (N,).
        noise: for each hopeless query the best cosine that it reaches among pictures that do not answer it, (M,).
        quiet: share of the hopeless queries that must stay without a hit.

    Returns:
        `text` (the cut-off, for text queries), `quiet` (the share reached), `kept` (share of `own` at or above it),
        `pairs` and `off_topic` (how many of each were looked at).

    Raises:
        ValueError: nothing to choose from, NaN, or a share outside 0..1.
    """
    own, noise = np.asarray(own, np.float64), np.asarray(noise, np.float64)
    if not 0 < quiet <= 1:
        raise ValueError(f"quiet is a share above 0 and at most 1, not {quiet}")
    if not len(own) or not len(noise):
        raise ValueError("a cut-off needs validation pairs and queries that should find nothing")
    if not (np.isfinite(own).all() and np.isfinite(noise).all()):
        raise ValueError("a cosine of the validation pairs is not finite: look at the model")
    rank = max(0, int(np.ceil(quiet * len(noise))) - 1)  # so many at least must lie below
    cutoff = float(np.nextafter(np.sort(noise)[rank], np.inf))
    return {
        "text": cutoff,
        "quiet": float((noise < cutoff).mean()),
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


__all__ = ["best_of_others", "calibrated_cutoff"]
