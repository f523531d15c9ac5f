"""One state of an index, which nothing changes: rows, items and vectors of a snapshot belong together.

A change of the index makes another snapshot and puts it in the place of this one, so threads that search never wait.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from . import approximate as search_graph
from .index_segments import BLOCK, SCHEMA, Segment
from .nearest import MARGIN, candidates, cut_through_tie, load_faiss, ranked
from .rows import Rows, hits_of
from .vector_types import Compact, Vectors


@dataclass(frozen=True, eq=False)
class Snapshot(Rows):
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

    def _search(self, queries: np.ndarray, k: int, cutoff: float | None, where, exact: bool) -> list:
        left_out = self.deleted if where is None else self.deleted | ~np.asarray(where, bool)
        results: list[Any] = [None] * len(queries)
        count = k + MARGIN
        exact = exact or where is not None  # a walk through the graph may meet only rows that are left out
        todo, covered = np.arange(len(queries)), self._covered(exact)
        while len(todo):  # repeated with more candidates where a tie may go on beyond the last candidate
            several = self._candidates(queries[todo], count, left_out if left_out.any() else None, covered)
            if several is None:
                covered = 0
                continue
            again = []
            for number, rows in zip(todo, several):
                rows = rows[rows >= 0]
                rows, scores = ranked(rows, self.vectors(rows), queries[number])
                if count < len(self.deleted) and not covered and cut_through_tie(scores, k, count):
                    again.append(number)
                results[number] = hits_of(rows, scores, k, cutoff)
            todo, count = np.array(again, int), count * 4
        return results

    def vectors(self, rows) -> np.ndarray:
        """See `Rows`."""
        rows, vectors = np.asarray(rows), np.empty((len(rows), self.dimension), np.float32)
        for start, segment in self.placed():
            mine = (rows >= start) & (rows < start + len(segment))
            vectors[mine] = segment.vectors[rows[mine] - start]
        return vectors

    def items(self, rows) -> list[dict]:
        """See `Rows`."""
        rows = np.asarray(rows, int)
        items: list[Any] = [None] * len(rows)
        for start, segment in self.placed():
            mine = np.flatnonzero((rows >= start) & (rows < start + len(segment)))
            for place, item in zip(mine, segment.table.take(rows[mine] - start).to_pylist() if len(mine) else ()):
                items[place] = item
        return items

    def batches(self) -> Iterator[tuple[np.ndarray, pa.Table]]:
        """See `Rows`."""
        for start, segment in self.placed():
            kept = np.flatnonzero(~self.deleted[start : start + len(segment)])
            for first in range(0, len(kept), BLOCK):
                rows = kept[first : first + BLOCK]
                yield segment.vectors[rows], segment.table.take(rows)

    def chunks(self, name: str) -> pa.ChunkedArray:
        """See `Rows`."""
        chunks = [chunk for segment in self.segments for chunk in segment.table[name].chunks]
        return pa.chunked_array(chunks, SCHEMA.field(name).type)

    def blocks(self) -> Iterator[tuple[slice, Vectors]]:
        """See `Rows`."""
        for start, segment in self.placed():
            yield slice(start, start + len(segment)), segment.vectors

    def placed(self) -> Iterator[tuple[int, Segment]]:
        """Yield (number of its first row, segment)."""
        start = 0
        for segment in self.segments:
            yield start, segment
            start += len(segment)

    def _covered(self, exact) -> int:
        """Number of rows that are in the graph; none in a flat index."""
        return 0 if exact or self.graph is None or load_faiss() is None else self.graph_rows

    def _candidates(self, queries, count, left_out, covered) -> np.ndarray | None:
        """Rows to be ranked; None where a walk through the graph met fewer than it was asked for, and there are more.

        Among many equal vectors, of which each is the nearest of the others, it finds no way to the rest.
        """
        parts = []
        if covered:
            met = search_graph.search(self.graph, queries, count, left_out)
            there = covered if left_out is None else covered - int(left_out[:covered].sum())
            if ((met >= 0).sum(1) < min(count, there)).any():
                return None
            parts.append(met)
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
        """See `Rows`."""
        rows = [segment.rows_of(ids) + start for start, segment in self.placed()]
        return np.concatenate(rows) if rows else np.zeros(0, int)


__all__ = ["Snapshot"]
