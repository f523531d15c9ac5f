"""HNSW over many rows: near, masked, written and read again."""

import numpy as np
import pytest
from clouds import cloud

from vsehub.search import approximate
from vsehub.search.approximate import LARGE, build, extend, kind_for, read, require_faiss, search, write

pytest.importorskip("faiss")


@pytest.fixture(scope="module")
def vectors():
    return cloud(2000)


@pytest.fixture(scope="module")
def graph(vectors):
    return build([vectors[:1200], vectors[1200:]])


def share_of_best(rows, vectors, queries, left_out=None):
    """Which part of the 10 nearest are among the rows that are met."""
    scores = queries @ vectors.T
    if left_out is not None:
        scores[:, left_out] = -np.inf
    best = np.argsort(-scores, axis=1)[:, :10]
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(rows, best)])


def test_most_of_the_nearest_are_met(graph, vectors):
    queries = cloud(50, seed=1)
    assert share_of_best(search(graph, queries, 10), vectors, queries) > 0.95


def test_rows_that_are_left_out_are_not_met(graph, vectors):
    queries, left_out = cloud(20, seed=1), np.zeros(5000, bool)  # the mask may be longer than the graph
    left_out[:1000] = True
    rows = search(graph, queries, 10, left_out)
    assert rows.min() >= 1000 and share_of_best(rows, vectors, queries, left_out[:2000]) > 0.9


def test_no_more_than_there_are_is_asked_for():
    for count in 10, 2_000_000_000:
        rows = search(build([cloud(3)]), cloud(2), count)
        assert rows.shape == (2, 3) and all(sorted(row) == [0, 1, 2] for row in rows.tolist())


def test_rows_may_be_added_in_parts_of_any_size(vectors, monkeypatch):
    monkeypatch.setattr(approximate, "ROWS_AT_ONCE", 70)
    graph = build([vectors[:100]])
    extend(graph, [vectors[100:150], vectors[150:400]])
    assert graph.ntotal == 400
    assert (search(graph, vectors[:400], 1)[:, 0] == np.arange(400)).mean() > 0.99


@pytest.mark.parametrize("memory_map", [True, False])
def test_a_graph_that_is_read_finds_what_it_found(graph, tmp_path, memory_map):
    queries = cloud(20, seed=2)
    write(graph, tmp_path / "graph.faiss")
    assert np.array_equal(search(read(tmp_path / "graph.faiss", memory_map), queries, 5), search(graph, queries, 5))


def test_a_graph_that_is_gone_is_not_a_damaged_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.faiss")
    (tmp_path / "torn.faiss").write_bytes(b"torn")
    with pytest.raises(RuntimeError):
        read(tmp_path / "torn.faiss")


def test_auto_goes_by_size():
    assert kind_for("auto", LARGE - 1) == "flat" and kind_for("auto", LARGE) == "hnsw"
    assert kind_for("flat", LARGE) == "flat" and kind_for("hnsw", 1) == "hnsw"
    with pytest.raises(ValueError, match="no index kind 'ivf'; there are auto, flat, hnsw"):
        kind_for("ivf", 1)


def test_a_missing_faiss_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(approximate, "load_faiss", lambda: None)
    with pytest.raises(ImportError, match=r"vsehub\[index\].*--kind flat"):
        require_faiss()
