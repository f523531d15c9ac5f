"""Which image each text belongs to, checked before a metric uses it: a wrong row would be counted in silence."""

import numpy as np


def checked_owners(text_to_image, images: int, texts: int) -> np.ndarray:
    """The row of the image that each text belongs to, (T,) int64.

    Args:
        text_to_image: (T,) whole numbers.
        images, texts: how many there are.

    Raises:
        ValueError: another number of owners than of texts, or an owner that is the row of no image; texts are named.
    """
    owners = np.asarray(text_to_image).reshape(-1)
    if len(owners) != texts:
        raise ValueError(f"text_to_image has {len(owners)} rows for {texts} texts: name the image of each text")
    wrong = np.flatnonzero(~np.isin(owners, np.arange(images)))
    if len(wrong):
        raise ValueError(
            f"text_to_image of texts {wrong[:10].tolist()} is no row of an image: there are {images}, counted from 0"
        )
    return owners.astype(np.int64)


__all__ = ["checked_owners"]
