"""What a search needs of one state of an index, whatever store the rows lie in."""

import abc
import difflib
import os
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .index_segments import unit
from .index_store import IndexFolderError


class Rows(abc.ABC):
    """The rows of an index at one moment: rows, items and vectors of one such object belong together.

    Rows are numbered in the order in which they were added; a row that replaces another has a new number. There may be
    numbers of rows that are deleted.

    Attributes:
        name: of the index, in errors.
        dimension: of the vectors; None in an index without rows.
        deleted: boolean (all rows,), which rows are deleted.
    """

    name: str
    dimension: int | None
    deleted: np.ndarray

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of rows that are not deleted."""

    @property
    def total(self) -> int:
        """Number of all rows, deleted ones too."""
        return len(self.deleted)

    def search(self, queries, k: int = 10, cutoff: float | None = None, where=None, exact: bool = False) -> list:
        """Find the nearest rows of each query.

        Args:
            queries: (Q, D); they are normalised.
            k: maximum number of rows for a query.
            cutoff: minimum cosine of a hit; there may be no hits.
            where: boolean (all rows, deleted ones too), which rows are searched; these are searched exactly.
            exact: search exactly even where there is a graph.

        Returns:
            For each query (rows, cosines), best first, ties by row.

        Raises:
            ValueError: queries with NaN or of length 0, k < 1, a cut-off that is NaN; IndexFolderError: another
                dimension.
        """
        queries = unit(queries, "query")
        check_request(k, cutoff)
        if not len(self):
            return [(np.zeros(0, np.int64), np.zeros(0))] * len(queries)
        self.check_dimension(queries.shape[1], "queries")
        return self._search(queries, int(k), cutoff, where, exact)  # unsigned numbers of numpy wrap around

    @abc.abstractmethod
    def _search(self, queries: np.ndarray, k: int, cutoff: float | None, where, exact: bool) -> list:
        """`search`, of unit vectors that fit, in an index that has rows."""

    @abc.abstractmethod
    def vectors(self, rows) -> np.ndarray:
        """Vectors of some rows, (len(rows), D)."""

    @abc.abstractmethod
    def items(self, rows) -> list[dict]:
        """Items of some rows, in their order."""

    @abc.abstractmethod
    def batches(self) -> Iterator[tuple[np.ndarray, pa.Table]]:
        """Yield (vectors (R, D), items) of all rows that are not deleted, in their order, some thousand at a time."""

    @abc.abstractmethod
    def blocks(self) -> Iterator[tuple]:
        """Yield (rows, vectors (R, D)) of all rows, deleted ones too where they are there.

        `rows` is a slice, or an array of row numbers; vectors are `vector_types.Vectors`.
        """

    @abc.abstractmethod
    def rows_of(self, ids: pa.Array) -> np.ndarray:
        """Rows with one of these ids, deleted ones too."""

    @abc.abstractmethod
    def chunks(self, name: str) -> pa.ChunkedArray:
        """One field of all rows as Arrow holds it."""

    def not_deleted(self, rows: np.ndarray) -> np.ndarray:
        """Those of some rows that are not deleted."""
        return rows[~self.deleted[rows]]

    def column(self, name: str) -> list:
        """One field of all rows, deleted ones too (see `alive`)."""
        return self.chunks(name).to_pylist()

    def first(self, name: str, count: int) -> list:
        """One field of some rows that are not deleted."""
        return self.chunks(name).filter(pa.array(self.alive)).slice(0, count).to_pylist()

    @property
    def alive(self) -> np.ndarray:
        """Boolean (all rows,), which are not deleted."""
        return ~self.deleted

    @cached_property
    def texts(self) -> np.ndarray:
        """Boolean (all rows,), which are texts; the others are pictures."""
        return pc.fill_null(pc.equal(self.chunks("modality"), "text"), False).to_numpy()

    def is_mixed(self, chosen: np.ndarray | None = None) -> bool:
        """Whether these rows, boolean (all rows,), or all, hold pictures and texts."""
        texts = self.texts[self.alive if chosen is None else self.alive & chosen]
        return bool(texts.any() and not texts.all())

    def row_of(self, name: str | os.PathLike) -> int:
        """The row of the item with this id, or of the file with this path.

        Raises:
            ValueError: there is none; the message shows a similar one.
        """
        if not isinstance(name, (str, os.PathLike)):
            raise ValueError(f"an item is named by its id, which is a text, or by its path, not by {name!r}")
        name = os.fspath(name)
        for text in (name, os.path.abspath(name)):
            try:
                rows = self.not_deleted(self.rows_of(pa.array([text], pa.string())))
            except UnicodeEncodeError:  # no item has a name that is not Unicode
                continue
            if len(rows):
                return int(rows[0])
        near = difflib.get_close_matches(name, self.first("id", 10_000), 1, 0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ", as `vsehub search` prints them"
        raise ValueError(f"{self.name} has no item with the id {name!r}{hint}")

    def check_dimension(self, dimension: int, what: str):
        """Refuse vectors that do not fit.

        Raises:
            IndexFolderError: another dimension than that of the rows.
        """
        if self.dimension not in (None, dimension):
            raise IndexFolderError(
                f"{self.name} holds vectors of dimension {self.dimension}, the {what} have {dimension}: use the model "
                "that made it, or make another index"
            )


def hits_of(rows: np.ndarray, scores: np.ndarray, k: int, cutoff: float | None) -> tuple[np.ndarray, np.ndarray]:
    """The first k of ranked rows and their cosines, down to the cut-off."""
    kept = slice(0, k if cutoff is None else min(k, int((scores >= cutoff).sum())))
    return rows[kept], scores[kept]


def check_request(k: int, cutoff: float | None):
    """Refuse what no search can mean.

    Raises:
        ValueError: k < 1, or a cut-off that is a text or NaN.
    """
    if not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k must be at least 1, a whole number, not {k!r}")
    if isinstance(cutoff, str):
        raise ValueError(f"the cut-off is the text {cutoff!r}: give a cosine, or None for no cut-off")
    if cutoff is not None and not cutoff == cutoff:
        raise ValueError("the cut-off is NaN: give a cosine, or None for no cut-off")


__all__ = ["Rows", "check_request", "hits_of"]
