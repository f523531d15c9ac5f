"""Fixed views of an image: for a tower's cache, a teacher and a student that must see the same pixels."""

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...data.rows import row_image
from .augmentation import AUGMENTATIONS

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Views:
    """View 0 is the plain picture; view v > 0 is augmented, with draws from (v, image id): the same in every run.

    Args:
        count: views per image.
        augmentation: of all but the first; a name of `augmentation.AUGMENTATIONS`.
    """

    count: int = 1
    augmentation: str = "crop"

    def open(self, row: dict, view: int, size: int) -> "Image.Image":
        """Open the picture of a prepared row in one view; augmented views are squares of `size` pixels."""
        image, augment = row_image(row), AUGMENTATIONS[self.augmentation]
        if not view or augment is None:
            return image
        return augment(image, size, np.random.default_rng((view, zlib.crc32(row["image_id"].encode()))))

    def __str__(self) -> str:
        return f"{self.count} x {self.augmentation}" if self.count > 1 else "1"


PLAIN = Views()
