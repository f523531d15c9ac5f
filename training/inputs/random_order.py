"""The order of a shuffled epoch, in four bytes an item: torch's samplers hold it as Python integers, in forty."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class RandomOrder(Sampler[int]):
    """The order that accelerate's `SeedableRandomSampler` gives, so that runs of earlier versions go on with it.

    Args:
        size: items of an epoch.
        seed: of the first epoch; None takes the seed that torch was given.
    """

    def __init__(self, size: int, seed: int | None = None):
        self.size, self.epoch = size, 0
        self.seed = torch.random.initial_seed() if seed is None else seed

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        kind = torch.int32 if self.size < 2**31 else torch.int64
        for position in torch.randperm(self.size, generator=generator, dtype=kind).numpy():
            yield int(position)
        self.set_epoch(self.epoch + 1)

    def set_epoch(self, epoch: int):
        """Choose the epoch whose order comes next."""
        self.epoch = epoch


__all__ = ["RandomOrder"]
