"""InfoNCE and NT-Xent, with the temperature and the group means that other losses use, too.

Rows are pairs: row i of the images belongs to row i of the texts. Rows with equal `image_ids` are captions of one image
and never each other's negatives. Shapes: N pairs of the global batch, D shared space.
"""

import torch
from torch import nn
from torch.nn import functional as F

from .chunked import log_sums, recomputed
from .pairs import checked_pairs


def new_temperature(initial: float, learned: bool = True) -> nn.Parameter:
    """A temperature, of shape (1,), because FSDP2 cannot shard scalars.

    Args:
        initial: its value at the start.
        learned: whether the optimizer may change it.

    Raises:
        ValueError: outside [0.01, 1].
    """
    if not 0.01 <= initial <= 1:
        raise ValueError(f"a temperature must be in [0.01, 1], got {initial}")
    return nn.Parameter(torch.full((1,), initial), requires_grad=learned)


def clamped(temperature: nn.Parameter) -> torch.Tensor:
    """Clamp a temperature to [0.01, 1] in place, because the optimizer may have moved it out of these bounds.

    A clamp in the graph would pass no gradient outside the bounds, so the parameter would never come back.
    """
    temperature.data.clamp_(0.01, 1.0)
    return temperature


def group_means(vectors: torch.Tensor, groups: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Means of the rows of each group.

    Args:
        vectors: (N, D).
        groups: (N,), or (N, K) for groups that K numbers name.

    Returns:
        Means (C, D), the number of rows of each group (C,), and the group of each row (N,).
    """
    names, members = torch.unique(groups, dim=0, return_inverse=True)
    counts = torch.bincount(members, minlength=len(names)).to(vectors.dtype)
    sums = vectors.new_zeros(len(names), vectors.shape[1]).index_add(0, members, vectors)
    return sums / counts[:, None], counts, members


class ContrastiveLoss(nn.Module):
    """Symmetric InfoNCE with a learned temperature; captions of one image share the target equally.

    -1/2 mean_i sum_j y_ij log softmax_j(s_ij / tau), plus the same for the transpose, y row-normalised.

    Args:
        temperature: initial tau (CLIP, PIR: 0.07).
        learn_temperature: whether tau is learned, within [0.01, 1].
    """

    def __init__(self, temperature: float = 0.07, learn_temperature: bool = True):
        super().__init__()
        self.temperature = new_temperature(temperature, learn_temperature)

    def forward(self, image_embeds: torch.Tensor, text_embeds: torch.Tensor, image_ids: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of unit vectors (N, D), (N, D) and ids (N,)."""
        image_embeds, text_embeds = checked_pairs(image_embeds, text_embeds, image_ids)
        tau = clamped(self.temperature)
        sums_of_images, sums_of_texts = log_sums(image_embeds, text_embeds, tau)
        of_images = recomputed(target_scores, image_embeds, text_embeds, image_ids)
        of_texts = recomputed(target_scores, text_embeds, image_embeds, image_ids)
        return ((sums_of_images - of_images / tau).mean() + (sums_of_texts - of_texts / tau).mean()) / 2


def target_scores(rows: torch.Tensor, columns: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Mean score (N,) of each row with the columns of its group; it is the score of their mean.

    Args:
        rows, columns: (N, D); row i of both belongs to group i of `groups` (N,).
    """
    means, _, group = group_means(columns, groups)
    return (rows * means[group]).sum(1)


def nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float = 0.1) -> torch.Tensor:
    """NT-Xent (Chen et al., ICML 2020): each of 2N unit vectors must find the other view of its item among all others.

    Args:
        first, second: (N, D); row i of both is a view of item i.
        temperature: divides the cosines.
    """
    both = torch.cat([first, second])
    logits = (both @ both.t() / temperature).fill_diagonal_(-torch.inf)
    return F.cross_entropy(logits, torch.arange(len(both), device=both.device).roll(len(first)))


__all__ = ["ContrastiveLoss", "clamped", "group_means", "new_temperature", "nt_xent", "target_scores"]
