"""Qdrant: changes that stop halfway, its own collections, keys, errors, and a missing extra."""

import json
import sys

import numpy as np
import pytest

from vsehub.search.index_store import IndexFolderError
from vsehub.search.stores import qdrant as module
from vsehub.search.stores.address import table_at
from vsehub.search.stores.copies import kept_in
from vsehub.search.stores.places import check_options, holds_index, open_index

pytest.importorskip("qdrant_client")
ADDRESS = "qdrant://localhost:6333/images"
REAL = module.connect


@pytest.fixture
def index(qdrant, local):
    mine = local()
    mine.add(np.eye(4), [{"id": f"p{n}", "size": n} for n in range(4)])
    return kept_in(mine, ADDRESS)


def hits(index, k=10):
    now = index.snapshot
    return [item["id"] for item in now.items(now.search(np.eye(4)[:1], k)[0][0])]


def test_rows_of_a_writer_that_was_killed_are_not_read_and_removed_by_the_next(index, qdrant, monkeypatch):
    rows, real, sent = [{"id": name} for name in ("p0", "x", "y")], qdrant.upsert, []

    def dying(name, points, **options):
        sent.append(points)
        if len(sent) > 2:
            raise ConnectionError("killed")
        return real(name, points, **options)

    monkeypatch.setattr(module, "REQUEST", 16)  # one row in a request
    with monkeypatch.context() as patch:
        patch.setattr(qdrant, "upsert", dying)
        with pytest.raises(IndexFolderError, match="killed"):
            index.add(np.eye(4)[[0, 0, 0]], rows)
    assert qdrant.count("images").count == 1 + 4 + 1  # the facts, p0 to p3 of which p0 is replaced, and x
    again = open_index(ADDRESS)
    assert hits(again) == ["p1", "p2", "p3"]
    again.add(np.eye(4)[[1]], [{"id": "z"}])
    assert qdrant.count("images").count == 1 + 4
    again.add(np.eye(4)[[0, 0, 0]], rows)  # the same command goes on
    assert hits(open_index(ADDRESS)) == ["p0", "x", "y", "p1", "p2", "p3", "z"]


def test_an_object_whose_change_failed_adds_no_half_of_it_later(index, qdrant, monkeypatch):
    real, sent = qdrant.upsert, []

    def dying(name, points, **options):
        sent.append(points)
        if len(sent) in (2, 5):
            raise ConnectionError("lost")
        return real(name, points, **options)

    monkeypatch.setattr(module, "REQUEST", 16)
    monkeypatch.setattr(qdrant, "upsert", dying)
    for _ in range(2):  # before the second row, then before the commit
        with pytest.raises(IndexFolderError, match="lost"):
            index.add(np.eye(4)[[0, 0]], [{"id": "x"}, {"id": "y"}])
    index.add(np.eye(4)[[1]], [{"id": "z"}])
    assert hits(index) == ["p0", "p1", "p2", "p3", "z"] == hits(open_index(ADDRESS))


def test_a_state_shows_no_row_that_is_added_later(index):
    now, other = index.snapshot, open_index(ADDRESS)
    other.add(np.eye(4)[[0, 0]], [{"id": "new"}, {"id": "p3"}])
    assert hits(index) == ["p0", "p1", "p2"] and now.total == 4
    other.delete(["p1"])
    with pytest.raises(IndexFolderError, match="was changed while it was searched"):
        type(now)(now._view, now.name, 4).items([1])
    assert hits(open_index(ADDRESS)) == ["p0", "new", "p3", "p2"]


def test_collections_of_others_are_refused_and_one_that_was_only_begun_is_used(qdrant, local):
    from qdrant_client import models

    vectors = models.VectorParams(size=4, distance=models.Distance.COSINE)
    for name in "mine", "images":
        qdrant.create_collection(name, vectors_config=vectors)
    qdrant.upsert("mine", [models.PointStruct(id=1, vector=[1, 0, 0, 0], payload={})])
    with pytest.raises(IndexFolderError, match="is a collection that vsehub did not make"):
        open_index("qdrant://localhost/mine")
    assert not holds_index(ADDRESS)
    mine = local()
    mine.add(np.eye(4), [{"id": f"p{n}"} for n in range(4)])
    assert hits(kept_in(mine, ADDRESS)) == ["p0", "p1", "p2", "p3"]


def test_damaged_facts_are_one_line(index, qdrant):
    for text, told in ('{"format": 1}', "is damaged"), ("[1]", "is damaged"), ("{", "Qdrant refuses"):
        qdrant.set_payload("images", {"facts": text}, points=[module.FACTS])
        with pytest.raises(IndexFolderError, match=told):
            open_index(ADDRESS)
    qdrant.set_payload("images", {"facts": "[1]"}, points=[module.FACTS])
    with pytest.raises(IndexFolderError, match="is damaged"):
        holds_index(ADDRESS)


def test_qdrant_itself_reads_the_rows(index, qdrant):
    points = qdrant.query_points("images", query=[0.0, 1.0, 0.0, 0.0], limit=1, with_payload=True).points
    assert points[0].payload == {"id": "p1", "size": 1, "number": 1}


def test_a_graph_is_used_where_the_index_asks_for_one(index, qdrant, monkeypatch):
    check_options(ADDRESS, "hnsw", None)
    index.note(kind="hnsw")
    exact, real = [], qdrant.query_points

    def seen(name, search_params, **options):
        exact.append(search_params.exact)
        return real(name, search_params=search_params, **options)

    monkeypatch.setattr(qdrant, "query_points", seen)
    assert hits(open_index(ADDRESS), 1) == ["p0"]
    open_index(ADDRESS).search(np.eye(4)[:1], 1, where=[True, True, False, False])
    assert exact == [False, True]


def test_a_server_that_cannot_be_reached_is_one_line(monkeypatch):
    with pytest.raises(IndexFolderError, match="qdrant://127.0.0.1:9/images cannot be reached") as error:
        open_index("qdrant://127.0.0.1:9/images")
    assert "\n" not in str(error.value)


class RefusalError(Exception):
    """As qdrant-client raises it."""

    def __init__(self, status: int):
        super().__init__(f"Unexpected Response: {status}\nRaw response content: ...")
        self.status_code = status


@pytest.mark.parametrize(
    ("status", "told"), [(401, "refuses the key; set QDRANT_API_KEY"), (500, "Unexpected Response")]
)
def test_what_a_server_refuses_is_one_line(qdrant, monkeypatch, status, told):
    monkeypatch.setattr(qdrant, "collection_exists", lambda name: (_ for _ in ()).throw(RefusalError(status)))
    with pytest.raises(IndexFolderError, match=told) as error:
        open_index(ADDRESS)
    assert "\n" not in str(error.value)


def test_a_key_is_read_from_the_environment_and_not_sent_in_the_clear(monkeypatch, index, qdrant):
    monkeypatch.setenv(module.KEY, "hidden")
    with pytest.raises(ValueError, match="unencrypted: write qdrant\\+https://") as error:
        REAL("qdrant", "db.example", 6333, 5)
    assert "hidden" not in str(error.value)
    REAL("qdrant+https", "db.example", 6333, 5).close()
    index.note(unfinished=True)
    stored = json.dumps([point.payload for point in qdrant.scroll("images", limit=10)[0]])
    assert "hidden" not in stored and "hidden" not in index.place


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(ImportError, match=r'pip install "vsehub\[qdrant\]"'):
        table_at(ADDRESS).stamp()
