"""An index in a table of a vector database: what a local index is, with the database doing the storing and searching.

The table is made by the first rows that are added, so an interrupted job leaves a usable index or none.
"""

import contextlib
import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ...files import remembered
from ...files.whole import BusyError, WriterLock
from ..index import FACTS, Index
from ..index_manifest import called, check_noted, check_types
from ..index_segments import items_table
from ..index_store import IndexFolderError
from ..rows import Rows
from ..snapshot import Snapshot
from ..vector_types import UnitRows
from .row_tables import pieces, rows_table
from .table import State, Table
from .table_snapshot import NAMED_AT_ONCE, TableSnapshot

FORMAT = 1  # of the facts


class TableIndex(Index):
    """An index in a database; `TableIndex.open` opens one that is there.

    Args:
        table: that holds its rows, or will.
        model, kind, wait: of `Index`.

    Writers on this machine lock each other out. A writer on another machine is noticed when it has changed the index:
    the next change is then refused, or, with `wait`, made to what the other one wrote.
    """

    def __init__(self, table: Table, model: dict | None = None, kind: str = "flat", wait: float = 0.0):
        table.check_kind(kind)
        self.model, self.kind, self.dimension, self.wait = model, kind, None, wait
        self.cutoff, self.sources, self.unfinished, self.origin, self.generation = None, {}, False, None, 0
        self._named, self._table, self._mutex = set(), table, threading.RLock()
        self._now: Rows = Snapshot(name=table.address)
        self._stamp: Any = None  # of the state that is open; None: the table is not made yet
        self._lock: WriterLock | None = None

    @classmethod
    def open(cls, table: Table, wait: float = 0.0):
        """Open the index in a table.

        Raises:
            IndexFolderError: there is none, or the table was not made by vsehub, or by a newer one.
        """
        index = cls(table, wait=wait)
        index._take(table.read())
        return index

    def _take(self, state: State | None):
        """Take over a state of the table."""
        address = self._table.address
        if state is None:
            raise IndexFolderError(f"{address} holds no index: make one with `vsehub index`")
        facts = state.facts
        if facts.get("format") != FORMAT:
            raise IndexFolderError(
                f"{address} is an index of format {facts.get('format')}, this vsehub reads {FORMAT}: update vsehub"
            )
        try:
            check_types({**facts, "segments": [], "rows": 0})
            if not isinstance(facts["dimension"], int):
                raise TypeError("the dimension is a number")
        except (TypeError, KeyError, ValueError) as error:
            raise IndexFolderError(f"what {address} says of itself is damaged ({error}): build it again") from None
        for name in FACTS:
            setattr(self, name, facts.get(name))
        self.unfinished = self.unfinished is True
        self._stamp = state.stamp
        self.generation = facts.get("generation", 0)
        self._now = TableSnapshot(state.view, address, facts["dimension"], self.kind)

    @property
    def snapshot(self) -> Rows:
        """See `Index`."""
        return self._now

    @property
    def place(self) -> str:
        """See `Index`."""
        return self._table.address

    @property
    def reports(self) -> Path:
        """See `Index`."""
        return reports_of(self.place)

    @contextlib.contextmanager
    def lock(self):
        """See `Index`."""
        self._lock = self._lock or WriterLock(self.reports / ".lock", self.place)
        try:
            with self._mutex, self._lock.hold(self.wait):
                if self.wait and self._table.stamp() != self._stamp:
                    self._catch_up()
                yield
        except BusyError as error:
            raise IndexFolderError(str(error)) from None

    def _catch_up(self):
        model = self.model
        self._take(self._table.read())
        if model is not None and self.model != model:
            raise IndexFolderError(f"{self.place} now holds vectors of {called(self.model)}: open it again")

    @contextlib.contextmanager
    def _changing(self):
        """Context of a change: nobody else makes one, and what was noted for a change that fails is forgotten."""
        with self.lock():
            if self._table.stamp() != self._stamp:
                what = "holds an index already" if self._stamp is None else "was changed since it was opened"
                raise IndexFolderError(f"{self.place} {what}: open it again")
            before = {name: getattr(self, name) for name in FACTS}
            try:
                self._remember()
                self.generation += 1
                yield
                if self._stamp is not None or self._table.stamp() is not None:
                    self._take(self._table.read())
            except BaseException:
                vars(self).update(before)
                raise

    def _facts(self) -> dict:
        facts = {name: getattr(self, name) for name in FACTS}
        return json.loads(json.dumps({"format": FORMAT, "generation": self.generation, **facts}))

    def add(self, vectors, items: list[dict], merge: bool = True):
        """See `Index`."""
        units, table = UnitRows(vectors), items_table(items)
        if len(units) != len(table):
            raise ValueError(f"{len(units)} vectors for {len(table)} items")
        if not len(units):
            return
        with self._changing():
            self._now.check_dimension(units.shape[1], "vectors")
            self.dimension = units.shape[1]
            numbers = self._now.total + np.arange(len(units))
            self._table.write(rows_table(table, numbers, units[:]), self._facts(), self._stamp is None)

    def delete(self, ids) -> int:
        """See `Index`."""
        ids = [ids] if isinstance(ids, str) else ids
        ids = [name for name in dict.fromkeys(ids) if name]  # no row has an empty id
        with self._changing():
            if self._stamp is None or not ids:
                return 0
            parts = [self._now.rows_of(pa.array(part, pa.string())) for part in pieces(ids, NAMED_AT_ONCE)]
            count = sum(map(len, parts))
            if count:
                self._table.remove(ids, self._facts())
        return count

    def compact(self):
        """See `Index`."""
        with self._changing():
            if self._stamp is not None:
                self._table.tidy(self.kind)

    def note(self, **facts: Any):
        """See `Index`; before there are rows, they are noted in memory."""
        check_noted(facts)
        if "kind" in facts:
            self._table.check_kind(facts["kind"])
        with self._changing():
            vars(self).update(facts)
            if self._stamp is not None:
                self._table.note(self._facts())


def reports_of(address: str) -> Path:
    """The folder of the lock and of the lists of an index: in the user's cache, since the database may be elsewhere."""
    return remembered.digests_folder().with_name("stores") / hashlib.sha256(address.encode()).hexdigest()[:24]


__all__ = ["TableIndex", "reports_of"]
