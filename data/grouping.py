"""Rows that show one picture become one row with all its captions.

The commonest public layout has a caption a row, so that a picture comes back five times. Left alone, its captions would
be each other's negatives while training, and wrong answers while evaluating.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterator

from datasets import Dataset

from ..files.digests import file_digest

BESIDE_CAPTIONS = ("captions", "caption_ids", "text_teacher")  # columns with one item for each caption


def join_pictures(
    rows: Dataset, source_of: Callable, name: str, dense_column: str = "dense_text"
) -> tuple[Dataset, list[int]]:
    """Join the rows that show the same picture: equal bytes, whatever the id or the file's name.

    Args:
        rows: with `image`, `captions` (lists) and `image_id`, one or more rows a picture.
        source_of: image column -> bytes, a path or None.
        name: of the data, for errors.
        dense_column: dense texts, if there is such a column; those of one picture become one text.

    Returns:
        One row a picture, in order of first appearance, and for each the number of its first row in the source.

    Raises:
        ValueError: rows of one picture have different scene classes, or pictures that differ have one id.
    """
    members: dict[Hashable, list[int]] = {}
    for row, key in enumerate(picture_keys(rows, source_of)):
        members.setdefault(key, []).append(row)
    groups = list(members.values())
    first = [group[0] for group in groups]
    ids = list(rows["image_id"])
    _check_ids([ids[row] for row in first], name)
    if len(groups) == len(rows):
        return rows, first
    columns: dict[str, list] = {}
    for column in BESIDE_CAPTIONS:
        if column in rows.column_names:
            values = list(rows[column])
            columns[column] = [[item for row in group for item in values[row] or []] for group in groups]
    if dense_column in rows.column_names:
        values = list(rows[dense_column])
        columns[dense_column] = [_joined_text([values[row] for row in group]) for group in groups]
    if "label" in rows.column_names:
        values = list(rows["label"])
        columns["label"] = [_one_label([values[row] for row in group], f"{name}: {ids[group[0]]}") for group in groups]
    kept = rows.select(first).remove_columns(list(columns))
    for column, values in columns.items():
        kept = kept.add_column(column, values)
    return kept, first


def picture_keys(rows: Dataset, source_of: Callable) -> Iterator[Hashable]:
    """Give each row a key that is equal for equal pictures; a row without a picture has a unique one.

    A picture is read only if another one has its size.
    """
    sizes = Counter(_size(source_of(image)) for image in rows["image"])
    digests: dict[str, str] = {}  # of files, which many rows may name
    for row, image in enumerate(rows["image"]):
        source = source_of(image)
        size = _size(source)
        if size is None or sizes[size] == 1:
            yield row
        elif isinstance(source, bytes):
            yield hashlib.sha256(source).hexdigest()
        else:
            digests[source] = digests.get(source) or file_digest(source)
            yield digests[source]


def _size(source: bytes | str | None) -> int | None:
    """Bytes of a picture; None where it cannot be read, which the check of the rows reports."""
    if isinstance(source, bytes):
        return len(source)
    try:
        return os.stat(source).st_size if source is not None and os.access(source, os.R_OK) else None
    except (OSError, ValueError):
        return None


def _check_ids(ids: list[str], name: str):
    repeated = next((image_id for image_id, count in Counter(ids).items() if count > 1), None)
    if repeated is not None:
        raise ValueError(
            f"{name}: rows of image_id {repeated!r} show different pictures; give each picture an id of its own (or "
            "name another column with --id_column)"
        )


def _joined_text(texts: list[str | None]) -> str | None:
    """Join dense texts to one; repeated texts are used once."""
    distinct = list(dict.fromkeys(text.strip() for text in texts if text and text.strip()))
    return " ".join(distinct) or None


def _one_label(labels: list, picture: str):
    known = list(dict.fromkeys(label for label in labels if label is not None))
    if len(known) > 1:
        raise ValueError(f"{picture}: the rows of this picture have the scene classes {known[0]!r} and {known[1]!r}")
    return known[0] if known else None


__all__ = ["join_pictures", "picture_keys"]
