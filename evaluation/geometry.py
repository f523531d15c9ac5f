"""The shape of an embedding space: effective rank, alignment, uniformity and the modality gap.

Worked example: four points in two directions, one of them with half the spread of the other.

    >>> points = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> singular_values(points).round(decimals=3).tolist()
    [2.828, 1.414]
    >>> round(effective_rank(singular_values(points)), 3)  # exp of the entropy of (2/3, 1/3)
    1.89
"""

import torch

from . import counting
from .counting import finite_embeddings
from .owners import checked_owners


def singular_values(embeds) -> torch.Tensor:
    """Singular values of embeddings (N, D) around their mean, min(N, D) in float64, largest first.

    The mean is subtracted because it tells no item from another.
    """
    embeds = finite_embeddings(embeds, "embedding").double()
    return torch.linalg.svdvals(embeds - embeds.mean(0))


def effective_rank(values: torch.Tensor) -> float:
    """exp of the entropy of the singular values as shares of their sum (Roy & Vetterli, EUSIPCO 2007, definition 1).

    D where all D directions are used equally, 1 where one is, 0 where nothing varies.
    """
    total = values.sum()
    if total == 0:
        return 0.0
    shares = values / total
    return float(torch.special.entr(shares).sum().exp())


def variance_shares(values: torch.Tensor) -> torch.Tensor:
    """Share of the variance in each direction; all 0 where nothing varies."""
    squares = values.square()
    return squares / squares.sum().clamp_min(torch.finfo(squares.dtype).tiny)


def directions_for(shares: torch.Tensor, part: float) -> int:
    """Number of directions that together hold this part of the variance."""
    return int((shares.cumsum(0) < part * shares.sum() * (1 - 1e-12)).sum()) + 1 if shares.sum() > 0 else 0


def alignment(image_embeds, text_embeds, text_to_image) -> float:
    """Mean squared distance of a text and its image (Wang & Isola, ICML 2020, eq. 2 with alpha = 2); 0 is best.

    Args:
        image_embeds, text_embeds: unit vectors (N, D), (T, D).
        text_to_image: (T,) row of each text's image.

    Raises:
        ValueError: NaN or infinity, or what `checked_owners` refuses; rows are named.
    """
    images, texts = finite_embeddings(image_embeds, "image"), finite_embeddings(text_embeds, "text")
    owners = torch.from_numpy(checked_owners(text_to_image, len(images), len(texts))).to(images.device)
    return float((images[owners] - texts).double().square().sum(1).mean())


def uniformity(embeds, t: float = 2.0) -> float:
    """log of the mean of exp(-t d^2) over all pairs of different rows (Wang & Isola, ICML 2020, eq. 4).

    0 where all rows are equal; lower is more uniform. Independent vectors of many dimensions come to -2t.

    Args:
        embeds: unit vectors (N, D), N >= 2.
        t: of the Gaussian kernel.

    Raises:
        ValueError: fewer than two rows.
    """
    embeds = finite_embeddings(embeds, "embedding")
    count = len(embeds)
    if count < 2:
        raise ValueError(f"uniformity is a mean over pairs: it needs at least 2 embeddings, not {count}")
    lengths = embeds.square().sum(1)
    total = torch.zeros((), dtype=torch.float64, device=embeds.device)
    for rows in torch.arange(count, device=embeds.device).split(max(1, counting.SCORES_AT_ONCE // count)):
        squares = (lengths[rows, None] + lengths - 2 * embeds[rows] @ embeds.t()).clamp_min(0)
        kernel = (-t * squares).exp()
        kernel[torch.arange(len(rows), device=embeds.device), rows] = 0  # a row is no pair with itself
        total += kernel.sum(dtype=torch.float64)
    return float((total / (count * (count - 1))).log())


def modality_gap(image_embeds, text_embeds) -> float:
    """Distance of the mean image and the mean text embedding (Liang et al., NeurIPS 2022, section 4.2)."""
    images, texts = finite_embeddings(image_embeds, "image"), finite_embeddings(text_embeds, "text")
    return float((images.double().mean(0) - texts.double().mean(0)).norm())


def separability(image_embeds, text_embeds) -> float:
    """Per cent of embeddings that lie nearer to the mean of their own modality than to that of the other.

    Mean of the two modalities; a tie counts half. 50 where the means are equal, 100 where a plane between them keeps
    images and texts apart.
    """
    images = finite_embeddings(image_embeds, "image").double()
    texts = finite_embeddings(text_embeds, "text").double()
    between = images.mean(0) - texts.mean(0)
    middle = (images.mean(0) + texts.mean(0)) @ between / 2
    sides = (images @ between - middle).sign(), (middle - texts @ between).sign()
    return float(sum(25 * (1 + side).mean() for side in sides))


__all__ = [
    "alignment",
    "directions_for",
    "effective_rank",
    "modality_gap",
    "separability",
    "singular_values",
    "uniformity",
    "variance_shares",
]
