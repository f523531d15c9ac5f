"""An index in a collection of Qdrant.

A row is a point, whose id is made from the row's id. What is known of the index is a point, too. Qdrant has no
transactions, so that point is the commit: it holds the first number that is free, and rows from that number on are not
read. A killed writer leaves such rows; the next one removes them.
"""

import contextlib
import json
import os
import uuid
from typing import Any

import pyarrow as pa

from ..index_store import IndexFolderError
from .qdrant_points import FACTS, numbered, point_id, points_of
from .qdrant_view import QdrantView
from .row_tables import NUMBER, pieces
from .table import State, shortened

KEY = "QDRANT_API_KEY"
SECONDS = (10, 120)  # for what is known of an index, which is asked first, and for rows
REQUEST = 4_000_000  # bytes of vectors in one request, four times as many as JSON; a server takes 32 MB
REMOVED = 2048  # points in one request
DAMAGED = "what {} says of itself is damaged: build it again"


def connect(scheme: str, host: str, port: int, seconds: int):
    """A client of a server, with the key of the environment.

    Raises:
        ImportError: without qdrant-client. ValueError: the key would be sent to another machine unencrypted.
    """
    try:
        from qdrant_client import QdrantClient
    except ImportError:
        raise ImportError('an index at qdrant:// needs qdrant-client: pip install "vsehub[qdrant]"') from None
    secure, key = scheme == "qdrant+https", os.environ.get(KEY) or None
    if key and not secure and host not in ("localhost", "127.0.0.1", "::1"):
        raise ValueError(f"{KEY} would be sent to {host} unencrypted: write qdrant+https://")
    return QdrantClient(host=host, port=port, https=secure, api_key=key, timeout=seconds, check_compatibility=False)


class QdrantTable:
    """A collection; see `table.Table`.

    Args:
        address: as the user wrote it.
        server: scheme (`qdrant` or `qdrant+https`), host and port.
        name: of the collection.
    """

    def __init__(self, address: str, server: tuple[str, str, int], name: str):
        self.address, self.name, self._server = address, name, server
        self._clients: dict[int, Any] = {}
        self._next, self._made = 0, ""

    def check_kind(self, kind: str):
        """See `Table`: a server has a graph of its own."""

    def client(self, seconds: int = SECONDS[1]):
        """A client that waits so long for an answer."""
        if seconds not in self._clients:
            self._clients[seconds] = connect(*self._server, seconds)
        return self._clients[seconds]

    def _known(self) -> dict | None:
        """The facts; None where there is no collection, or one that a killed writer has only begun."""
        client = self.client(SECONDS[0])
        if not client.collection_exists(self.name):
            return None
        points = client.retrieve(self.name, [FACTS], with_payload=True)
        if points and "facts" in (points[0].payload or {}):
            facts = json.loads(points[0].payload["facts"])
            if not isinstance(facts, dict):
                raise IndexFolderError(DAMAGED.format(self.address))
            return facts
        if not client.count(self.name, exact=True).count:
            return None
        raise IndexFolderError(f"{self.address} is a collection that vsehub did not make: name another")

    def stamp(self):
        """See `Table`."""
        with self.errors():
            facts = self._known()
        return None if facts is None else (facts.get("made"), facts.get("generation"))

    def read(self) -> State | None:
        """See `Table`."""
        with self.errors():
            facts = self._known()
        if facts is None:
            return None
        try:
            self._next, self._made, dimension = int(facts["next"]), str(facts["made"]), int(facts["dimension"])
        except (KeyError, TypeError, ValueError):
            raise IndexFolderError(DAMAGED.format(self.address)) from None
        view = QdrantView(self, self._next, dimension)
        return State(facts, view, (self._made, facts.get("generation")))

    def write(self, rows: pa.Table, facts: dict, new: bool):
        """See `Table`: the rows are read once the facts say so; replaced rows are missing until then."""
        from qdrant_client import models

        with self.errors():
            if new:
                self._create(facts)
            else:
                later = models.Filter(must=[numbered(gte=self._next)])
                self.client().delete(self.name, models.FilterSelector(filter=later), wait=True)
            for part in pieces(rows, max(1, REQUEST // (4 * facts["dimension"]))):
                self.client().upsert(self.name, points_of(part), wait=True)
            self._commit(facts, int(rows[NUMBER][-1].as_py()) + 1)

    def _create(self, facts: dict):
        from qdrant_client import models

        if not self.client().collection_exists(self.name):
            vectors = models.VectorParams(size=facts["dimension"], distance=models.Distance.DOT)  # of unit length
            self.client().create_collection(self.name, vectors_config=vectors)
        self.client().create_payload_index(self.name, NUMBER, models.PayloadSchemaType.INTEGER)
        self._next, self._made = 0, uuid.uuid4().hex
        self._commit(facts)

    def _commit(self, facts: dict, free: int | None = None):
        """Store facts, and the first number that is free from now on."""
        from qdrant_client import models

        free = self._next if free is None else free
        text = json.dumps({**facts, "next": free, "made": self._made})
        vector = [1.0] + [0.0] * (facts["dimension"] - 1)  # never searched: the point has no number
        self.client().upsert(
            self.name, [models.PointStruct(id=FACTS, vector=vector, payload={"facts": text})], wait=True
        )
        self._next = free

    def remove(self, ids: list[str], facts: dict):
        """See `Table`."""
        from qdrant_client import models

        with self.errors():
            for part in pieces(ids, REMOVED):
                chosen = models.PointIdsList(points=[point_id(name) for name in part])
                self.client().delete(self.name, chosen, wait=True)
            self._commit(facts)

    def note(self, facts: dict):
        """See `Table`."""
        with self.errors():
            self._commit(facts)

    def tidy(self, kind: str):
        """See `Table`: a server does that by itself."""

    @contextlib.contextmanager
    def errors(self):
        """Turn an error of Qdrant into one line."""
        try:
            yield
        except (IndexFolderError, ImportError, MemoryError):
            raise
        except Exception as error:  # of qdrant-client, httpx, pydantic and, of its local mode, ValueError
            status = getattr(error, "status_code", None)
            if status in (401, 403):
                raise IndexFolderError(f"{self.address}: Qdrant refuses the key; set {KEY}") from None
            if status is not None or not type(error).__module__.startswith("qdrant_client"):
                raise IndexFolderError(f"{self.address}: Qdrant refuses ({_short(error)})") from None
            raise IndexFolderError(
                f"{self.address} cannot be reached ({_short(error)}): is the server running, and is this its REST port?"
            ) from None


def _short(error: Exception) -> str:
    """The beginning of an error, as one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return shortened(text)


__all__ = ["QdrantTable", "connect"]
