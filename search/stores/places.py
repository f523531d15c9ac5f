"""Where an index lies: in a folder (`photos.index`), in LanceDB (`lance://FOLDER/NAME`, `lance://s3://bucket/db/NAME`),
or in Qdrant (`qdrant://HOST:6333/NAME`, `qdrant+https://HOST:6333/NAME`).

Keys are never part of an address, which is printed and stored: they are in environment variables.
"""

import os
import re
from pathlib import Path
from typing import Any

from ..index import Index
from ..index_store import MANIFEST, IndexFolderError, Store
from ..vector_index import VectorIndex
from .table import Table
from .table_index import TableIndex, reports_of

SCHEMES = ("lance://", "qdrant://", "qdrant+https://")
NAME = re.compile(r"[A-Za-z0-9_.-]+")


def is_address(place: Any) -> bool:
    """Whether a place is in a database, not a folder."""
    return isinstance(place, str) and place.startswith(SCHEMES)


def table_at(address: str) -> Table:
    """The table of an address; whether it is there is not asked.

    Raises:
        ValueError: an address that cannot be read, or holds a user, a password or options.
    """
    scheme, rest = address.split("://", 1)
    base, _, name = rest.rpartition("/")
    host = base.split("://")[-1].split("/")[0]
    secret = "?" in rest or "#" in rest or (("@" in host) and (scheme != "lance" or "://" in base))
    if secret:  # the address itself is not repeated
        raise ValueError(f"an address of {scheme}:// takes no user, password or options: set environment variables")
    if not base or not NAME.fullmatch(name):
        form = "lance://FOLDER/NAME" if scheme == "lance" else f"{scheme}://HOST:6333/NAME"
        raise ValueError(f"{address}: an index there is called {form}; NAME has letters, digits, _ . and -")
    if scheme == "lance":
        from .lance import LanceTable

        if base.startswith("db://"):
            raise ValueError(f"{address}: LanceDB Cloud is not supported, only a folder or an object store")
        if "://" not in base:  # the same index has the same address from every working directory
            base = os.path.abspath(os.path.expanduser(base))
        return LanceTable(f"lance://{base}/{name}", base, name)
    raise ValueError(f"{address}: not yet")


def check_options(place, kind: str | None, vectors: str | None):
    """Refuse what an index in a database cannot have, before long work.

    Raises:
        ValueError: a way of storing vectors, or a kind.
    """
    if not is_address(place):
        return
    if vectors not in (None, "float32"):
        raise ValueError(f"{place}: an index in a database has float32 vectors; leave out --vectors {vectors}")
    table_at(place).check_kind(kind or "flat")


def open_index(place, wait: float = 0.0) -> Index:
    """Open an index.

    Args:
        place: a folder, or an address.
        wait: of `Index`.

    Raises:
        IndexFolderError: there is none, it is damaged, of a newer format, or its database cannot be reached.
    """
    return TableIndex.open(table_at(place), wait) if is_address(place) else VectorIndex.open(place, wait)


def holds_index(place) -> bool:
    """Whether there is an index."""
    return stamp_of(place) is not None if is_address(place) else Store(place).exists()


def stamp_of(place) -> Any:
    """What changes when the index does; None where there is none."""
    if is_address(place):
        return table_at(place).stamp()
    try:
        status = os.stat(os.path.join(place, MANIFEST))
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def reports_at(address: str) -> Path:
    """The folder on this machine with the lists of what could not be used."""
    return reports_of(table_at(address).address)


def kept_in(index: Index, place) -> Index:
    """Write an index to a place without one, and return what is to be used from now on.

    An index in memory that is written to a folder stays the same object; others are copied. A copy that was
    interrupted is made again by the same call.

    Raises:
        IndexFolderError: there is an index already.
    """
    if isinstance(index, VectorIndex) and not is_address(place):
        index.save(place)
        return index
    copy = _begun_copy(index, place)
    copy.cutoff, copy.sources, copy.origin = index.cutoff, index.sources, index.origin
    copy._named = set(index._named)
    copy.unfinished = bool(len(index)) or index.unfinished
    for vectors, items in index.batches():
        copy.add(vectors, items.to_pylist(), merge=False)
    if len(index):
        copy.note(unfinished=index.unfinished)
        copy.compact()
    return copy


def _begun_copy(index: Index, place) -> Index:
    if not is_address(place):
        return VectorIndex.create(place, index.model, index.kind, index.wait)
    table = table_at(place)
    if table.stamp() is None:
        return TableIndex(table, index.model, index.kind, index.wait)
    begun = TableIndex.open(table, index.wait)
    if not begun.unfinished or begun.model != index.model or begun.sources != index.sources:
        raise IndexFolderError(f"{place} holds an index already: open it, or name another")
    return begun


__all__ = ["check_options", "holds_index", "is_address", "kept_in", "open_index", "reports_at", "stamp_of", "table_at"]
