"""Rows as Arrow tables: the columns of `index_segments.SCHEMA`, `number` and `vector`.

A row's number is its place in the index: numbers grow with every row that is added, so ties are ranked as in a folder.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from ..index_segments import SCHEMA

NUMBER, VECTOR = "number", "vector"
BLOCK = 8192  # rows that are read at a time


def rows_schema(dimension: int, metadata: dict | None = None) -> pa.Schema:
    """The columns of rows; `metadata` is that of the vectors."""
    vector = pa.field(VECTOR, pa.list_(pa.float32(), dimension), metadata=metadata)
    return SCHEMA.append(pa.field(NUMBER, pa.int64())).append(vector)


def rows_table(items: pa.Table, numbers: np.ndarray, vectors: np.ndarray) -> pa.Table:
    """Rows of items, their numbers (R,) and vectors (R, D)."""
    schema = rows_schema(vectors.shape[1])
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
    columns = [items[name] for name in SCHEMA.names]
    columns += [pa.array(numbers, pa.int64()), pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])]
    return pa.table(columns, schema=schema)


def numbers_in(rows: pa.Table) -> np.ndarray:
    """The numbers of rows, (R,)."""
    return rows[NUMBER].to_numpy().astype(np.int64)


def vectors_in(rows: pa.Table, dimension: int) -> np.ndarray:
    """The vectors of rows, (R, D), float32."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in rows[VECTOR].chunks]
    flat = np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
    return flat.astype(np.float32, copy=False).reshape(len(rows), dimension)


def pieces(values: Any, size: int) -> Iterable[Any]:
    """A sequence in pieces of at most `size`."""
    return (values[start : start + size] for start in range(0, len(values), size))


__all__ = ["BLOCK", "NUMBER", "VECTOR", "numbers_in", "pieces", "rows_schema", "rows_table", "vectors_in"]
