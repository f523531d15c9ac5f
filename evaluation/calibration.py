"""Fit `logit_scale` on validation pairs, so that the softmax scores of zero-shot pipelines are calibrated."""

import numpy as np
import torch
from torch.nn import functional as F

from .owners import checked_owners


def calibrate_logit_scale(image_embeds, text_embeds, text_to_image, candidates: int = 10, seed: int = 0) -> float:
    """Find the factor on cosines with which a softmax over one right and some random wrong captions is calibrated.

    Every image is compared with one of its captions and `candidates - 1` captions of other images; the factor minimises
    the mean cross-entropy, which is convex in it. It changes no ranking.

    Args:
        image_embeds, text_embeds: unit vectors (N, D) and (T, D) of held-out pairs.
        text_to_image: (T,) row of each caption's image.
        candidates: captions per image; at most one of each image.
        seed: of the random choice of captions.

    Returns:
        A factor within [1, 200].

    Raises:
        ValueError: NaN or infinity, or what `checked_owners` refuses; rows are named.
    """
    images, texts = (torch.as_tensor(x, device="cpu").detach().double() for x in (image_embeds, text_embeds))
    for name, side in (("image", images), ("text", texts)):
        bad = (~torch.isfinite(side).all(1)).nonzero().flatten()
        if len(bad):
            raise ValueError(f"{name}: {len(bad)} embeddings hold NaN or infinity, rows {bad[:10].tolist()}")
    owners, rng = checked_owners(text_to_image, len(images), len(texts)), np.random.default_rng(seed)
    by_image = [np.flatnonzero(owners == row) for row in range(len(images))]
    known = [row for row, captions in enumerate(by_image) if len(captions)]
    count = min(candidates, len(known))
    if count < 2:
        return 1.0
    chosen = np.empty((len(known), count), int)
    for place, row in enumerate(known):
        others = rng.choice(len(known) - 1, count - 1, replace=False)
        rows = [row, *(known[other + (other >= place)] for other in others)]
        chosen[place] = [rng.choice(by_image[each]) for each in rows]
    cosines = torch.einsum("nd,ncd->nc", images[known], texts[chosen])
    right = torch.zeros(len(known), dtype=torch.long, device="cpu")
    low, high = 0.0, float(np.log(200.0))
    for _ in range(60):  # ternary search: cross-entropy is convex in the factor, so it has one minimum in its logarithm
        third = (high - low) / 3
        costs = [F.cross_entropy(cosines * np.exp(at), right) for at in (low + third, high - third)]
        low, high = (low, high - third) if costs[0] < costs[1] else (low + third, high)
    return float(np.exp((low + high) / 2))


__all__ = ["calibrate_logit_scale"]
