"""Places for indexes: in every store that is installed, without a server."""

import pytest

from vsehub.search.vector_index import VectorIndex

MODEL = {"id": "org/model", "revision": None, "digest": "a" * 64}


@pytest.fixture(params=["lance"])
def address(request, tmp_path):
    """The address of an index that is not there yet."""
    pytest.importorskip("lancedb")
    return f"lance://{tmp_path}/db/images"


@pytest.fixture
def local():
    """A function: -> an empty index in memory, of the model of `MODEL`."""
    return lambda: VectorIndex(MODEL)
