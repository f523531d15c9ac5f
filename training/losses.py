"""Losses as functions of embeddings and ids. None knows a model, a batch dictionary or a process group.

Rows are pairs: row i of the images belongs to row i of the texts. Rows with equal `image_ids` are captions of one image
and never each other's negatives. Shapes: N pairs of the global batch, D shared space.
"""

import torch
from torch import nn
from torch.nn import functional as F


def new_temperature(initial: float, learned: bool = True) -> nn.Parameter:
    """A temperature, of shape (1,): FSDP2 shards no scalars.

    Raises:
        ValueError: outside [0.01, 1].
    """
    if not 0.01 <= initial <= 1:
        raise ValueError(f"a temperature lies in [0.01, 1], got {initial}")
    return nn.Parameter(torch.full((1,), initial), requires_grad=learned)


def held(temperature: nn.Parameter) -> torch.Tensor:
    """Put a temperature back into [0.01, 1] where the optimizer left it.

    A clamp in the graph would do so for the loss alone: beyond a bound it passes no gradient, and the parameter, once
    there, would never come back.
    """
    temperature.data.clamp_(0.01, 1.0)
    return temperature


class HingeLoss(nn.Module):
    """VSE++ hinge on cosines (Faghri et al., BMVC 2018; D2S-VSE eq. 6), summed over the batch.

    With s_ij = cos(image_i, text_j), negatives cost [margin + s_ij - s_ii]+ and [margin + s_ij - s_jj]+. Either all of
    them are summed or, per image and per text, only the hardest counts.

    Args:
        margin: by how much a pair must beat its negatives (paper: alpha = 0.2).
    """

    def __init__(self, margin: float = 0.2):
        super().__init__()
        self.margin = margin

    def forward(self, image_embeds, text_embeds, image_ids, hardest: bool = True) -> torch.Tensor:
        """Return the scalar loss of unit vectors (N, D), (N, D) and ids (N,)."""
        scores = image_embeds @ text_embeds.t()
        own = scores.diagonal()
        same = image_ids[:, None] == image_ids[None]
        of_images = (self.margin + scores - own[:, None]).clamp(min=0).masked_fill(same, 0.0)
        of_texts = (self.margin + scores - own[None]).clamp(min=0).masked_fill(same, 0.0)
        if hardest:
            return of_images.amax(1).sum() + of_texts.amax(0).sum()
        return of_images.sum() + of_texts.sum()


class ContrastiveLoss(nn.Module):
    """Symmetric InfoNCE with a learned temperature; captions of one image share the target equally.

    -1/2 mean_i sum_j y_ij log softmax_j(s_ij / tau), plus the same for the transpose, y row-normalised.

    Args:
        temperature: initial tau (CLIP, PIR: 0.07).
        learn_temperature: False keeps it fixed. The learned one stays within [0.01, 1].
    """

    def __init__(self, temperature: float = 0.07, learn_temperature: bool = True):
        super().__init__()
        self.temperature = new_temperature(temperature, learn_temperature)

    def forward(self, image_embeds, text_embeds, image_ids) -> torch.Tensor:
        """Return the scalar loss of unit vectors (N, D), (N, D) and ids (N,)."""
        logits = image_embeds @ text_embeds.t() / held(self.temperature)
        target = (image_ids[:, None] == image_ids[None]).to(logits.dtype)
        target = target / target.sum(1, keepdim=True)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2


class AffiliationLoss(nn.Module):
    """PIR's pull of every embedding towards its class in the other modality (PIR, section 3.4).

    With centres c_i = mean of the embeddings of i's class in the batch (means of unit vectors, not normalised again),
    1/2 [ CE over j of v_i . c^text_j / tau  +  CE over j of c^image_i . t_j / tau ].

    Both halves choose among texts or text centres; that images are never chosen among is the paper's formula.
    Targets are shared equally among the rows of a class. Over the global batch, rows of one class have one centre, and
    the shared targets give the very same loss as the official code's one-to-one targets: whichever is chosen, the floor
    of a class with n rows is log n. They differ where a class has several centres: then one-to-one targets make
    centres of one class negatives of each other.

    Args:
        temperature: initial tau; learned within [0.01, 1] (PIR: 0.07).
        one_to_one: the official targets, row i to centre i.
    """

    def __init__(self, temperature: float = 0.07, one_to_one: bool = False):
        super().__init__()
        self.temperature = new_temperature(temperature)
        self.one_to_one = one_to_one

    def forward(self, image_embeds, text_embeds, labels, groups=None) -> torch.Tensor:
        """Return the scalar loss of unit vectors (N, D), (N, D) and class labels (N,).

        With `groups` (N,), a row's centre is the mean over its class within its own group: the official code, where a
        group is a process.
        """
        same = labels[:, None] == labels[None]
        together = same if groups is None else same & (groups[:, None] == groups[None])
        mean = together.to(image_embeds.dtype)
        mean = mean / mean.sum(1, keepdim=True)
        target = torch.eye(len(labels), device=labels.device) if self.one_to_one else same
        target = target.to(image_embeds.dtype)
        target = target / target.sum(1, keepdim=True)
        tau = held(self.temperature)
        of_images = F.cross_entropy(image_embeds @ (mean @ text_embeds).t() / tau, target)
        of_centres = F.cross_entropy((mean @ image_embeds) @ text_embeds.t() / tau, target)
        return (of_images + of_centres) / 2


def nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float = 0.1) -> torch.Tensor:
    """NT-Xent (Chen et al., ICML 2020): each of 2N unit vectors must find the other view of its item among all others.

    Args:
        first, second: (N, D); row i of both is a view of item i.
        temperature: divides the cosines.
    """
    both = torch.cat([first, second])
    logits = (both @ both.t() / temperature).fill_diagonal_(-torch.inf)
    return F.cross_entropy(logits, torch.arange(len(both), device=both.device).roll(len(first)))


class EmbeddingDistillationLoss(nn.Module):
    """Distance from a student's embeddings to a frozen teacher's (D2S-VSE eq. 7), mean over the batch.

    Args:
        distance: `cosine` (1 - cos), `l2` (squared, element mean of raw vectors) or `l1` (absolute, element mean).
    """

    def __init__(self, distance: str = "cosine"):
        super().__init__()
        if distance not in ("cosine", "l2", "l1"):
            raise ValueError(f"distance must be 'cosine', 'l2' or 'l1', got {distance!r}")
        self.distance = distance

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Return the scalar distance of raw vectors (N, D), (N, D); no gradient reaches the teacher."""
        teacher = teacher.detach().to(student.dtype)
        if self.distance == "cosine":
            return 1 - F.cosine_similarity(student, teacher, dim=-1).mean()
        return F.mse_loss(student, teacher) if self.distance == "l2" else F.l1_loss(student, teacher)


__all__ = [
    "AffiliationLoss",
    "ContrastiveLoss",
    "EmbeddingDistillationLoss",
    "HingeLoss",
    "held",
    "new_temperature",
    "nt_xent",
]
