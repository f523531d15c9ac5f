"""Open an index wherever it lies: in a folder, or at an address in a database."""

import os
from pathlib import Path
from typing import Any

from ..index import Index
from ..index_store import MANIFEST, Store
from ..vector_index import VectorIndex
from .address import is_address, table_at
from .table_index import TableIndex, reports_of


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


__all__ = ["check_options", "holds_index", "open_index", "reports_at", "stamp_of"]
