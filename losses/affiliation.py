"""The affiliation loss of PIR: embeddings are drawn to their scene class in the other modality."""

import torch
from torch import nn

from .chunked import log_sums, recomputed
from .contrastive import clamped, group_means, new_temperature
from .pairs import checked_pairs


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
        image_embeds, text_embeds = checked_pairs(image_embeds, text_embeds, labels)
        tau = clamped(self.temperature)
        of_class = labels if groups is None else torch.stack([labels, groups], dim=1)
        text_centres, counts, centre = group_means(text_embeds, of_class)  # C centres, each standing for its rows
        image_centres = group_means(image_embeds, of_class)[0]
        # A centre that stands for n rows is n equal columns: n times its exponential.
        sums_of_images, _ = log_sums(image_embeds, text_centres, tau, counts.log())
        sums_of_centres, _ = log_sums(image_centres, text_embeds, tau)
        targets = recomputed(self._target_scores, image_embeds, text_embeds, labels, of_class)
        return ((sums_of_images - targets[0] / tau).mean() + (sums_of_centres[centre] - targets[1] / tau).mean()) / 2

    def _target_scores(
        self, images: torch.Tensor, texts: torch.Tensor, labels: torch.Tensor, of_class: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean score of each image with its targets, and of each row's image centre with its targets, both (N,)."""
        image_centres, _, centre = group_means(images, of_class)
        if self.one_to_one:
            wanted_centres, wanted_texts = group_means(texts, of_class)[0][centre], texts
        else:  # the mean over the rows of the class, whatever their groups
            class_texts, _, row_class = group_means(texts, labels)
            wanted_centres = wanted_texts = class_texts[row_class]
        return (images * wanted_centres).sum(1), (image_centres[centre] * wanted_texts).sum(1)


__all__ = ["AffiliationLoss"]
