"""What `TableIndex` asks of a vector database: the smallest interface that LanceDB and Qdrant have to fill.

Rows are Arrow tables, see `row_tables`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa


def shortened(text: str, most: int = 300) -> str:
    """The beginning of what a database says."""
    return text if len(text) <= most else f"{text[:most]} ..."


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
            rows: of `row_tables.rows_table`.
            facts: that are stored with them.
            new: whether the table is made.
        """

    def remove(self, ids: list[str], facts: dict):
        """Delete rows by id."""

    def note(self, facts: dict):
        """Store facts."""

    def tidy(self, kind: str):
        """Merge what many changes left."""


__all__ = ["State", "Table", "View", "shortened"]
