"""One state of an index, which nothing changes: rows, items and vectors of a snapshot belong together.

A change of the index makes another snapshot and puts it in the place of this one, so threads that search never wait.
"""

import difflib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from . import approximate as search_graph
from .index_segments import BLOCK, SCHEMA, Segment, unit
from .index_store import IndexFolderError
from .nearest import MARGIN, candidates, cut_through_tie, load_faiss, ranked
from .vector_types import Compact


def check_request(k: int, cutoff: float | None):
    """Refuse what no search can mean.

    Raises:
        ValueError: k < 1, or a cut-off that is NaN.
    """
    if not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k must be at least 1, a whole number, not {k!r}")
    if cutoff is not None and not cutoff == cutoff:
        raise ValueError("the cut-off is NaN: give a cosine, or None for no cut-off")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The rows of an index at one moment, numbered across segments.

    Attributes:
        segments: of the rows.
        deleted: boolean (all rows,), which rows are deleted.
        dimension: of the vectors; None in an index without rows.
        graph, graph_rows: the HNSW graph, or None, and how many of the first rows it covers.
        name: of the index, in errors.
    """

    segments: tuple[Segment, ...] = ()
    deleted: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    dimension: int | None = None
    graph: Any = None
    graph_rows: int = 0
    name: str = "this index"

    def __len__(self) -> int:
        return int(len(self.deleted) - self.deleted.sum())

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
        left_out = self.deleted if where is None else self.deleted | ~np.asarray(where, bool)
        results: list[Any] = [None] * len(queries)
        count = k + MARGIN
        exact = exact or where is not None  # a walk through the graph may meet only rows that are left out
        todo, covered = np.arange(len(queries)), self._covered(exact)
        while len(todo):  # repeated with more candidates where a tie may go on beyond the last candidate
            several = self._candidates(queries[todo], count, left_out if left_out.any() else None, covered)
            again = []
            for number, rows in zip(todo, several):
                rows = rows[rows >= 0]
                rows, scores = ranked(rows, self.vectors(rows), queries[number])
                if count < len(self.deleted) and not covered and cut_through_tie(scores, k, count):
                    again.append(number)
                kept = slice(0, k if cutoff is None else min(k, int((scores >= cutoff).sum())))
                results[number] = rows[kept], scores[kept]
            todo, count = np.array(again, int), count * 4
        return results

    def vectors(self, rows) -> np.ndarray:
        """Vectors of some rows, (len(rows), D)."""
        rows, vectors = np.asarray(rows), np.empty((len(rows), self.dimension), np.float32)
        for start, segment in self.placed():
            mine = (rows >= start) & (rows < start + len(segment))
            vectors[mine] = segment.vectors[rows[mine] - start]
        return vectors

    def items(self, rows) -> list[dict]:
        """Items of some rows, in their order."""
        rows = np.asarray(rows, int)
        items: list[Any] = [None] * len(rows)
        for start, segment in self.placed():
            mine = np.flatnonzero((rows >= start) & (rows < start + len(segment)))
            for place, item in zip(mine, segment.table.take(rows[mine] - start).to_pylist() if len(mine) else ()):
                items[place] = item
        return items

    def batches(self) -> Iterator[tuple[np.ndarray, pa.Table]]:
        """Yield (vectors (R, D), items) of all rows that are not deleted, some thousand at a time."""
        for start, segment in self.placed():
            kept = np.flatnonzero(~self.deleted[start : start + len(segment)])
            for first in range(0, len(kept), BLOCK):
                rows = kept[first : first + BLOCK]
                yield segment.vectors[rows], segment.table.take(rows)

    def row_of(self, name: str) -> int:
        """The row of the item with this id, or of the file with this path.

        Raises:
            ValueError: there is none; the message shows a similar one.
        """
        for text in (name, os.path.abspath(name)):
            rows = self.rows_of(pa.array([text], pa.string()))
            rows = rows[~self.deleted[rows]]
            if len(rows):
                return int(rows[0])
        near = difflib.get_close_matches(name, itertools.islice(self.column("id"), 10_000), 1, 0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ", as `vsehub search` prints them"
        raise ValueError(f"{self.name} has no item with the id {name!r}{hint}")

    def chunks(self, name: str) -> pa.ChunkedArray:
        """One field of all rows as Arrow holds it."""
        chunks = [chunk for segment in self.segments for chunk in segment.table[name].chunks]
        return pa.chunked_array(chunks, SCHEMA.field(name).type)

    def column(self, name: str) -> list:
        """One field of all rows, deleted ones too (see `alive`)."""
        return [value for segment in self.segments for value in segment.table[name].to_pylist()]

    @cached_property
    def texts(self) -> np.ndarray:
        """Boolean (all rows,), which are texts; the others are pictures."""
        return pc.fill_null(pc.equal(self.chunks("modality"), "text"), False).to_numpy()

    @property
    def alive(self) -> np.ndarray:
        """Boolean (all rows,), which are not deleted."""
        return ~self.deleted

    def placed(self) -> Iterator[tuple[int, Segment]]:
        """Yield (number of its first row, segment)."""
        start = 0
        for segment in self.segments:
            yield start, segment
            start += len(segment)

    def _covered(self, exact) -> int:
        """Number of rows that are in the graph; none in a flat index."""
        return 0 if exact or self.graph is None or load_faiss() is None else self.graph_rows

    def _candidates(self, queries, count, left_out, covered) -> np.ndarray:
        parts = [search_graph.search(self.graph, queries, count, left_out)] if covered else []
        for start, segment in self.placed():
            first = max(0, covered - start)  # a merge may have put covered rows and later ones into one segment
            if first < len(segment):
                out = None if left_out is None else left_out[start + first : start + len(segment)]
                vectors = segment.vectors
                rows = vectors.since(first) if isinstance(vectors, Compact) else vectors[first:]
                rows = candidates(rows, queries, count, out)
                parts.append(np.where(rows >= 0, rows + start + first, -1))
        return np.concatenate(parts, 1)

    def rows_of(self, ids: pa.Array) -> np.ndarray:
        """Rows with one of these ids, deleted ones too."""
        rows = [segment.rows_of(ids) + start for start, segment in self.placed()]
        return np.concatenate(rows) if rows else np.zeros(0, int)

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


__all__ = ["Snapshot", "check_request"]
