"""Captions of like length together: in a batch padded to its longest caption, most of the work is done on padding.

Shapes: T texts, L text tokens, C any width.
"""

from collections.abc import Callable

import torch
from torch.nn import functional as F

GROUPS = 4
WORTH_IT = 0.85  # split only where at most this share of the padded batch's tokens is left; every call costs something


class LengthGroups:
    """The rows of a padded batch in a few groups of like length, each as wide as its own longest caption.

    Exact for a function that treats each caption by itself and reads no padding. The groups are of equal size, because
    every call costs something. There is one group, the batch as it is, where splitting would save little: few rows,
    like lengths, padding on the left.

    Args:
        mask: (T, L), non-zero where a token is real; None for one group.
    """

    def __init__(self, mask: torch.Tensor | None):
        self.groups: list[tuple[torch.Tensor, int]] | None = None
        if mask is None or len(mask) < 4 * GROUPS:
            return
        real = mask != 0
        if bool((real[:, 1:] > real[:, :-1]).any()):
            return
        lengths = real.sum(1)
        order = lengths.argsort(stable=True)
        groups = [(rows, max(1, int(lengths[rows[-1]]))) for rows in order.chunk(GROUPS)]
        if sum(len(rows) * width for rows, width in groups) <= WORTH_IT * mask.numel():
            self.groups, self.length = groups, mask.shape[1]
            self.back = order.argsort()  # row of the batch -> its place in the groups

    def vectors(self, function: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
        """What a function gives for each caption, (T, C): it is called with the rows of a group, cut to its width."""
        if self.groups is None:
            return function(*tensors)
        parts = [function(*(_cut(tensor, rows, width) for tensor in tensors)) for rows, width in self.groups]
        return torch.cat(parts)[self.back]

    def tokens(self, function: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
        """What a function gives for each token, (T, L, C), with zeros for the padding that it did not see."""
        if self.groups is None:
            return function(*tensors)

        def padded(*cut: torch.Tensor) -> torch.Tensor:
            hidden = function(*cut)
            return F.pad(hidden, (0, 0, 0, self.length - hidden.shape[1]))

        return self.vectors(padded, *tensors)


def _cut(tensor: torch.Tensor, rows: torch.Tensor, width: int) -> torch.Tensor:
    tensor = tensor[rows]
    return tensor[:, :width] if tensor.dim() > 1 else tensor


__all__ = ["LengthGroups"]
