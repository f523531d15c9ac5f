"""Fixed looks at an image: what a tower's cache, a teacher and a student see when they are to see the same."""

import zlib
from dataclasses import dataclass

import numpy as np

from ..data.rows import row_image
from .augmentation import AUGMENTATIONS


@dataclass(frozen=True)
class Views:
    """Look 0 is the plain picture; look v > 0 an augmentation drawn from (v, image id): the same in every run.

    Args:
        count: looks per image.
        augmentation: of all but the first; a name of `augmentation.AUGMENTATIONS`.
    """

    count: int = 1
    augmentation: str = "crop"

    def open(self, row: dict, view: int, size: int):
        """Open a prepared row's picture as this look shows it; `size` is the side that augmentations stretch it to."""
        image, augment = row_image(row), AUGMENTATIONS[self.augmentation]
        if not view or augment is None:
            return image
        return augment(image, size, np.random.default_rng((view, zlib.crc32(row["image_id"].encode()))))

    def __str__(self) -> str:
        return f"{self.count} x {self.augmentation}" if self.count > 1 else "1"


PLAIN = Views()
