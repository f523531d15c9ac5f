"""The columns that `vsehub teachers` adds to data: their names, and how they are read and checked."""

import json
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset

from ...data.rows import image_source
from ...files.digests import row_digest
from .augmentation import AUGMENTATIONS
from .views import PLAIN, Views

IMAGE, TEXT, CHECKSUM, VIEWS = "teacher_image_embeds", "teacher_text_embeds", "teacher_checksum", "teacher_views"
MOST_VIEWS = 1000  # of an image
AGAIN = "run `vsehub teachers` again"


@dataclass
class TeacherFeatures:
    """Features of R rows in half precision; a modality without a teacher is None.

    Args:
        image: (R, V, G_I), one for each of the `views`.
        text: for each row (its captions, G_T).
        views: the views of each image that the image teacher saw.
    """

    image: torch.Tensor | None
    text: list[torch.Tensor] | None
    views: Views = PLAIN


def read_teachers(rows: Dataset) -> TeacherFeatures:
    """Read the columns of `vsehub teachers`, as far as there are any.

    Raises:
        ValueError: the picture or the captions of a row are not those that its features were made of.
    """
    image, text = None, None
    views = teacher_views(rows)
    if CHECKSUM in rows.column_names:
        _check_rows(rows)
    if IMAGE in rows.column_names:
        image = torch.from_numpy(_numbers(rows[IMAGE], 3, IMAGE))
        if image.shape[1] != views.count:
            raise ValueError(f"{IMAGE} holds {image.shape[1]} views of an image, not {views.count}; {AGAIN}")
    if TEXT in rows.column_names:
        text = [torch.from_numpy(_numbers(captions, 2, TEXT)) for captions in rows[TEXT]]
    return TeacherFeatures(image, text, views)


def _numbers(values, axes: int, column: str) -> np.ndarray:
    """Features as half precision.

    Raises:
        ValueError: no numbers, not finite, or of another shape.
    """
    try:
        array = np.asarray(values, np.float16)
    except (ValueError, TypeError):  # texts, or lists of several lengths
        array = np.zeros(0)
    if array.ndim != axes or not np.isfinite(array).all():
        raise ValueError(f"{column} does not hold the features of teachers; {AGAIN}")
    return array


def _check_rows(rows: Dataset):
    for number, (image, captions, kept) in enumerate(zip(rows["image"], rows["captions"], rows[CHECKSUM])):
        if checksum(image, captions) != kept:
            raise ValueError(
                f"row {number} (image_id {rows[number]['image_id']}): its teachers' features were made of another "
                f"picture or other captions; {AGAIN}"
            )


def teacher_views(rows: Dataset) -> Views:
    """The views of each image that the image teacher saw; the plain image if the data have no image teacher.

    Raises:
        ValueError: the column that says so is missing or damaged.
    """
    if IMAGE not in rows.column_names:
        return PLAIN
    try:
        views = Views(**json.loads(rows[0][VIEWS]))
        if views.augmentation not in AUGMENTATIONS or not 1 <= views.count <= MOST_VIEWS:
            raise ValueError(f"{views.count} x {views.augmentation}")
        return views
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{VIEWS} does not say which views there are ({error}); {AGAIN}") from None


def checksum(image: dict | str | bytes, captions: list[str]) -> str:
    """Digest of the picture and the captions that a row's features belong to."""
    return row_digest(image_source(image), captions)


__all__ = ["CHECKSUM", "IMAGE", "TEXT", "VIEWS", "TeacherFeatures", "checksum", "read_teachers", "teacher_views"]
