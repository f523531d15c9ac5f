"""Places for indexes: in every store that is installed, without a server."""

import pytest

from vsehub.search.vector_index import VectorIndex

MODEL = {"id": "org/model", "revision": None, "digest": "a" * 64}


@pytest.fixture
def qdrant(monkeypatch):
    """A client of Qdrant without a server, which every table of this test gets."""
    pytest.importorskip("qdrant_client")
    from qdrant_client import QdrantClient

    client = QdrantClient(":memory:")
    monkeypatch.setattr("vsehub.search.stores.qdrant.connect", lambda *server: client)
    yield client
    client.close()


@pytest.fixture(params=["lance", "qdrant"])
def address(request, tmp_path):
    """The address of an index that is not there yet."""
    if request.param == "qdrant":
        request.getfixturevalue("qdrant")
        return "qdrant://localhost:6333/images"
    pytest.importorskip("lancedb")
    return f"lance://{tmp_path}/db/images"


@pytest.fixture
def local():
    """A function: -> an empty index in memory, of the model of `MODEL`."""
    return lambda: VectorIndex(MODEL)
