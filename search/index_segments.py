"""A segment of an index: unit vectors and a table that describes them, in memory or memory-mapped."""

import threading
from collections import Counter
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..files.arrays import read_array
from .index_store import IndexFolderError
from .vector_types import UnitRows, Vectors, encoded, opened, stored_dtype

SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # unique in the index
        ("path", pa.string()),  # of the file, where there is one
        ("row", pa.int64()),  # in the dataset, where it came from one
        ("box", pa.list_(pa.int32())),  # left, top, right, bottom in pixels, of a tile
        ("size", pa.int64()),  # bytes
        ("stamp", pa.int64()),  # mtime in ns of a file, CRC-32 of bytes
        ("caption", pa.string()),
        ("modality", pa.string()),  # image or text
        ("collection", pa.string()),  # its source: updating one source leaves the rows of others alone
        ("fields", pa.string()),  # JSON of the other columns of its row in the dataset
    ]
)
BLOCK = 16_384  # rows copied at a time


class Segment:
    """Rows of an index.

    Args:
        vectors: unit vectors (R, D): float32, or `vector_types.Compact`.
        table: their items; with None, they are read from `source` (parquet) when they are first used.
        source: an open pyarrow file, so that the items stay readable when a writer removes their file.
        files: names of the two files, None in memory.
    """

    def __init__(self, vectors: Vectors, table: pa.Table | None = None, source=None, files=None):
        self.vectors, self.files, self._source, self._reading = vectors, files, source, threading.Lock()
        if table is not None:
            self.table = table

    @cached_property
    def table(self) -> pa.Table:
        """The items, one row for each vector.

        Raises:
            IndexFolderError: their file is damaged.
        """
        try:
            with self._reading:  # threads share the open file
                table = pq.read_table(self._source)
            if "fields" not in table.column_names:  # of an earlier version
                table = table.append_column("fields", pa.nulls(len(table), pa.string()))
            # of several chunks, to take one row copies whole columns
            table = table.select(SCHEMA.names).cast(SCHEMA).combine_chunks()
            if len(table) != len(self.vectors):
                raise ValueError(f"{len(table)} items of {len(self.vectors)} vectors")
            return table
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise IndexFolderError(
                f"{self.files[1]} is damaged ({error}): copy the index again, or build it again"
            ) from None

    def __len__(self) -> int:
        return len(self.vectors)

    def rows_of(self, ids: pa.Array) -> np.ndarray:
        """Rows whose id is among `ids`."""
        return np.flatnonzero(pc.is_in(self.table["id"], value_set=ids).to_numpy(zero_copy_only=False))

    @classmethod
    def open(cls, folder, files, name: str = "float32", dimension: int = 0):
        """Map a segment from its files; its vectors are of a type `name` of `vector_types.TYPES`."""
        dtype = stored_dtype(name, dimension)
        vectors = read_array(folder / files[0], dtype, 2 if dtype.names is None else 1)
        return cls(opened(vectors, name, dimension), source=pa.memory_map(str(folder / files[1])), files=files)


def items_table(items: list[dict]) -> pa.Table:
    """Items as a table of `SCHEMA`; what is not given is null.

    Raises:
        ValueError: an unknown field, an item without id, an id given twice.
    """
    unknown = {name for item in items for name in item} - set(SCHEMA.names)
    if unknown:
        raise ValueError(f"items have no field {sorted(unknown)[0]!r}; they have {', '.join(SCHEMA.names)}")
    check_ids([item.get("id") for item in items])
    # Block by block: Arrow makes a list of each column, and the heap keeps the room of a long one.
    blocks = [pa.Table.from_pylist(items[n : n + BLOCK], schema=SCHEMA) for n in range(0, len(items), BLOCK)]
    return pa.concat_tables(blocks).combine_chunks() if blocks else SCHEMA.empty_table()


def check_ids(ids: list):
    """Refuse ids that an index cannot have.

    Raises:
        ValueError: one that is no text, or given twice.
    """
    wrong = [name for name in ids if not isinstance(name, str) or not name]
    if wrong:
        raise ValueError(f"every item needs an id, a text that is not empty, not {wrong[0]!r}")
    if len(set(ids)) < len(ids):
        twice = next(name for name, times in Counter(ids).items() if times > 1)
        raise ValueError(f"id {twice!r} is given twice; ids are unique in an index")


def unit(vectors, what: str = "vector") -> np.ndarray:
    """Check and normalise vectors (R, D): float32 of length 1.

    Raises:
        ValueError: of `UnitRows`.
    """
    rows = UnitRows(vectors, what)
    return rows[:]


def write_vectors(path, parts: list[tuple[Any, np.ndarray | None]], dimension: int, name: str = "float32"):
    """Write one .npy of the kept rows of several arrays, block by block.

    Args:
        path: of the file.
        parts: (vectors (R, D), boolean (R,) of what is kept, or None for all), see `vector_types.encoded`.
        dimension: D.
        name: of `vector_types.TYPES`.
    """
    rows = sum(len(vectors) if kept is None else int(kept.sum()) for vectors, kept in parts)
    dtype = stored_dtype(name, dimension)
    shape = (rows, dimension) if dtype.names is None else (rows,)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for vectors, kept in parts:
            for start in range(0, len(vectors), BLOCK):
                file.write(encoded(vectors, slice(start, start + BLOCK), kept, name).view(np.uint8).data)


__all__ = ["SCHEMA", "Segment", "check_ids", "items_table", "unit", "write_vectors"]
