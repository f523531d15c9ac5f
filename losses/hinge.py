"""The hinge of VSE++, over all negatives or over the hardest ones.

Rows are pairs: row i of the images belongs to row i of the texts. Rows with equal `image_ids` are captions of one image
and never each other's negatives. Shapes: N pairs of the global batch, D shared space.
"""

from functools import partial

import torch
from torch import nn

from .chunked import chunked_sum, own_part, recomputed
from .pairs import checked_pairs


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
        image_embeds, text_embeds = checked_pairs(image_embeds, text_embeds, image_ids)
        if not hardest:
            share = partial(_hinge_of_rows, self.margin, image_ids)
            return chunked_sum(share, len(image_ids), len(image_ids), image_embeds, text_embeds)
        negatives = hardest_negatives(image_embeds, text_embeds, image_ids)
        return recomputed(partial(_hinge_of_hardest, self.margin), image_embeds, text_embeds, *negatives)


def _hinge_of_hardest(
    margin: float,
    images: torch.Tensor,
    texts: torch.Tensor,
    text_of_image: torch.Tensor,
    image_of_text: torch.Tensor,
    exists: torch.Tensor,
) -> torch.Tensor:
    """Both hinges of all pairs against the negatives that `hardest_negatives` names."""
    own = (images * texts).sum(1)
    of_images = margin + (images * texts[text_of_image]).sum(1) - own
    of_texts = margin + (images[image_of_text] * texts).sum(1) - own
    return ((of_images.clamp(min=0) + of_texts.clamp(min=0)) * exists).sum()


def _hinge_of_rows(
    margin: float, ids: torch.Tensor, block: slice, images: torch.Tensor, texts: torch.Tensor
) -> torch.Tensor:
    """Both hinges of a block of images against all texts."""
    own = (images * texts).sum(1)
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
    size, part = len(image_ids), own_part()
    text_of_image = torch.zeros(size, dtype=torch.long, device=image_ids.device)
    image_of_text = torch.zeros_like(text_of_image)
    highest = image_embeds.new_full((size,), -torch.inf)
    for block in part.blocks(size, size):
        scores = image_embeds[block] @ text_embeds.t()
        scores = scores.masked_fill(image_ids[block, None] == image_ids, -torch.inf)
        text_of_image[block] = scores.argmax(1)
        values, rows = scores.max(0)
        image_of_text = torch.where(values > highest, rows + block.start, image_of_text)
        highest = torch.maximum(highest, values)
    overall = part.exchange(highest.clone(), "MAX")
    image_of_text = part.exchange(torch.where(highest == overall, image_of_text, size - 1), "MIN")  # of ties the first
    return part.exchange(text_of_image), image_of_text, overall > -torch.inf


__all__ = ["HingeLoss", "hardest_negatives"]
