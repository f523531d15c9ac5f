"""Ids of an index as a server shows them: they tell no path, and stay the same when the index changes."""

import hashlib
import os
import threading
from collections.abc import Iterable

import numpy as np

from ..search.rows import Rows

BYTES = 8  # of an id: among a million items two are equal with a chance of 3 in 100,000,000


class PublicIds:
    """Ids of the items of a snapshot.

    Args:
        snapshot: of the index.
        key: without it, nobody can compute an id from a guessed path.
    """

    def __init__(self, snapshot: Rows, key: str):
        self.snapshot, self._key = snapshot, key.encode()[:64]
        self._lock = threading.Lock()
        self._sorted: tuple[np.ndarray, np.ndarray] | None = None

    def of(self, name: str) -> str:
        """The public id of an item's id: 16 hexadecimal digits."""
        return self._digest(name).hex()

    def row(self, public: str) -> int | None:
        """The row of an item; None where there is none."""
        try:
            digest = bytes.fromhex(public)
        except ValueError:
            return None
        if len(digest) != BYTES:
            return None
        digests, rows = self.prepare()
        wanted = np.frombuffer(digest, ">u8")[0]
        first, last = np.searchsorted(digests, wanted), np.searchsorted(digests, wanted, "right")
        alive = [int(row) for row in rows[first:last] if not self.snapshot.deleted[row]]
        return alive[0] if alive else None

    def prepare(self) -> tuple[np.ndarray, np.ndarray]:
        """Digests of all rows, sorted, and their rows; computed once (about a second for a million items)."""
        with self._lock:
            if self._sorted is None:
                joined = b"".join(self._digest(name or "") for name in self.snapshot.column("id"))
                digests = np.frombuffer(joined, ">u8").astype(np.uint64)
                order = np.argsort(digests, kind="stable")
                self._sorted = digests[order], order
            return self._sorted

    def _digest(self, name: str) -> bytes:
        return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=BYTES, key=self._key).digest()


def shown_name(hit, roots: Iterable[str]) -> str:
    """What a person reads as the name of a hit: its path below the folder that was indexed, never above it.

    Args:
        hit: of `Retriever.search`.
        roots: folders and files that were indexed or named.
    """
    if hit.path is not None:
        inside = [root for root in roots if hit.path.startswith(os.path.join(root, ""))]
        return os.path.relpath(hit.path, max(inside, key=len)) if inside else os.path.basename(hit.path)
    name = hit.id.removeprefix(f"{hit.collection}:") if hit.collection else hit.id
    return os.path.basename(name) if os.path.isabs(name) else name


__all__ = ["PublicIds", "shown_name"]
