"""Write an index to another place: from memory or a folder to a database, or back."""

import pyarrow as pa

from ..index import Index
from ..index_store import IndexFolderError
from ..rows import Rows
from ..vector_index import VectorIndex
from .address import is_address, table_at
from .places import holds_index, open_index
from .table_index import TableIndex


def kept_in(index: Index, place) -> Index:
    """Write an index to a place without one, and return what is to be used from now on.

    An index in memory that is written to a folder stays the same object; others are copied. A copy that was
    interrupted is made again by the same call, without the rows that the index has lost since then.

    Raises:
        IndexFolderError: there is an index already.
    """
    if isinstance(index, VectorIndex) and not is_address(place):
        index.save(place)
        return index
    copy = _begun_copy(index, place)
    copy.cutoff, copy.sources, copy.origin = index.cutoff, index.sources, index.origin
    copy._named = set(index._named)
    now = index.snapshot  # another thread may change the index
    copy.unfinished = bool(len(now)) or index.unfinished
    for vectors, items in now.batches():
        copy.add(vectors, items.to_pylist(), merge=False)
    copy.delete(set(_ids(copy.snapshot)) - set(_ids(now)))
    if len(now):
        copy.note(unfinished=index.unfinished)
        copy.compact()
    return copy


def _ids(rows: Rows) -> list[str]:
    return rows.chunks("id").filter(pa.array(rows.alive)).to_pylist()


def _begun_copy(index: Index, place) -> Index:
    if not holds_index(place):
        if is_address(place):
            return TableIndex(table_at(place), index.model, index.kind, index.wait)
        return VectorIndex.create(place, index.model, index.kind, index.wait)
    begun = open_index(place, index.wait)
    if not begun.unfinished or begun.model != index.model or begun.sources != index.sources:
        raise IndexFolderError(f"{place} holds an index already: open it, or name another")
    return begun


__all__ = ["kept_in"]
