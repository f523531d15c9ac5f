"""A durable index of embeddings: add, delete and search by cosine; a change is stored completely or not at all.

Rows are stored in segments. A change appends one segment and merges it with preceding ones that are no larger, so there
are few segments, and a row is copied about log2(changes) times. Deleted rows are marked, and removed when they are a
fifth of all. Rows are numbered across segments; a merge may change a row's number, but never its id.
"""

import contextlib
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..files.arrays import read_array
from . import approximate as search_graph
from .index import Index
from .index_manifest import called, check_noted, check_types
from .index_segments import BLOCK, Segment, items_table, write_vectors
from .index_store import COMPACT_FORMAT, FORMAT, IndexFolderError, Store
from .nearest import load_faiss
from .snapshot import Snapshot
from .vector_types import UnitRows, check_type, encoded, opened

DEAD_SHARE = 0.2  # share of deleted rows, above which they are removed
GRAPH_LAG = (2000, 0.1)  # rows outside the graph (number, and share of all) above which they are added to it


class VectorIndex(Index):
    """Unit vectors with ids, in memory or in a folder.

    Args:
        model: that made the vectors: `id`, `revision`, `digest`, and `width` where only the first numbers of its
            embeddings are kept; None accepts vectors of any model.
        kind: `flat` (exact), `hnsw`, or `auto` by size.
        wait: seconds that a change waits for another writer of the folder, infinity for as long as it takes; the change
            is then made to what the other one wrote. With 0, the change is refused at once.
        vectors: of `vector_types.TYPES`: `float32`, or `float16` or `int8` for fewer bytes.

    Use `create` or `open` for one in a folder.
    """

    def __init__(self, model: dict | None = None, kind: str = "flat", wait: float = 0.0, vectors: str = "float32"):
        if model is not None and not isinstance(model, dict):  # it would be an empty index that nothing stores
            raise TypeError(
                f"model is a dictionary, not {model!r}: VectorIndex.open(folder) opens an index, and "
                "VectorIndex.create(folder) makes one"
            )
        search_graph.kind_for(kind, 0)
        check_type(vectors)
        self.vector_type = vectors
        self.model, self.kind, self.dimension, self.wait = model, kind, None, wait
        self.cutoff: dict | None = None
        self.sources: dict[str, dict] = {}
        self.unfinished = False  # whether the job that makes it was stopped
        self.origin: str | None = None  # under which the folders that the user named are remembered
        self._named: set[str] = set()  # in this process
        self.generation = 0
        self._now = Snapshot()
        self._mutex = threading.RLock()  # of the threads that change this object
        self._files: dict[str, str | None] = {"deleted": None, "graph": None}
        self._store: Store | None = None
        self._known: tuple | None = None  # `_named_in` the manifest of this state

    @classmethod
    def create(cls, folder, model: dict | None = None, kind: str = "flat", wait: float = 0.0, vectors: str = "float32"):
        """Make an empty index in a folder; see the class for the arguments.

        Raises:
            IndexFolderError: there is one already.
        """
        index = cls(model, kind, wait, vectors)
        index.save(folder)
        return index

    @classmethod
    def open(cls, folder, wait: float = 0.0):
        """Open the index of a folder; vectors are memory-mapped.

        Args:
            folder: of the index.
            wait: of the class; to open and to search, nobody waits.

        Raises:
            IndexFolderError: there is none, or it is damaged or of a newer format.
        """
        index, store = cls(wait=wait), Store(folder)
        _, index = store.load(lambda manifest: index._opened(store, manifest))
        return index

    def _opened(self, store, manifest):
        check_types(manifest)
        self._store, self.generation, self._known = store, manifest["generation"], _named_in(manifest)
        for name in ("model", "kind", "dimension", "cutoff", "sources"):
            setattr(self, name, manifest[name])
        self.origin = manifest.get("origin")  # indexes of earlier versions have none
        self.unfinished = manifest.get("unfinished") is True
        self.vector_type = manifest.get("vectors", "float32")  # indexes of earlier versions do not say it
        held = self.vector_type, self.dimension or 0
        segments = tuple(Segment.open(store.folder, tuple(files), *held) for files in manifest["segments"])
        shapes = {segment.vectors.shape[1:] for segment in segments} <= {(self.dimension,)}
        if not shapes or sum(map(len, segments)) != manifest["rows"]:
            raise ValueError(f"not {manifest['rows']} vectors of {self.dimension} numbers")
        if not isinstance(self.sources, dict) or not isinstance(self.cutoff, (dict, type(None))):
            raise TypeError("sources and cutoff are dictionaries")
        self._files = {name: manifest[name] for name in ("deleted", "graph")}
        graph, graph_rows = None, manifest["graph_rows"]  # the number of rows is kept without faiss, too
        if self.kind == "ivf":  # of an earlier version: searched exactly, until a change builds an HNSW graph
            self.kind, self._files["graph"], graph_rows = "hnsw", None, 0
        deleted = np.zeros(sum(map(len, segments)), bool)
        if self._files["deleted"]:
            deleted[read_array(store.folder / self._files["deleted"], "integer", 1)] = True
        if self._files["graph"] and load_faiss() is not None:  # without faiss, search is exact
            graph = search_graph.read(store.folder / self._files["graph"])
            search_graph.check(graph, self.dimension, graph_rows, len(deleted))
        self._now = Snapshot(segments, deleted, self.dimension, graph, graph_rows, str(store.folder))
        return self

    @property
    def snapshot(self) -> Snapshot:
        """The present state; take it once where rows of one call go into another, since other threads may change it."""
        return self._now

    @property
    def folder(self) -> Path | None:
        """The folder of the index; None in memory."""
        return None if self._store is None else self._store.folder

    @property
    def place(self) -> str | None:
        """See `Index`."""
        return None if self._store is None else str(self._store.folder)

    @property
    def reports(self) -> Path | None:
        """See `Index`."""
        return self.folder

    @contextlib.contextmanager
    def lock(self):
        """Keep other threads from changing the index, and other processes from changing its folder.

        Methods that change the index enter it. Another thread that changes this object waits; whoever has opened the
        folder in another object is refused, or waits (see `wait`).

        Raises:
            IndexFolderError: the folder was moved or deleted; to lock it would make an empty one.
        """
        if self._store is not None and not self._store.exists():
            raise IndexFolderError(f"{self.folder} was moved or deleted since it was opened: open it where it is now")
        with self._mutex, contextlib.nullcontext() if self._store is None else self._store.lock(self.wait):
            self._catch_up()
            yield

    def _catch_up(self):
        """Take over what another writer wrote, if this one may wait for others."""
        if self._store is None or not self.wait or _named_in(self._store.manifest()) == self._known:
            return
        model = self.model
        self._store.load(lambda manifest: self._opened(self._store, manifest))
        if model is not None and self.model != model:
            raise IndexFolderError(f"{self.folder} now holds vectors of {called(self.model)}: open it again")

    def add(self, vectors, items: list[dict], merge: bool = True):
        """See `Index`."""
        vectors, table = UnitRows(vectors), items_table(items)
        if len(vectors) != len(table):
            raise ValueError(f"{len(vectors)} vectors for {len(table)} items")
        if not len(vectors):
            return
        with self._changing():
            self._now.check_dimension(vectors.shape[1], "vectors")
            deleted = self._now.deleted.copy()
            deleted[self._now.rows_of(table["id"].combine_chunks())] = True
            dimension, self.dimension = self.dimension, vectors.shape[1]
            first = self._first_to_merge(len(vectors), deleted) if merge else None
            added = [(vectors, None, table)]
            del vectors, table  # `_rewrite` frees them before a graph is built
            try:
                self._rewrite(first, deleted, added)
            except BaseException:
                self.dimension = dimension
                raise

    def delete(self, ids) -> int:
        """See `Index`."""
        ids = [ids] if isinstance(ids, str) else list(ids)
        with self._changing():
            deleted = self._now.deleted.copy()
            deleted[self._now.rows_of(pa.array(ids, pa.string()))] = True
            count = int(deleted.sum() - self._now.deleted.sum())
            if count:
                self._rewrite(0 if deleted.mean() > DEAD_SHARE else None, deleted)
        return count

    def compact(self):
        """Merge all segments, remove deleted rows, and bring the graph up to date."""
        with self._changing():
            whole = len(self._now.segments) <= 1 and not self._now.deleted.any()
            self._rewrite(None if whole else 0, self._now.deleted, force_graph=True)

    def note(self, **facts):
        """Store `cutoff`, `sources`, `kind` or `unfinished` in the manifest.

        A small index gets a new kind at the next `compact`.

        Raises:
            ValueError: see `check_noted`; or no such kind.
        """
        check_noted(facts)
        search_graph.kind_for(facts.get("kind", self.kind), 0)
        with self._changing():
            before = {name: getattr(self, name) for name in facts}
            try:
                vars(self).update(facts)
                self._rewrite(None, self._now.deleted)
            except BaseException:
                vars(self).update(before)
                raise

    def save(self, folder):
        """Copy the index into a folder without an index; this object then uses that folder.

        Raises:
            IndexFolderError: there is an index already.
        """
        store, before = Store(folder), (self._store, self.generation, self._files, self.origin)
        with self._mutex, store.lock(self.wait):
            if store.exists():
                raise IndexFolderError(f"{folder} holds an index already: open it, or name another folder")
            self._store, self.generation, self._files = store, 0, {"deleted": None, "graph": None}
            try:
                self._rewrite(0, self._now.deleted, force_graph=True)
            except BaseException:
                self._store, self.generation, self._files, self.origin = before
                store.remove_others()
                raise

    def _first_to_merge(self, added: int, deleted) -> int:
        """Index of the first segment that is rewritten together with `added` rows."""
        if deleted.any() and deleted.mean() > DEAD_SHARE:
            return 0
        segments, covered = self._now.segments, self._now.graph_rows
        first, total = len(segments), added
        starts = [start for start, _ in self._now.placed()]
        while first > 0 and starts[first - 1] >= covered and len(segments[first - 1]) <= total:
            first -= 1
            total += len(segments[first])
        return first

    @contextlib.contextmanager
    def _changing(self):
        with self.lock():
            if self._store is not None and _named_in(self._store.manifest()) != self._known:
                raise IndexFolderError(f"{self.folder} was changed since it was opened: open it again")
            yield

    def _rewrite(self, first, deleted, added: list | None = None, force_graph: bool = False):
        """Write the next generation: the segments from `first` on (None: none) and the new rows become one segment.

        Args:
            first, deleted: of the segments, and of the rows that there are.
            added: (vectors, None, table) of the new rows; it is emptied when they are stored.
        """
        generation = self.generation + 1
        placed = list(self._now.placed())
        first = len(placed) if first is None else first
        boundary = placed[first][0] if first < len(placed) else len(deleted)
        parts = [(s.vectors, ~deleted[a : a + len(s)], s.table) for a, s in placed[first:]]
        added = added or []
        parts += added
        left = any(len(v) if alive is None else alive.any() for v, alive, _ in parts)
        segments = self._now.segments[:first] + ((self._segment(parts, generation),) if left else ())
        for stored in parts, added:  # what is written must not lie in memory beside the graph, too
            stored.clear()
        rows = sum(map(len, segments))
        same = boundary if deleted[boundary:].any() else len(deleted)  # rows that keep their number
        deleted = np.concatenate([deleted[:boundary], np.zeros(rows - boundary, bool)])
        graph, graph_file, graph_rows = self._next_graph(segments, same, generation, force_graph)
        files = {"deleted": None, "graph": graph_file}
        if self._store is not None:
            self._remember()
            if deleted.any():
                files["deleted"] = f"deleted-{generation:06d}.npy"
                with self._store.writing(files["deleted"]) as path, open(path, "wb") as file:
                    np.save(file, np.flatnonzero(deleted), allow_pickle=False)
            names = [name for segment in segments for name in segment.files] + [f for f in files.values() if f]
            facts = {name: getattr(self, name) for name in ("model", "kind", "dimension", "cutoff", "sources")}
            self._store.commit(
                {
                    "format": FORMAT if self.vector_type == "float32" else COMPACT_FORMAT,
                    "vectors": self.vector_type,
                    "generation": generation,
                    "metric": "cosine",
                    **facts,
                    **files,
                    "origin": self.origin,
                    "unfinished": self.unfinished,
                }
                | {
                    "rows": rows,
                    "graph_rows": graph_rows,
                    "segments": [segment.files for segment in segments],
                    "files": names,
                }
            )
        self._files, self.generation, self._known = files, generation, (generation, self.origin)
        self._now = Snapshot(segments, deleted, self.dimension, graph, graph_rows, self.name)

    def _segment(self, parts, generation) -> Segment:
        """One segment of the kept rows of several; written, if the index has a folder."""
        tables = [table if kept is None else table.filter(pa.array(kept)) for _, kept, table in parts]
        table = pa.concat_tables(tables)
        if self._store is None:
            return Segment(self._in_memory([part[:2] for part in parts]), table)
        files = (f"vectors-{generation:06d}.npy", f"items-{generation:06d}.parquet")
        with self._store.writing(files[0]) as path:
            write_vectors(path, [part[:2] for part in parts], self.dimension, self.vector_type)
        with self._store.writing(files[1]) as path:
            pq.write_table(table, path)
        return Segment.open(self._store.folder, files, self.vector_type, self.dimension)

    def _in_memory(self, parts):
        """The kept rows of several arrays as one, as they would be stored."""
        blocks = [
            encoded(vectors, slice(start, start + BLOCK), kept, self.vector_type)
            for vectors, kept in parts
            for start in range(0, len(vectors), BLOCK)
        ]
        return opened(np.concatenate(blocks), self.vector_type, self.dimension)

    def _next_graph(self, segments, same, generation, force):
        """The graph of the next generation, its file and rows: unchanged, extended, or rebuilt."""
        rows = sum(map(len, segments))
        kind = search_graph.kind_for(self.kind, rows)
        graph, name, covered = self._now.graph, self._files["graph"], self._now.graph_rows
        lost = graph is None and name is None  # not read without faiss, and its file is in another folder
        if covered > same or kind == "flat" or lost:
            graph, name, covered = None, None, 0
        if graph is not None and name is None and self._store is not None:  # made in memory, or for another folder
            name = self._written(graph, generation)
        lag = max(GRAPH_LAG[0], GRAPH_LAG[1] * rows)
        wanted = kind != "flat" and rows > covered and (force or rows - covered > lag)
        if not wanted or load_faiss() is None:
            return graph, name, covered
        vectors = [segment.vectors for segment in segments]
        if covered and not search_graph.fits(graph, vectors, covered):
            covered = 0
        pa.default_memory_pool().release_unused()  # of the items, before a graph takes its place
        if not covered:
            graph = search_graph.build(vectors)
        else:
            if name:  # a memory-mapped graph cannot grow
                graph = search_graph.read(self._store.folder / name, memory_map=False)
            else:  # threads may be searching it
                graph = search_graph.copied(graph)
            search_graph.extend(graph, vectors, covered)
        return graph, None if self._store is None else self._written(graph, generation), rows

    def _written(self, graph, generation) -> str:
        """Write a graph; the name of its file."""
        name = f"graph-{generation:06d}.faiss"
        with self._store.writing(name) as path:
            search_graph.write(graph, path)
        return name


def _named_in(manifest: dict) -> tuple:
    """Of which index a manifest is, and which generation: one that is made again in its folder counts from 1, too."""
    return manifest["generation"], manifest.get("origin")


__all__ = ["VectorIndex"]
