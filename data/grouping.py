"""Rows that show one picture become one row with all its captions.

The commonest public layout has a caption a row, so that a picture comes back five times. Left alone, its captions would
be each other's negatives while training, and wrong answers while evaluating.
"""

import hashlib
import os
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from ..files.digests import file_digest
from .columns import PART, chosen_of, is_text, lengths_of, repeats, spans, with_column

BESIDE_CAPTIONS = ("captions", "caption_ids", "text_teacher")  # columns with one item for each caption


def join_pictures(
    rows: Dataset, source_of: Callable, name: str, dense_column: str = "dense_text"
) -> tuple[Dataset, np.ndarray]:
    """Join the rows that show the same picture: equal bytes, whatever the id or the file's name.

    A row whose picture cannot be read belongs to the other rows of its id.

    Args:
        rows: with `image`, `captions` (lists) and `image_id`, one or more rows a picture, in order (`in_order`).
        source_of: image column -> bytes, a path or None.
        name: of the data, for errors.
        dense_column: dense texts, if there is such a column; those of one picture become one text.

    Returns:
        The rows, the first of each picture with what all of them had, and the numbers of these first rows.

    Raises:
        ValueError: rows of one picture have different scene classes, or pictures that differ have one id.
    """
    firsts = first_rows(rows, source_of)
    numbers = np.unique(firsts)
    _check_ids(repeats(rows, "image_id", numbers), name)
    if len(numbers) == len(rows):
        return rows, numbers
    group = _Groups(firsts, numbers)
    for column in BESIDE_CAPTIONS:
        if column in rows.column_names:
            kind = rows.data.schema.field(column).type
            rows = with_column(rows, column, kind, group.lists(rows, column))
    if dense_column in rows.column_names and is_text(kind := rows.data.schema.field(dense_column).type):
        texts = group.values(rows, dense_column, kind, lambda texts, _: _joined_text(texts))
        rows = with_column(rows, dense_column, kind, texts)
    if "label" in rows.column_names:
        kind, ids = rows.data.schema.field("label").type, rows["image_id"]
        one = group.values(rows, "label", kind, lambda labels, row: _one_label(labels, lambda: f"{name}: {ids[row]}"))
        rows = with_column(rows, "label", kind, one)
    return rows, numbers


class _Groups:
    """The rows of each picture: its first row has what all of them had, the others nothing."""

    def __init__(self, firsts: np.ndarray, numbers: np.ndarray):
        self.numbers = numbers
        self.order = np.argsort(firsts, kind="stable")  # the rows of a picture beside each other
        self.starts = np.append(np.searchsorted(firsts[self.order], numbers), len(firsts))

    def lists(self, rows: Dataset, column: str) -> Iterator[pa.Array]:
        """Parts of a column of lists, joined to one list a picture."""
        for begin, end, places, values, starts in self._parts(rows, column):
            sums = np.concatenate([[0], np.cumsum(lengths_of(values))])
            counts = np.zeros(end - begin, np.int64)
            counts[places] = np.diff(sums[starts])
            offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
            yield pa.ListArray.from_arrays(offsets, values.flatten())

    def values(self, rows: Dataset, column: str, kind: pa.DataType, join: Callable) -> Iterator[pa.Array]:
        """Parts of a column, whose values `join` (values, first row) makes one."""
        for begin, end, places, values, starts in self._parts(rows, column):
            part, texts = [None] * (end - begin), values.to_pylist()
            for place, start, stop in zip(places, starts, starts[1:]):
                part[place] = join(texts[start:stop], begin + int(place))
            yield pa.array(part, kind)

    def _parts(self, rows: Dataset, column: str) -> Iterator[tuple]:
        """For each part of the rows: its borders, places of first rows, and the values of their groups with starts."""
        for begin, end in spans(rows):
            first, last = np.searchsorted(self.numbers, (begin, end))
            starts = self.starts[first : last + 1]
            values = chosen_of(rows, column, self.order[starts[0] : starts[-1]])
            yield begin, end, self.numbers[first:last] - begin, values, starts - starts[0]


def _with_unread(firsts: np.ndarray, unread: np.ndarray, rows: Dataset) -> np.ndarray:
    """The first rows, where rows without a readable picture go to the others of their id: first to readable ones."""
    if not unread.any():
        return firsts
    ids, joined = rows["image_id"][:], firsts.copy()
    missing = {ids[row] for row in np.flatnonzero(unread)}
    first_of: dict[str, int] = {}
    for row in [*np.flatnonzero(~unread), *np.flatnonzero(unread)]:
        if ids[row] in missing:
            first = first_of.setdefault(ids[row], int(firsts[row]))
            joined[row] = first if unread[row] else joined[row]
    return joined


def first_rows(rows: Dataset, source_of: Callable) -> np.ndarray:
    """For each row the number of the first row that shows its picture, or has its id where it shows none.

    A picture is read only if another one has its size.
    """
    sizes = _sizes(rows, source_of)
    numbers, counts = np.unique(sizes[sizes >= 0], return_counts=True)
    digests: dict[str, bytes] = {}  # of files, which many rows may name
    places = np.flatnonzero(np.isin(sizes, numbers[counts > 1]))
    keys = np.zeros((len(places), 2), np.uint64)
    for start in range(0, len(places), PART // 10):
        images = chosen_of(rows, "image", places[start : start + PART // 10])
        for place, image in enumerate(images, start):
            keys[place] = np.frombuffer(_digest(source_of(image.as_py()), digests), np.uint64)
    firsts = np.arange(len(rows))
    if len(places):
        by_key = np.lexsort((places, keys[:, 1], keys[:, 0]))
        new = np.append(True, (np.diff(keys[by_key].view(np.int64), axis=0) != 0).any(1))
        firsts[places[by_key]] = places[by_key][np.flatnonzero(new)][np.cumsum(new) - 1]
    return _with_unread(firsts, sizes < 0, rows)


def _digest(source: bytes | str, of_files: dict[str, bytes]) -> bytes:
    """16 bytes that are equal for equal pictures alone."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).digest()[:16]
    if source not in of_files:
        of_files[source] = bytes.fromhex(file_digest(source))[:16]
    return of_files[source]


def _sizes(rows: Dataset, source_of: Callable) -> np.ndarray:
    """Bytes of each picture; -1 where it cannot be read, which the check of the rows reports."""
    parts = [np.zeros(0, np.int64)]
    for part in rows.data.column("image").chunks:
        inside = pc.struct_field(part, "bytes") if pa.types.is_struct(part.type) else part
        if pa.types.is_binary(inside.type) or pa.types.is_large_binary(inside.type):
            sizes = np.array(pc.fill_null(pc.binary_length(inside), -1), np.int64)
        else:
            sizes = np.full(len(part), -1)
        for row in np.flatnonzero(sizes < 0):
            sizes[row] = _file_size(source_of(part[row].as_py()))
        parts.append(sizes)
    return np.concatenate(parts)


def _file_size(source: bytes | str | None) -> int:
    try:
        return os.stat(source).st_size if isinstance(source, str) and os.access(source, os.R_OK) else -1
    except (OSError, ValueError):
        return -1


def _check_ids(repeated: list[str], name: str):
    if repeated:
        raise ValueError(
            f"{name}: rows of image_id {repeated[0]!r} show different pictures; give each picture an id of its own (or "
            "name another column with --id_column)"
        )


def _joined_text(texts: list[str | None]) -> str | None:
    """Join dense texts to one; repeated texts are used once."""
    distinct = list(dict.fromkeys(text.strip() for text in texts if text and text.strip()))
    return " ".join(distinct) or None


def _one_label(labels: list, picture: Callable[[], str]):
    known = list(dict.fromkeys(label for label in labels if label is not None))
    if len(known) > 1:
        raise ValueError(f"{picture()}: the rows of this picture have the scene classes {known[0]!r} and {known[1]!r}")
    return known[0] if known else None


__all__ = ["first_rows", "join_pictures"]
