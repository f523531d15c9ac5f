"""The columns that `vsehub teachers` adds to data: their names, and how they are read and checked."""

import json
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset

from ..data.rows import image_source
from ..files.digests import row_digest
from .views import PLAIN, Views

IMAGE, TEXT, CHECKSUM, VIEWS = "teacher_image_embeds", "teacher_text_embeds", "teacher_checksum", "teacher_views"


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
    if CHECKSUM in rows.column_names:
        _check_rows(rows)
    if IMAGE in rows.column_names:
        image = torch.from_numpy(np.asarray(rows[IMAGE], np.float16))
    if TEXT in rows.column_names:
        text = [torch.from_numpy(np.asarray(captions, np.float16)) for captions in rows[TEXT]]
    return TeacherFeatures(image, text, teacher_views(rows))


def _check_rows(rows: Dataset):
    for number, (image, captions, kept) in enumerate(zip(rows["image"], rows["captions"], rows[CHECKSUM])):
        if checksum(image, captions) != kept:
            raise ValueError(
                f"row {number} (image_id {rows[number]['image_id']}): its teachers' features were made of another "
                "picture or other captions; run `vsehub teachers` again"
            )


def teacher_views(rows: Dataset) -> Views:
    """The views of each image that the image teacher saw; the plain image if the data have no image teacher."""
    return Views(**json.loads(rows[0][VIEWS])) if IMAGE in rows.column_names else PLAIN


def checksum(image: dict | str | bytes, captions: list[str]) -> str:
    """Digest of the picture and the captions that a row's features belong to."""
    return row_digest(image_source(image), captions)


__all__ = ["CHECKSUM", "IMAGE", "TEXT", "VIEWS", "TeacherFeatures", "checksum", "read_teachers", "teacher_views"]
