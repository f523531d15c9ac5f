"""Vectors in fewer bytes: what is decoded, scored, searched, kept by a change, and refused."""

import json
import tracemalloc

import numpy as np
import pytest

from vsehub.search import index_segments, nearest, vector_types
from vsehub.search.index_segments import write_vectors
from vsehub.search.index_store import IndexFolderError
from vsehub.search.mixed import centred, search_mixed
from vsehub.search.vector_index import VectorIndex
from vsehub.search.vector_types import UnitRows, encoded, opened, products

COMPACT = ["float16", "int8"]
NEAR = {"float32": 1e-7, "float16": 5e-4, "int8": 2e-2}  # length of the error of a unit vector of 64 numbers
BYTES = {"float32": 256, "float16": 128, "int8": 68}  # of a row of 64 numbers


def cloud(rows, seed=0, dimension=64):
    values = np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)
    values[:, 3] += 6  # as in CLIP, one number is large in every vector
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def items(names):
    return [{"id": str(name), "modality": "text" if int(name) % 3 == 0 else "image"} for name in names]


def stored(vectors, name):
    return opened(encoded(vectors, slice(0, len(vectors)), None, name), name, vectors.shape[1])


def built(name, folder=None, rows=300, kind="flat"):
    index = VectorIndex(kind=kind, vectors=name) if folder is None else VectorIndex.create(folder, None, kind, 0, name)
    index.add(cloud(rows), items(range(rows)))
    return index


def best(index, query, k, mask=None):
    """Rows and cosines in float64 of the vectors as they are stored."""
    scores = index.vectors(np.arange(len(index.alive))).astype(np.float64) @ query.astype(np.float64)
    scores[~(index.alive if mask is None else index.alive & mask)] = -2
    order = np.argsort(-scores, kind="stable")[:k]
    return order.tolist(), scores[order]


@pytest.mark.parametrize("name", COMPACT)
def test_a_row_is_near_what_it_was_and_keeps_its_bytes_in_a_copy(name):
    vectors = cloud(2500)
    compact = stored(vectors, name)
    decoded = compact[np.arange(2500)]
    assert decoded.dtype == np.float32 and np.linalg.norm(decoded - vectors, axis=1).max() < NEAR[name]
    assert abs(np.linalg.norm(decoded, axis=1) - 1).max() < compact.length_error
    again = encoded(compact, slice(0, 2500), np.arange(2500) % 2 == 0, name)
    assert np.array_equal(again, compact.stored[::2])
    assert np.array_equal(encoded(decoded, slice(0, 2500), None, name), compact.stored)  # and decoded, encoded again
    queries = cloud(4, seed=1)
    assert products(compact, queries, slice(10, 2400)) == pytest.approx(queries @ decoded[10:2400].T, abs=1e-6)
    assert np.array_equal(compact.since(2400)[:], decoded[2400:])


@pytest.mark.parametrize("name", COMPACT)
@pytest.mark.parametrize("engine", ["faiss", "numpy"])
def test_hits_are_those_of_the_stored_vectors_in_float64(name, engine, monkeypatch):
    if engine == "numpy":
        monkeypatch.setattr(nearest, "load_faiss", lambda: None)
    index = built(name, rows=2500)
    index.add(np.repeat(cloud(1, seed=5), 40, axis=0), items(range(5000, 5040)), merge=False)  # ties go by row
    index.delete([str(n) for n in range(0, 2500, 7)])
    mask = np.arange(len(index.alive)) % 2 == 0
    for query in cloud(6, seed=5):
        for where in (None, mask):
            (rows, scores), *_ = index.search(query[None], 12, where=where)
            expected, cosines = best(index, query, 12, where)
            assert rows.tolist() == expected and scores == pytest.approx(cosines, abs=1e-7)


@pytest.mark.parametrize("name", COMPACT)
def test_a_folder_holds_the_type_through_every_change(name, tmp_path):
    folder = tmp_path / "index"
    index = built(name, folder, 90)
    kept = {item["id"]: vector.tobytes() for item, vector in zip(index.items(range(90)), index.vectors(range(90)))}
    for step in range(5):
        index.add(cloud(30, seed=step), items(range(1000 + 30 * step, 1030 + 30 * step)))
        index.delete([str(step), str(1000 + step)])
        index = VectorIndex.open(folder)
    index.compact()
    index = VectorIndex.open(folder)
    assert index.vector_type == name and len(index.snapshot.segments) == 1
    assert (folder / index.snapshot.segments[0].files[0]).stat().st_size < BYTES[name] * len(index) + 300
    for vectors, table in index.batches():
        for vector, key in zip(vectors, table["id"].to_pylist()):
            assert key not in kept or kept[key] == vector.tobytes()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["format"] == 2 and manifest["vectors"] == name  # an earlier version says: update
    memory = VectorIndex(vectors=name)
    memory.add(cloud(20), items(range(20)))
    memory.save(tmp_path / "saved")
    assert np.array_equal(VectorIndex.open(tmp_path / "saved").vectors(range(20)), memory.vectors(range(20)))


def test_an_index_of_float32_is_of_the_format_that_earlier_versions_read(tmp_path):
    built("float32", tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["format"] == 1
    del manifest["vectors"]  # as they wrote it
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert VectorIndex.open(tmp_path).vector_type == "float32"


@pytest.mark.parametrize("change", [{"vectors": "float64"}, {"vectors": "float16"}, {"dimension": 32}])
def test_a_manifest_that_lies_about_them_is_refused(change, tmp_path):
    built("int8", tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(IndexFolderError, match="is damaged .*index again"):
        VectorIndex.open(tmp_path)


@pytest.mark.parametrize("name", COMPACT)
def test_a_graph_over_them_finds_the_same(name, tmp_path):
    pytest.importorskip("faiss")
    index = built(name, tmp_path, 3000, "hnsw")
    index.add(cloud(50, seed=3), items(range(9000, 9050)))
    index = VectorIndex.open(tmp_path)
    assert index.snapshot.graph_rows == 3000
    same = [len({*a} & {*b}) for (a, _), (b, _) in zip(*(index.search(cloud(40, 7), 10, exact=e) for e in (0, 1)))]
    assert sum(same) / 400 > 0.97
    index.compact()
    assert index.snapshot.graph_rows == 3050 and index.search(index.vectors([3049]), 1)[0][0].tolist() == [3049]


@pytest.mark.parametrize("name", COMPACT)
def test_pictures_and_texts_are_ranked_together_as_in_float64(name):
    index = built(name, rows=1500)
    now, texts = index.snapshot, index.snapshot.texts
    held = now.vectors(np.arange(1500))
    means = {"image": held[~texts].astype(float).mean(0), "text": held[texts].astype(float).mean(0)}
    gallery = centred(held, np.stack([means["image"], means["text"]])[texts.astype(int)])
    for query in gallery[:12]:
        rows, _ = search_mixed(now, query, means, 6)
        assert rows.tolist() == np.argsort(-(gallery @ query), kind="stable")[:6].tolist()


def test_another_type_than_that_of_the_index_is_refused():
    index = built("int8")
    index.check_vectors(None)
    index.check_vectors("int8")
    with pytest.raises(IndexFolderError, match="holds int8 vectors, and float32 were asked for: leave that out"):
        index.check_vectors("float32")
    for call in (index.check_vectors, lambda name: VectorIndex(vectors=name)):
        with pytest.raises(ValueError, match="cannot be stored as 'int4'; there are float32, float16, int8"):
            call("int4")


@pytest.mark.parametrize("name", COMPACT)
def test_a_search_never_decodes_all_at_once(name, tmp_path):
    index = built(name, tmp_path, 40_000)
    index.search(cloud(1), 5)
    tracemalloc.start()
    index.search(cloud(1, seed=9), 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40_000 * 64 * 4 / 5


def test_vectors_are_normalised_without_a_second_array(tmp_path, monkeypatch):
    monkeypatch.setattr(index_segments, "BLOCK", 1000)
    vectors = 3 * cloud(40_000)
    tracemalloc.start()
    write_vectors(tmp_path / "vectors.npy", [(UnitRows(vectors), None)], 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < vectors.nbytes / 5
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), vectors / 3, atol=1e-6)


def test_a_block_border_changes_nothing(monkeypatch):
    compact, queries = stored(cloud(100), "int8"), cloud(3, seed=2)
    whole = products(compact, queries, slice(None))
    monkeypatch.setattr(vector_types, "BLOCK", 7)
    assert products(compact, queries, slice(None)) == pytest.approx(whole, abs=1e-6)
    assert np.array_equal(UnitRows(cloud(100))[:], UnitRows(cloud(100))[np.arange(100)])
