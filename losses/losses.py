"""Losses as functions of embeddings and ids. None of them knows a model, a batch or a process group.

Rows are pairs: row i of the images belongs to row i of the texts. Rows with equal `image_ids` are captions of one image
and never each other's negatives. Shapes: N pairs of the global batch, D shared space.
"""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from .chunked import chunked_sum, log_sums, row_blocks


def new_temperature(initial: float, learned: bool = True) -> nn.Parameter:
    """A temperature, of shape (1,), because FSDP2 cannot shard scalars.

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


class HingeLoss(nn.Module):
    """VSE++ hinge on cosines (Faghri et al., BMVC 2018; D2S-VSE eq. 6), summed over the batch.

    With s_ij = cos(image_i, text_j), negatives cost [margin + s_ij - s_ii]+ and [margin + s_ij - s_jj]+. Either all of
    them are summed, or only the hardest of each image and of each text.

    Args:
        margin: by how much the score of a pair should exceed those of its negatives (paper: alpha = 0.2).
    """

    def __init__(self, margin: float = 0.2):
        super().__init__()
        self.margin = margin

    def forward(
        self, image_embeds: torch.Tensor, text_embeds: torch.Tensor, image_ids: torch.Tensor, hardest: bool = True
    ) -> torch.Tensor:
        """Return the scalar loss of unit vectors (N, D), (N, D) and ids (N,)."""
        own = (image_embeds * text_embeds).sum(1)
        size = len(own)
        if not hardest:
            share = partial(_hinge_of_rows, self.margin, image_ids)
            return chunked_sum(share, size, size, image_embeds, text_embeds, own)
        text_of_image, image_of_text, exists = hardest_negatives(image_embeds, text_embeds, image_ids)
        of_images = self.margin + (image_embeds * text_embeds[text_of_image]).sum(1) - own
        of_texts = self.margin + (image_embeds[image_of_text] * text_embeds).sum(1) - own
        return ((of_images.clamp(min=0) + of_texts.clamp(min=0)) * exists).sum()


def _hinge_of_rows(
    margin: float, ids: torch.Tensor, block: slice, images: torch.Tensor, texts: torch.Tensor, own: torch.Tensor
) -> torch.Tensor:
    """Both hinges of a block of images against all texts."""
    scores = images[block] @ texts.t() + margin
    costs = (scores - own[block, None]).clamp(min=0) + (scores - own).clamp(min=0)
    return costs.masked_fill(ids[block, None] == ids, 0.0).sum()


@torch.no_grad()
def hardest_negatives(
    image_embeds: torch.Tensor, text_embeds: torch.Tensor, image_ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The hardest negative text of each image and the hardest negative image of each text.

    Returns:
        Rows of texts (N,), rows of images (N,), and whether a pair has any negative (N,).
    """
    size = len(image_ids)
    text_of_image = torch.empty(size, dtype=torch.long, device=image_ids.device)
    image_of_text = torch.zeros_like(text_of_image)
    highest = image_embeds.new_full((size,), -torch.inf)
    for block in row_blocks(size, size):
        scores = image_embeds[block] @ text_embeds.t()
        scores = scores.masked_fill(image_ids[block, None] == image_ids, -torch.inf)
        text_of_image[block] = scores.argmax(1)
        values, rows = scores.max(0)
        image_of_text = torch.where(values > highest, rows + block.start, image_of_text)
        highest = torch.maximum(highest, values)
    return text_of_image, image_of_text, highest > -torch.inf


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
        tau = clamped(self.temperature)
        # A target shared by several rows asks for their mean score, which is the score of their mean.
        of_texts, _, image = group_means(text_embeds, image_ids)
        of_images = group_means(image_embeds, image_ids)[0]
        sums_of_images, sums_of_texts = log_sums(image_embeds, text_embeds, tau)
        from_images = sums_of_images - (image_embeds * of_texts[image]).sum(1) / tau
        from_texts = sums_of_texts - (text_embeds * of_images[image]).sum(1) / tau
        return (from_images.mean() + from_texts.mean()) / 2


class AffiliationLoss(nn.Module):
    """Pull every embedding towards its class in the other modality (PIR, section 3.4).

    With centres c_i = mean of the embeddings of i's class in the batch (means of unit vectors, not normalised again),
    1/2 [ CE over j of v_i . c^text_j / tau  +  CE over j of c^image_i . t_j / tau ].

    Both halves are softmaxes over texts or text centres, never over images: this is the paper's formula. Targets are
    shared equally among the rows of a class. Over the global batch a class has one centre, and shared targets give the
    same loss as the official code's one-to-one targets; the minimum for a class with n rows is log n. They differ if a
    class has several centres: one-to-one targets then make centres of one class negatives of each other.

    Args:
        temperature: initial tau; learned within [0.01, 1] (PIR: 0.07).
        one_to_one: the official targets, row i to centre i.
    """

    def __init__(self, temperature: float = 0.07, one_to_one: bool = False):
        super().__init__()
        self.temperature = new_temperature(temperature)
        self.one_to_one = one_to_one

    def forward(
        self,
        image_embeds: torch.Tensor,
        text_embeds: torch.Tensor,
        labels: torch.Tensor,
        groups: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the scalar loss of unit vectors (N, D), (N, D) and class labels (N,).

        With `groups` (N,), a row's centre is the mean of its class within its own group; in the official code, a group
        is a process.
        """
        tau = clamped(self.temperature)
        of_class = labels if groups is None else torch.stack([labels, groups], dim=1)
        text_centres, counts, centre = group_means(text_embeds, of_class)  # C centres, each standing for its rows
        image_centres = group_means(image_embeds, of_class)[0]
        if self.one_to_one:
            wanted_centres, wanted_texts = text_centres[centre], text_embeds
        else:  # the mean over the rows of the class, whatever their groups
            class_texts, _, row_class = group_means(text_embeds, labels)
            wanted_centres = wanted_texts = class_texts[row_class]
        # A centre that stands for n rows is n equal columns: n times its exponential.
        bias = counts.log() * tau
        width = text_embeds.new_ones(len(text_embeds), 1)
        sums_of_images, _ = log_sums(
            torch.cat([image_embeds, width], 1), torch.cat([text_centres, bias[:, None]], 1), tau
        )
        sums_of_centres, _ = log_sums(image_centres, text_embeds, tau)
        of_images = sums_of_images - (image_embeds * wanted_centres).sum(1) / tau
        of_centres = sums_of_centres[centre] - (image_centres[centre] * wanted_texts).sum(1) / tau
        return (of_images.mean() + of_centres.mean()) / 2


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
    "group_means",
    "hardest_negatives",
    "clamped",
    "new_temperature",
    "nt_xent",
]
