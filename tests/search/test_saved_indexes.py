"""`VectorIndex.save`: the copy is whole, its graph too, and a copy that fails leaves both folders as they were."""

import json
import os

import numpy as np
import pytest

from vsehub.search import approximate, vector_index
from vsehub.search.index_store import IndexFolderError
from vsehub.search.vector_index import VectorIndex


def cloud(rows, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, 16))


def items(first, last):
    return [{"id": str(n)} for n in range(first, last)]


def hits_of(index):
    return [[index.items(rows), scores.tolist()] for rows, scores in index.search(cloud(5, seed=9), 7, exact=True)]


@pytest.fixture
def indexed(tmp_path):
    """An HNSW index of 3000 rows in the folder `a`, opened."""
    pytest.importorskip("faiss")
    index = VectorIndex.create(tmp_path / "a", kind="hnsw")
    index.add(cloud(3000), items(0, 3000))
    index.compact()
    return VectorIndex.open(tmp_path / "a")


CHANGES = {
    "nothing": lambda index: None,
    "rows beside the graph": lambda index: index.add(cloud(50, seed=1), items(3000, 3050), merge=False),
    "deleted rows": lambda index: index.delete(["1", "2"]),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("origin", ["opened", "in memory"])
def test_a_graph_is_saved_with_its_index(tmp_path, indexed, change, origin):
    if origin == "in memory":
        indexed = VectorIndex(kind="hnsw")
        indexed.add(cloud(3000), items(0, 3000))
    CHANGES[change](indexed)
    expected, rows = hits_of(indexed), len(indexed)
    indexed.save(tmp_path / "b")
    for index in (indexed, VectorIndex.open(tmp_path / "b")):
        assert index.folder == tmp_path / "b" and hits_of(index) == expected
        assert index.snapshot.graph.ntotal == index.snapshot.graph_rows == rows
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert set(os.listdir(tmp_path / "b")) - {".lock"} == {"manifest.json", *manifest["files"]}
    index.add(cloud(3000, seed=2), items(5000, 8000))  # and the graph grows there
    assert VectorIndex.open(tmp_path / "b").snapshot.graph_rows == rows + 3000


def test_an_index_is_saved_where_its_graph_cannot_be_read(tmp_path, indexed, monkeypatch):
    for module in (approximate, vector_index):
        monkeypatch.setattr(module, "load_faiss", lambda: None)
    expected = hits_of(indexed)
    VectorIndex.open(tmp_path / "a").save(tmp_path / "b")
    monkeypatch.undo()
    index = VectorIndex.open(tmp_path / "b")
    assert hits_of(index) == expected and index.snapshot.graph_rows == 0
    index.compact()
    assert index.snapshot.graph_rows == 3000


def test_a_save_that_fails_leaves_nothing(tmp_path, indexed, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "vectors-mine.npy").write_text("mine")
    for target in (approximate, "write"), (vector_index.pq, "write_table"), (vector_index.Store, "commit"):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr(*target, full)
            indexed.save(tmp_path / "b")
        assert set(os.listdir(tmp_path / "b")) - {".lock"} == {"vectors-mine.npy"}
    with pytest.raises(IndexFolderError, match="holds no index"):
        VectorIndex.open(tmp_path / "b")
    assert indexed.folder == tmp_path / "a" and indexed.delete(["5"]) == 1  # it still is the index of `a`
    assert len(VectorIndex.open(tmp_path / "a")) == 2999
    indexed.save(tmp_path / "b")
    assert len(VectorIndex.open(tmp_path / "b")) == 2999


def test_an_index_is_saved_that_another_writer_has_changed_meanwhile(tmp_path, indexed):
    expected = hits_of(indexed)
    indexed.add(cloud(50, seed=1), items(3000, 3050), merge=False)
    indexed.delete([str(n) for n in range(3000, 3050)])
    VectorIndex.open(tmp_path / "a").delete([str(n) for n in range(1000)])  # removes the files of `indexed`
    indexed.save(tmp_path / "b")
    assert hits_of(VectorIndex.open(tmp_path / "b")) == expected
