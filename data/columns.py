"""Columns of a table as Arrow keeps them: read in parts, written to files that are mapped, never lists of all rows.

A million captions as Python texts need a gigabyte in each process; the pages of a mapped file are shared, and the
system may drop them.
"""

import itertools
import uuid
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, concatenate_datasets

from ..files.scratch import ScratchFolder

PART = 20_000  # rows that are looked at together
TEXTS = pa.list_(pa.string())
BLANKS = "".join(chr(code) for code in range(0x3001) if chr(code).isspace())  # what str.strip() takes off


def spans(rows: Dataset) -> Iterator[tuple[int, int]]:
    """The borders (start, stop) of `PART` rows at a time."""
    return ((start, min(start + PART, len(rows))) for start in range(0, len(rows), PART))


def parts_of(rows: Dataset, column: str) -> Iterator[pa.Array]:
    """A column of a table whose rows lie in order (`in_order`), `PART` rows at a time."""
    whole = rows.data.column(column)
    for start, stop in spans(rows):
        yield _one_array(whole.slice(start, stop - start))


def chosen_of(rows: Dataset, column: str, numbers: np.ndarray) -> pa.Array:
    """The values of some rows, in the order of their numbers."""
    if len(numbers) and numbers[-1] - numbers[0] == len(numbers) - 1 and (np.diff(numbers) == 1).all():
        return _one_array(rows.data.column(column).slice(numbers[0], len(numbers)))
    table = rows.select_columns([column]).with_format("arrow")[numbers.tolist()]
    return _one_array(table.column(column))


def in_order(rows: Dataset) -> Dataset:
    """The table whose rows lie as they are numbered."""
    return rows if rows._indices is None else rows.flatten_indices()


def with_column(rows: Dataset, name: str, kind: pa.DataType, parts: Iterable[pa.Array]) -> Dataset:
    """Add a column, or put it in the place of one; its values go to a file that is mapped.

    Args:
        rows: a table whose rows lie in order.
        name: of the column.
        kind: of its values.
        parts: the values of consecutive rows, all rows together.
    """
    path = Path(_folder().name) / f"{uuid.uuid4().hex}.arrow"
    schema = pa.schema([(name, kind)])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for part in parts:
            writer.write_batch(pa.record_batch([part.cast(kind)], schema=schema))
    rest = rows.remove_columns([name]) if name in rows.column_names else rows
    return concatenate_datasets([rest, Dataset.from_file(str(path))], axis=1)


def table_of(parts: Iterable[pa.Table]) -> Dataset:
    """A table in a mapped file; its first part says what its columns hold."""
    path = Path(_folder().name) / f"{uuid.uuid4().hex}.arrow"
    parts = iter(parts)
    first = next(parts)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, first.schema) as writer:
        for part in itertools.chain([first], parts):
            writer.write_table(part.cast(first.schema))
    return Dataset.from_file(str(path))


def scattered(rows: Dataset, numbers: np.ndarray, values: Sequence, kind: pa.DataType) -> Iterator[pa.Array]:
    """Parts of a column that has the values in the rows `numbers` (ascending), and none elsewhere."""
    for start, stop in spans(rows):
        first, last = np.searchsorted(numbers, (start, stop))
        part: list = [None] * (stop - start)
        for place, value in zip(numbers[first:last] - start, values[first:last]):
            part[place] = value
        yield pa.array(part, kind)


def lists_of(part: pa.Array) -> pa.Array:
    """Values (texts, numbers) as lists of one, null as an empty list; lists as they are."""
    if pa.types.is_null(part.type):
        return pa.array([[]] * len(part), TEXTS)
    if not is_list(part.type):
        offsets = np.concatenate([[0], np.cumsum(np.asarray(part.is_valid()))]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), part.drop_null())
    if not part.null_count:
        return part
    offsets = np.concatenate([[0], np.cumsum(lengths_of(part))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), part.flatten())


def lengths_of(part: pa.Array) -> np.ndarray:
    """Items of each list; 0 for null."""
    return np.asarray(pc.fill_null(pc.list_value_length(part), 0)).astype(np.int64)


def list_lengths(rows: Dataset, column: str) -> np.ndarray:
    """Items of the list of each row."""
    parts = rows.select_columns([column]).with_format("arrow").iter(PART)
    return np.concatenate([np.zeros(0, np.int64), *(lengths_of(_one_array(part.column(0))) for part in parts)])


def suspects(part: pa.Array, may_be_empty: bool = False) -> np.ndarray:
    """Rows of a part whose lists of texts have nothing, or something that is no text or blank."""
    counts = lengths_of(part)
    wrong = np.zeros(len(part), bool) if may_be_empty else counts == 0
    values = part.flatten()
    blank = np.asarray(is_blank(values)) if is_text(values.type) else np.ones(len(values), bool)
    if blank.any():
        wrong[np.repeat(np.arange(len(part)), counts)[blank]] = True
    return np.flatnonzero(wrong)


def is_blank(texts: pa.Array) -> pa.Array:
    """Where a text is null, empty or nothing but spaces."""
    return pc.fill_null(pc.equal(pc.binary_length(pc.utf8_trim(texts, BLANKS)), 0), True)


def repeats(rows: Dataset, column: str, numbers: np.ndarray | None = None) -> list[str]:
    """The values of a column of texts that more than one row has, or more than one of the rows `numbers`."""
    hashes = np.fromiter((hash(text) for part in parts_of(rows, column) for text in part.to_pylist()), np.int64)
    hashes = hashes if numbers is None else hashes[numbers]
    order = np.sort(hashes)
    twice = np.unique(order[1:][order[1:] == order[:-1]])
    if not len(twice):
        return []
    places = np.flatnonzero(np.isin(hashes, twice))
    places = places if numbers is None else numbers[places]
    seen, several = set(), {}
    for start in range(0, len(places), PART):
        for text in chosen_of(rows, column, places[start : start + PART]).to_pylist():
            several |= {text: None} if text in seen else {}
            seen.add(text)
    return list(several)


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds texts."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def is_list(kind: pa.DataType) -> bool:
    """Whether a column holds lists."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


@cache
def _folder() -> ScratchFolder:
    return ScratchFolder("vsehub-columns-")


__all__ = [
    "PART",
    "TEXTS",
    "chosen_of",
    "in_order",
    "is_blank",
    "is_list",
    "is_text",
    "lengths_of",
    "list_lengths",
    "lists_of",
    "parts_of",
    "repeats",
    "scattered",
    "spans",
    "suspects",
    "table_of",
    "with_column",
]
