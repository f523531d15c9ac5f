"""What `TableIndex` asks of a vector database: the smallest interface that LanceDB and Qdrant have to fill.

Rows are Arrow tables with the columns of `index_segments.SCHEMA`, `number` and `vector`. A row's number is its place in
the index: numbers grow with every row that is added, so ties are ranked as in a local index.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from ..index_segments import SCHEMA

NUMBER, VECTOR = "number", "vector"
BLOCK = 8192  # rows that are read at a time


class View(Protocol):
    """The rows at one moment.

    Rows that are added later are not in it. Where the database keeps no earlier states (Qdrant), rows that are deleted
    or replaced later are missing from it.
    """

    @property
    def total(self) -> int:
        """All numbers are below this one."""

    def count(self, modality: str | None = None) -> int:
        """Number of rows, of a modality or of all."""

    def nearest(
        self,
        query: np.ndarray,
        count: int,
        within: np.ndarray | None = None,
        without: np.ndarray | None = None,
        exact: bool = True,
    ) -> pa.Table:
        """At most `count` rows with the largest inner products with a query (D,), in any order, with all columns.

        Args:
            query: float32.
            count: at least 1.
            within, without: numbers of the rows that are searched, and of those that are not.
            exact: do not use an approximate graph.
        """

    def rows(self, numbers: np.ndarray) -> pa.Table:
        """The rows with these numbers that there are, in any order."""

    def numbers_of(self, ids: list[str]) -> np.ndarray:
        """The numbers of the rows with these ids that there are, in any order."""

    def columns(self, names: set[str], limit: int | None = None) -> pa.Table:
        """`number` and at least these columns of all rows, or of some, in any order."""

    def blocks(self) -> Iterator[pa.Table]:
        """All rows in the order of their numbers, some thousand at a time."""


@dataclass(frozen=True)
class State:
    """What is stored at one moment: facts about the index, its rows, and a stamp that changes with each change."""

    facts: dict
    view: View
    stamp: Any


class Table(Protocol):
    """A table or collection of a database.

    Attributes:
        address: that names it, without credentials.

    Every method raises IndexFolderError where the database cannot be reached, or refuses.
    """

    address: str

    def check_kind(self, kind: str):
        """Refuse a kind of index that it cannot have."""

    def stamp(self) -> Any:
        """Of the present state; None where there is no such table."""

    def read(self) -> State | None:
        """The present state; None where there is no such table.

        Raises:
            IndexFolderError: a table that was not made by vsehub.
        """

    def write(self, rows: pa.Table, facts: dict, new: bool):
        """Add rows in place of those with the same ids; they are there completely, or not at all.

        Args:
            rows: of `rows_table`.
            facts: that are stored with them.
            new: whether the table is made.
        """

    def remove(self, ids: list[str], facts: dict):
        """Delete rows by id."""

    def note(self, facts: dict):
        """Store facts."""

    def tidy(self, kind: str):
        """Merge what many changes left."""


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


__all__ = [
    "BLOCK",
    "NUMBER",
    "VECTOR",
    "State",
    "Table",
    "View",
    "numbers_in",
    "pieces",
    "rows_schema",
    "rows_table",
    "vectors_in",
]
