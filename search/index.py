"""What the retriever and the verbs need of an index, whatever store it lies in: a folder, LanceDB or Qdrant."""

import abc
import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .index_manifest import called, kept_numbers
from .index_store import IndexFolderError
from .named_folders import folders_of, new_origin, remember_folders
from .rows import Rows
from .vector_types import check_type

FACTS = ("model", "kind", "dimension", "cutoff", "sources", "origin", "unfinished")  # stored beside the rows


class Index(abc.ABC):
    """Unit vectors with ids and items, and what is known of them.

    Attributes:
        model: that made the vectors: `id`, `revision`, `digest`, and `width` where only the first numbers of its
            embeddings are kept; None accepts vectors of any model.
        kind: `flat` (exact), `hnsw`, or `auto` by size.
        vector_type: of `vector_types.TYPES`.
        dimension: of the vectors; None as long as there are none.
        wait: seconds that a change waits for another writer.
        cutoff: the calibrated minimum cosine, see `cutoff.calibrated_cutoff`.
        sources: settings of the collections in it, by name.
        unfinished: whether the job that makes it was stopped.
        origin: under which the folders that the user named are remembered.
        generation: grows with each change.
    """

    vector_type: str = "float32"
    model: dict | None
    kind: str
    dimension: int | None
    wait: float
    cutoff: dict | None
    sources: dict[str, dict]
    unfinished: bool
    origin: str | None
    generation: int
    _named: set[str]  # in this process

    @property
    @abc.abstractmethod
    def snapshot(self) -> Rows:
        """The present state; take it once where rows of one call go into another, since other threads may change it."""

    @property
    @abc.abstractmethod
    def place(self) -> str | None:
        """What opens it again (`stores.places.open_index`); None in memory."""

    @property
    @abc.abstractmethod
    def reports(self) -> Path | None:
        """The folder for lists of what could not be used; None in memory."""

    @abc.abstractmethod
    def lock(self) -> contextlib.AbstractContextManager:
        """Keep other writers out, as far as the store can; methods that change the index enter it."""

    @abc.abstractmethod
    def add(self, vectors, items: list[dict], merge: bool = True):
        """Add rows; they replace those with the same ids.

        Args:
            vectors: (R, D); they are normalised.
            items: for each row a dictionary of the fields of `index_segments.SCHEMA`; `id` is needed.
            merge: whether small parts may be merged with this one (False: call `compact` after many adds).

        Raises:
            ValueError: NaN, zero vectors, vectors and items of different number, repeated ids; IndexFolderError:
                another dimension.
        """

    @abc.abstractmethod
    def delete(self, ids) -> int:
        """Remove rows by id, or one, and return their number; unknown ids are ignored."""

    @abc.abstractmethod
    def compact(self):
        """Merge what many changes left, and bring the graph up to date."""

    @abc.abstractmethod
    def note(self, **facts: Any):
        """Store `cutoff`, `sources`, `kind` or `unfinished`."""

    def __len__(self) -> int:
        return len(self.snapshot)

    @property
    def name(self) -> str:
        """Of the index, in errors."""
        return self.place or "this index"

    @property
    def named(self) -> set[str]:
        """The folders and files that the user named on this machine: pictures are opened from these alone."""
        return self._named | folders_of(self.origin)

    def allow(self, folders: Iterable[str]):
        """Name folders or files whose pictures may be opened; the next change, or `remember`, keeps that."""
        self._named |= set(map(os.path.abspath, folders))

    def remember(self):
        """Keep what `allow` named, if no change did."""
        if self.place is not None and not self._named <= folders_of(self.origin):
            self.note()

    def _remember(self):
        """Remember what the user named; an index that is not known here gets a name that nobody else knows."""
        if self._named:
            self.origin = self.origin if folders_of(self.origin) else new_origin()
            remember_folders(self.origin, self._named)
        self.origin = self.origin or new_origin()  # of pictures in memory, too: a server's ids depend on it

    def check_model(self, model: dict):
        """Refuse vectors of another model.

        Raises:
            IndexFolderError: the index was made with other weights, or holds vectors of another width.
        """
        mine = self.model
        if mine is None:
            return
        if mine["digest"] == model["digest"]:
            kept, asked = kept_numbers(mine), kept_numbers(model)
            if kept == asked:
                return
            raise IndexFolderError(
                f"{self.name} holds {kept} of each embedding, and {asked} were asked for: leave the "
                "width out, or make another index"
            )
        same_name = mine["id"] == model["id"]
        raise IndexFolderError(
            f"{self.name} was made with {called(mine)}, not with {called(model)}"
            f"{' (same name, other weights)' if same_name else ''}: use that model, or make another index"
        )

    def check_vectors(self, name: str | None):
        """Refuse another way of storing the vectors than that of this index; None asks for none.

        Raises:
            ValueError: no such type; IndexFolderError: the index holds others.
        """
        if name is None or name == self.vector_type:
            return
        check_type(name)
        raise IndexFolderError(
            f"{self.name} holds {self.vector_type} vectors, and {name} were asked for: leave that "
            "out, or make another index"
        )

    def search(self, queries, k: int = 10, cutoff: float | None = None, where=None, exact: bool = False) -> list:
        """`Rows.search` of the present state."""
        return self.snapshot.search(queries, k, cutoff, where, exact)

    def vectors(self, rows) -> np.ndarray:
        """`Rows.vectors` of the present state."""
        return self.snapshot.vectors(rows)

    def items(self, rows) -> list[dict]:
        """`Rows.items` of the present state."""
        return self.snapshot.items(rows)

    def batches(self) -> Iterator[tuple[np.ndarray, pa.Table]]:
        """`Rows.batches` of the present state."""
        return self.snapshot.batches()

    def column(self, name: str) -> list:
        """`Rows.column` of the present state."""
        return self.snapshot.column(name)

    @property
    def alive(self) -> np.ndarray:
        """`Rows.alive` of the present state."""
        return self.snapshot.alive


__all__ = ["FACTS", "Index"]
