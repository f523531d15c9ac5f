"""Matryoshka representation learning (Kusupati et al., NeurIPS 2022): the first numbers are an embedding, too."""

from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from .objectives import PairEmbeddings


class MatryoshkaObjective(nn.Module):
    """The mean of an objective over nested widths of the embedding, and its whole width.

    Each width has an objective of its own, because temperatures, projections and memory banks depend on the width.

    Args:
        objectives: width -> module `(PairEmbeddings, epoch) -> (loss, parts)`; the largest is the whole width D.
    """

    def __init__(self, objectives: dict[int, nn.Module]):
        super().__init__()
        self.widths = sorted(objectives)
        self.objectives = nn.ModuleDict({str(width): objectives[width] for width in self.widths})

    def forward(self, pairs: PairEmbeddings, epoch: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss, the parts of the whole width, and the loss of each nested width (`width_32`)."""
        losses, parts = {}, {}
        for width in self.widths:
            nested = pairs if width == self.widths[-1] else narrowed(pairs, width)
            losses[width], parts = self.objectives[str(width)](nested, epoch)
        parts = parts | {f"width_{width}": losses[width] for width in self.widths[:-1]}
        return torch.stack(list(losses.values())).mean(), parts


def narrowed(pairs: PairEmbeddings, width: int) -> PairEmbeddings:
    """The first numbers of the embeddings, unit vectors again; features of uni-modal teachers stay whole."""
    dense = pairs.dense_text_embeds
    return replace(
        pairs,
        image_embeds=F.normalize(pairs.image_embeds[:, :width].float(), dim=-1),
        text_embeds=F.normalize(pairs.text_embeds[:, :width].float(), dim=-1),
        text_vectors=pairs.text_vectors[:, :width],
        dense_text_embeds=None if dense is None else dense[:, :width],
    )


__all__ = ["MatryoshkaObjective", "narrowed"]
