"""The index that a server searches, which another process may change: the newest complete state, swapped whole."""

import logging
import os
import secrets
import threading
from collections.abc import Iterable
from functools import cached_property, lru_cache
from typing import Any

from ..files.text import printable
from ..search.collection import Collection
from ..search.pages import picture_opener, small_jpeg
from ..search.retriever import Hit, Retriever
from ..search.stores.address import is_address
from ..search.stores.places import open_index, stamp_of
from .public_ids import PublicIds, shown_name

logger = logging.getLogger(__name__)
THUMBNAILS = 1000  # that are kept, of about 20 KB each


class State:
    """One state of an index, and what is computed from it.

    Args:
        retriever: over this state; nothing changes its index.
        images: folders and files whose pictures may be shown, besides those of the index.
        key: of `PublicIds`.

    Attributes:
        thumbnail: `jpeg`, which remembers its results.
    """

    def __init__(self, retriever: Retriever, images: Iterable[str], key: str):
        self.retriever, self.index = retriever, retriever.index
        self.images, self.ids = list(images), PublicIds(retriever.index.snapshot, key)
        self._read: dict[str, Collection] = {}  # data sets, of which some take seconds to be read
        self.thumbnail: Any = lru_cache(THUMBNAILS)(self.jpeg)

    @cached_property
    def roots(self) -> list[str]:
        """Folders and files that were indexed or named."""
        sources = self.index.sources.values()
        places = {source.get(name) for source in sources for name in ("data", "image_root")}
        return [place for place in {*places, *self.index.named, *map(os.path.abspath, self.images)} if place]

    @cached_property
    def subtracts_means(self) -> bool:
        """Whether a search subtracts the means of the modalities, so that a calibrated cut-off does not hold."""
        return self.retriever.means_for(self.index.snapshot) is not None

    def name_of(self, hit: Hit) -> str:
        """What a person reads as the name of a hit."""
        return shown_name(hit, self.roots)

    def hit_of(self, public: str) -> Hit | None:
        """The item with a public id; None where there is none."""
        row = self.ids.row(public)
        if row is None:
            return None
        item = self.index.snapshot.items([row])[0]
        return Hit(score=1.0, **{name: item[name] for name in Hit.__dataclass_fields__ if name != "score"})

    def picture(self, public: str, side: int):
        """The picture of an item, decoded so that no side is below `side` where it need not be.

        Returns:
            A PIL image; None where there is no such item, or none with a picture.

        Raises:
            BadImageError, OSError: it cannot be opened, or lies in no folder that was named.
        """
        hit = self.hit_of(public)
        return None if hit is None else picture_opener(self.index, self.images, side, self._read)(hit)

    def jpeg(self, public: str, side: int) -> bytes | None:
        """The picture of an item as a JPEG of at most `side` x `side` pixels; see `picture`."""
        image = self.picture(public, side)
        return None if image is None else small_jpeg(image, side)


class LiveIndex:
    """The newest complete state of an index.

    Args:
        retriever: over the index, in a folder, a database or in memory.
        images: of `State`.
        stamp: `stores.places.stamp_of` the index before the index was opened.

    Attributes:
        now: the present `State`; take it once for each request.
        takeovers: how often a changed index was taken over.
        problem: why the newest state could not be, or None.
    """

    def __init__(self, retriever: Retriever, images: Iterable[str] = (), stamp: tuple | None = None):
        self.encoder, self.place = retriever.encoder, retriever.index.place
        origin: Any = retriever.index.origin  # one that was received may hold anything there
        self.images = list(images)
        self.key = origin if origin and isinstance(origin, str) else secrets.token_hex(16)
        self.takeovers = 0
        self.problem: str | None = None
        self.now = State(retriever, self.images, self.key)
        self._seen, self._lock, self._end = stamp, threading.Lock(), threading.Event()

    def refresh(self) -> bool:
        """Take the index over if it has changed where it is stored; the state before stays where that fails."""
        if self.place is None:
            return False
        with self._lock:
            try:
                stamp = stamp_of(self.place)
                if stamp is not None and stamp == self._seen:
                    self.problem = None  # it could not be reached, and is what is served
                    return False
                index = open_index(self.place)
                state = State(Retriever(self.encoder, index=index), self.images, self.key)
                state.ids.prepare()
            except Exception as error:  # being copied, damaged, of another model; the next look may succeed
                if str(error) != self.problem:
                    logger.warning("the index is served as it was: %s", printable(error))
                self.problem = str(error)
                return False
            self.now, self._seen, self.problem = state, stamp, None
            self.takeovers += 1
            return True

    def watch(self, every: float | None = None):
        """Look for changes every few seconds (default 1, of a database 10), in a thread of its own, until `close`."""
        if every is None:
            every = 10.0 if is_address(self.place) else 1.0
        threading.Thread(target=self._watch, args=(every,), name="vsehub index", daemon=True).start()

    def close(self):
        """End `watch`."""
        self._end.set()

    def _watch(self, every: float):
        while not self._end.wait(every):
            self.refresh()


__all__ = ["LiveIndex", "State"]
