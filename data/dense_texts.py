"""The dense text of each row: a column, a file, or the union of the captions."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from .arguments import DataArguments, is_dense_file
from .columns import chosen_of, in_order, is_text, lengths_of, parts_of, scattered, with_column
from .loading import load_split
from .manifests import dense_lines
from .sources import read_table
from .written_lists import refuse_written_lists


def dense_source(rows: Dataset, dense_text: str, told: bool) -> str:
    """`union` in place of the default column, where it is missing and pictures have several captions.

    Args:
        rows: with captions (lists).
        dense_text: what was asked for.
        told: whether a line says so.
    """
    default = DataArguments.__dataclass_fields__["dense_text"].default
    if dense_text != default or default in rows.column_names:
        return dense_text
    if not any((lengths_of(part) > 1).any() for part in parts_of(rows, "captions")):
        return dense_text
    if told:
        print(
            "no column dense_text: all captions of a picture in one text stand for it (--dense_text union); "
            "`vsehub caption` makes dense ones",
            file=sys.stderr,
        )
    return "union"


def with_dense(rows: Dataset, numbers: np.ndarray, dense_text: str) -> Dataset:
    """Attach the dense text that `dense_text` names as the column `dense_text`.

    Args:
        rows: with captions (lists) and ids.
        numbers: of the rows that count, ascending: line k of a `.jsonl` without ids is for the k-th of them.
        dense_text: the name of a column, a file, or `union`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such column, or a file that does not fit.
    """
    if is_dense_file(dense_text) and not (_is_address(dense_text) or Path(dense_text).is_file()):
        raise FileNotFoundError(f"--dense_text {dense_text}: no such file (it is one file, not a pattern)")
    if dense_text == "union":
        parts: Iterator[pa.Array] = map(_unions, parts_of(rows, "captions"))
    elif dense_text.lower().endswith(".jsonl") and not _names_ids(dense_text):
        parts = scattered(rows, numbers, dense_lines(dense_text, len(numbers)), pa.string())
    elif is_dense_file(dense_text):
        parts = _by_id(rows, dense_text)
    elif dense_text in rows.column_names:
        _check_texts(rows, dense_text, f"column {dense_text!r} of the data")
        if dense_text == "dense_text" and rows.data.schema.field(dense_text).type == pa.string():
            return rows
        parts = parts_of(rows, dense_text)
    else:
        raise ValueError(
            f"no column {dense_text!r} among {rows.column_names}: dense text comes from --dense_text COLUMN, "
            "FILE.parquet (made by `vsehub caption`), FILE.csv, FILE.jsonl, or `union` (all captions of an image in "
            "one text)"
        )
    return with_column(rows, "dense_text", pa.string(), parts)


def _is_address(name: str) -> bool:
    """Whether a table lies elsewhere; `datasets` fetches parquet alone."""
    return "://" in name and name.endswith(".parquet")


def _names_ids(path: str) -> bool:
    """Whether the lines of a `.jsonl` say for which image they are; otherwise their order does."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
    try:
        return "image_id" in json.loads(first)
    except (ValueError, TypeError):
        return False


def _check_texts(rows: Dataset, column: str, place: str):
    """Refuse a column of dense texts that holds something else; null is no dense text of that row."""
    kind = rows.data.schema.field(column).type
    if not (is_text(kind) or pa.types.is_null(kind) or pa.types.is_string_view(kind)):
        raise ValueError(
            f"{place} holds {kind}, not a text in each row: make it one (join lists), or name another source with "
            "--dense_text"
        )
    refuse_written_lists((text for part in parts_of(rows, column) for text in part.to_pylist()), place)


def _unions(captions: pa.Array) -> pa.Array:
    stripped = ([text.strip() for text in texts if isinstance(text, str)] for texts in captions.to_pylist())
    return pa.array([" ".join(texts) for texts in stripped], pa.string())


def _by_id(rows: Dataset, path: str) -> Iterator[pa.Array]:
    """The dense texts of a table of `image_id` and `dense_text`; the last one where an id comes back."""
    if _is_address(path):
        table = in_order(load_split(path, "train", path="parquet", data_files=path))
    else:
        table = in_order(read_table(Path(path), path))
    if not {"image_id", "dense_text"} <= set(table.column_names):
        raise ValueError(f"{path} needs columns image_id and dense_text; it has {table.column_names}")
    _check_texts(table, "dense_text", f"{path}: column dense_text")
    ids = pc.cast(table.data.column("image_id"), pa.string())
    last_first = ids.take(pa.array(np.arange(len(ids))[::-1]))
    found = 0
    for part in parts_of(rows, "image_id"):
        places = pc.index_in(part, value_set=last_first)
        known = np.asarray(places.is_valid())
        texts = np.full(len(part), None, object)
        wanted = len(ids) - 1 - np.asarray(places.drop_null())
        found += len(wanted)
        if len(wanted):
            texts[known] = chosen_of(table, "dense_text", wanted).to_pylist()
        yield pa.array(texts.tolist(), pa.string())
    if not found and len(rows):
        held = f"it has {ids[0].as_py()!r}, ..., the data {rows[0]['image_id']!r}, ..." if len(ids) else "it is empty"
        raise ValueError(
            f"{path}: none of its ids is in the data ({held}): caption the same --data, with the same --id_column"
        )


__all__ = ["with_dense"]
