"""One state of an index in a vector database.

Conditions are evaluated here, on the columns that they name, so they mean the same in every store; the database then
searches among the rows that meet them. It proposes candidates, which are ranked here in float64, ties by row.
"""

import threading
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import pyarrow as pa

from .. import approximate
from ..index_segments import SCHEMA
from ..index_store import IndexFolderError
from ..nearest import MARGIN, cut_through_tie, ranked
from ..rows import Rows, hits_of
from .row_tables import NUMBER, numbers_in, pieces, vectors_in
from .table import View

FEW = 1_000  # rows that are named without trying another way
NAMED_AT_ONCE = 10_000  # numbers of rows in one request
ASKED_AT_MOST = 5_000  # nearest rows of all, to find enough that meet a condition
KEPT = 4096  # rows that were hits


class TableSnapshot(Rows):
    """The rows of an index at one moment.

    Args:
        view: of the table.
        name: of the index, in errors.
        dimension: of the vectors.
        kind: of the index.
    """

    def __init__(self, view: View, name: str, dimension: int, kind: str = "flat"):
        self.name, self.dimension, self._view, self._kind = name, dimension, view, kind
        self._tables: dict[str, tuple[pa.Table, np.ndarray]] = {}  # columns that were read, and where their rows are
        self._met: dict[int, tuple[np.ndarray, dict]] = {}  # rows that were hits: their vectors and items
        self._reading = threading.Lock()

    def __len__(self) -> int:
        return self._count

    @cached_property
    def _count(self) -> int:
        return self._view.count()

    @property
    def total(self) -> int:
        """See `Rows`."""
        return self._view.total

    @cached_property
    def deleted(self) -> np.ndarray:  # type: ignore[override]  # computed when it is first used
        """See `Rows`."""
        loaded = list(self._tables)  # every column tells it
        return self._loaded(loaded[0] if loaded else "id")[1] < 0

    def _search(self, queries: np.ndarray, k: int, cutoff: float | None, where, exact: bool) -> list:
        chosen = None if where is None else np.asarray(where, bool)
        if chosen is not None and "id" in self._tables:
            chosen = chosen & self.alive
        exact = exact or chosen is not None or approximate.kind_for(self._kind, len(self)) == "flat"
        results = []
        for query in queries:
            rows, scores = self._ranked(query, k, chosen, exact)
            results.append(hits_of(rows, scores, k, cutoff))
        return results

    def _ranked(self, query: np.ndarray, k: int, chosen: np.ndarray | None, exact: bool):
        """The best rows of a query, at least k where there are so many, and their cosines."""
        most = len(self) + 1  # a server reserves memory for what is asked
        count = min(k + MARGIN, most)
        while True:  # again with more candidates where a tie may go on beyond the last one
            rows = self._nearest(query, count, chosen, exact)
            self._keep(rows)
            numbers, scores = ranked(numbers_in(rows), vectors_in(rows, self.dimension), query)
            if not exact or len(numbers) < count or not cut_through_tie(scores, k, count):
                return numbers, scores
            count = min(4 * count, most)

    def _nearest(self, query: np.ndarray, count: int, chosen: np.ndarray | None, exact: bool) -> pa.Table:
        """Rows that hold the `count` best of those that are chosen."""
        if chosen is None:
            return self._view.nearest(query, count, exact=exact)
        inside, outside = np.flatnonzero(chosen), np.flatnonzero(~chosen)
        if len(outside) <= FEW:
            return self._view.nearest(query, count, without=outside if len(outside) else None)
        asked = 2 * count * self.total // max(len(inside), 1)
        while len(inside) > FEW and asked <= ASKED_AT_MOST:  # faster than to name so many rows
            rows = self._view.nearest(query, asked)
            kept = rows.filter(pa.array(chosen[numbers_in(rows)]))
            if len(kept) >= count or len(rows) < asked:
                return kept
            asked *= 4
        parts = [self._view.nearest(query, count, within=part) for part in pieces(inside, NAMED_AT_ONCE)]
        return pa.concat_tables(parts) if parts else self._view.rows(inside)

    def _keep(self, rows: pa.Table):
        """Remember rows, since the items of hits are asked for next."""
        if len(self._met) + len(rows) > KEPT:
            self._met = {}
        items = rows.select(SCHEMA.names).to_pylist()
        self._met |= dict(zip(numbers_in(rows).tolist(), zip(vectors_in(rows, self.dimension), items)))

    def _of(self, rows) -> list[tuple[np.ndarray, dict]]:
        """Vectors and items of some rows, in their order."""
        rows, met = [int(row) for row in rows], dict(self._met)
        for part in pieces([row for row in dict.fromkeys(rows) if row not in met], NAMED_AT_ONCE):
            read = self._view.rows(np.array(part, np.int64))
            items = read.select(SCHEMA.names).to_pylist()
            met |= dict(zip(numbers_in(read).tolist(), zip(vectors_in(read, self.dimension), items)))
        if not all(row in met for row in rows):
            raise IndexFolderError(f"{self.name} was changed while it was searched: search again")
        return [met[row] for row in rows]

    def vectors(self, rows) -> np.ndarray:
        """See `Rows`."""
        several = [vector for vector, _ in self._of(rows)]
        return np.stack(several) if several else np.zeros((0, self.dimension), np.float32)

    def items(self, rows) -> list[dict]:
        """See `Rows`."""
        return [dict(item) for _, item in self._of(rows)]

    def batches(self) -> Iterator[tuple[np.ndarray, pa.Table]]:
        """See `Rows`."""
        for rows in self._view.blocks():
            yield vectors_in(rows, self.dimension), rows.select(SCHEMA.names)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """See `Rows`."""
        for rows in self._view.blocks():
            yield numbers_in(rows), vectors_in(rows, self.dimension)

    def rows_of(self, ids: pa.Array) -> np.ndarray:
        """See `Rows`."""
        return self._view.numbers_of(ids.to_pylist())

    def not_deleted(self, rows: np.ndarray) -> np.ndarray:
        """See `Rows`; of ids, the database gives no others."""
        return rows

    def first(self, name: str, count: int) -> list:
        """See `Rows`."""
        return self._view.columns({name}, count)[name].to_pylist()

    def is_mixed(self, chosen: np.ndarray | None = None) -> bool:
        """See `Rows`."""
        return 0 < self._texts < len(self) and (chosen is None or super().is_mixed(chosen))

    @cached_property
    def _texts(self) -> int:
        return self._view.count("text")

    def chunks(self, name: str) -> pa.ChunkedArray:
        """See `Rows`; null where a row is deleted."""
        table, places = self._loaded(name)
        column = table[name]
        if len(places) == len(column) and (places == np.arange(len(places))).all():
            return column
        return column.take(pa.array(places, mask=places < 0))

    def _loaded(self, name: str) -> tuple[pa.Table, np.ndarray]:
        """A table with this column, and the place in it of each row, (all rows,), -1 for a deleted one."""
        with self._reading:
            if name not in self._tables:
                table = self._view.columns({name})
                places = np.full(self.total, -1)
                places[numbers_in(table)] = np.arange(len(table))
                self._tables |= {column: (table, places) for column in table.column_names if column != NUMBER}
            return self._tables[name]


__all__ = ["TableSnapshot"]
