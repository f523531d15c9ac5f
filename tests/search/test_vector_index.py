"""The durable index: brute force, deletes and merges, every engine, faults at every step, other models."""

import json
import multiprocessing
import os
import pkgutil
import shutil
import signal

import numpy as np
import pytest
from clouds import cloud

from vsehub.search import approximate as search_graph
from vsehub.search import nearest, snapshot, vector_index
from vsehub.search.index_store import IndexFolderError
from vsehub.search.vector_index import VectorIndex

MODEL = {"id": "org/model", "revision": None, "digest": "a" * 64}
ENGINES = ["numpy", "faiss"]


@pytest.fixture(params=ENGINES)
def engine(request, monkeypatch):
    if request.param == "faiss":
        pytest.importorskip("faiss")
    else:
        monkeypatch.setattr(nearest, "load_faiss", lambda: None)
        monkeypatch.setattr(search_graph, "load_faiss", lambda: None)
        monkeypatch.setattr(vector_index, "load_faiss", lambda: None)
        monkeypatch.setattr(snapshot, "load_faiss", lambda: None)
    return request.param


def items(names):
    return [{"id": str(name), "caption": f"caption {name}"} for name in names]


def brute_force(known: dict, query, k):
    """Ids by cosine in float64; the index is asked for ids, so ties do not matter here."""
    scores = {name: float(vector.astype(np.float64) @ query.astype(np.float64)) for name, vector in known.items()}
    return sorted(scores, key=lambda name: -scores[name])[:k]


def ids_of(index, query, k, **kwargs):
    (rows, _), *_ = index.search(query[None], k, **kwargs)
    return [item["id"] for item in index.items(rows)]


def check(index, known, k=7):
    assert len(index) == len(known)
    for query in cloud(5, seed=99):
        assert ids_of(index, query, k) == brute_force(known, query, k)


def test_any_sequence_of_changes_is_brute_force_in_memory_and_in_a_folder(engine, tmp_path):
    generator, known = np.random.default_rng(1), {}
    index, memory = VectorIndex.create(tmp_path / "index", MODEL), VectorIndex(MODEL)
    for step in range(40):
        if known and step % 5 == 4:
            gone = generator.choice(sorted(known), size=min(len(known), int(generator.integers(1, 30))), replace=False)
            assert index.delete(gone) == memory.delete(gone) == len(gone)
            for name in gone:
                del known[name]
        else:
            names = sorted({f"{n}" for n in generator.integers(0, 400, int(generator.integers(1, 60)))})  # some again
            vectors = cloud(len(names), seed=100 + step)
            index.add(vectors, items(names))
            memory.add(vectors, items(names))
            known |= dict(zip(names, vectors))
        if step % 7 == 0:
            index = VectorIndex.open(tmp_path / "index")
        check(index, known)
        check(memory, known)
    assert len(index.snapshot.segments) <= 10
    index.compact()
    assert len(index.snapshot.segments) == 1 and not index.snapshot.deleted.any()
    check(VectorIndex.open(tmp_path / "index"), known)
    memory.save(tmp_path / "saved")
    check(VectorIndex.open(tmp_path / "saved"), known)
    index.delete(list(known))
    index = VectorIndex.open(tmp_path / "index")
    assert len(index) == 0 and ids_of(index, cloud(1)[0], 3) == []


def test_engines_agree_on_ids_where_scores_tie(tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    base = cloud(30)
    vectors = np.concatenate([base] * 40)  # each vector 40 times, more than any margin
    index = VectorIndex(MODEL)
    index.add(vectors, items(range(len(vectors))))
    queries = np.concatenate([base[:5], cloud(5, seed=3)])
    with_faiss = index.search(queries, 50)
    monkeypatch.setattr(nearest, "load_faiss", lambda: None)
    for (rows, scores), (other, others) in zip(with_faiss, index.search(queries, 50)):
        assert rows.tolist() == other.tolist() and scores.tolist() == others.tolist()
        assert rows[:40].tolist() == sorted(rows[:40].tolist())  # ties by row


def test_ties_go_by_row_beside_a_segment_that_has_nothing_near(engine):
    index, query = VectorIndex(MODEL), cloud(1)[0]
    index.add(np.tile(query, (1000, 1)), items(range(1000)), merge=False)
    index.add(cloud(200, seed=1) - 3 * query, items(range(1000, 1200)), merge=False)
    assert len(index.snapshot.segments) == 2
    (rows, _), *_ = index.search(query[None], 10)
    assert rows.tolist() == list(range(10))


def test_large_batches_and_masks_are_brute_force(engine):
    vectors, queries = cloud(3000), cloud(40, seed=5)
    index = VectorIndex(MODEL)
    index.add(vectors[:2000], items(range(2000)))
    index.add(vectors[2000:], items(range(2000, 3000)))
    where = np.arange(3000) % 3 == 0
    for mask in (None, where):
        exact = np.where(True if mask is None else mask, queries.astype(np.float64) @ vectors.T.astype(np.float64), -2)
        for (rows, scores), expected in zip(index.search(queries, 9, where=mask), np.argsort(-exact, 1)[:, :9]):
            assert rows.tolist() == expected.tolist() and (np.diff(scores) <= 0).all()


def test_a_graph_answers_for_its_rows_and_the_rest_is_searched_beside_it(tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    vectors = cloud(3000)
    index = VectorIndex.create(tmp_path, MODEL, "hnsw")
    index.add(vectors[:2900], items(range(2900)))
    assert index.snapshot.graph_rows == 2900
    index.add(vectors[2900:], items(range(2900, 3000)))
    index.delete([str(n) for n in range(0, 3000, 10)])
    index = VectorIndex.open(tmp_path)
    assert index.snapshot.graph_rows == 2900 and len(index) == 2700
    queries, hits = cloud(50, seed=8), 0
    for (rows, _), (exact, _) in zip(index.search(queries, 10), index.search(queries, 10, exact=True)):
        hits += len(set(rows) & set(exact))
        assert len(rows) == 10 and not (rows % 10 == 0).any()
    assert hits / 500 > 0.9
    assert ids_of(index, vectors[2999], 1) == ["2999"]
    index.compact()
    assert index.snapshot.graph_rows == 2700 and ids_of(VectorIndex.open(tmp_path), vectors[2999], 1) == ["2999"]
    monkeypatch.setattr(snapshot, "load_faiss", lambda: None)
    monkeypatch.setattr(vector_index, "load_faiss", lambda: None)  # without faiss: exact, and changes keep it whole
    monkeypatch.setattr(nearest, "load_faiss", lambda: None)
    index = VectorIndex.open(tmp_path)
    index.add(cloud(1, seed=77), items(["new"]))
    assert ids_of(index, cloud(1, seed=77)[0], 1) == ["new"]


def test_an_index_of_kind_ivf_of_an_earlier_version_is_searched_exactly_until_it_changes(tmp_path):
    faiss, vectors = pytest.importorskip("faiss"), cloud(3000)
    VectorIndex.create(tmp_path, MODEL, "hnsw").add(vectors, items(range(3000)))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    lists = faiss.IndexIVFFlat(faiss.IndexFlatIP(16), 16, 70, faiss.METRIC_INNER_PRODUCT)
    lists.train(vectors.astype(np.float32))
    lists.add(vectors.astype(np.float32))
    faiss.write_index(lists, str(tmp_path / manifest["graph"]))
    manifest["files"][manifest["graph"]] = (tmp_path / manifest["graph"]).stat().st_size
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"kind": "ivf"}))
    index, queries = VectorIndex.open(tmp_path), cloud(20, seed=8)
    for (rows, _), (exact, _) in zip(index.search(queries, 10), index.search(queries, 10, exact=True)):
        assert rows.tolist() == exact.tolist()
    index.compact()
    index = VectorIndex.open(tmp_path)
    assert index.kind == "hnsw" and index.snapshot.graph_rows == 3000
    assert not (tmp_path / manifest["graph"]).exists()
    with pytest.raises(ValueError, match="no index kind 'ivf'"):
        VectorIndex(MODEL, "ivf")


def test_the_few_rows_that_may_be_found_are_found_beside_a_graph():
    pytest.importorskip("faiss")
    pictures, texts = cloud(3000) + np.eye(16)[0], cloud(40, seed=1) - np.eye(16)[0]
    index = VectorIndex(MODEL, "hnsw")
    index.add(np.concatenate([pictures, texts]), items(range(3040)))
    assert index.snapshot.graph_rows == 3040
    where = np.arange(3040) >= 3000
    for rows, _ in index.search(pictures[:9], 7, where=where):
        assert len(rows) == 7 and (rows >= 3000).all()


def test_a_walk_that_meets_too_few_of_many_equal_vectors_is_searched_exactly():
    pytest.importorskip("faiss")
    index = VectorIndex(MODEL, "hnsw")
    index.add(np.repeat(cloud(30), 100, axis=0), items(range(3000)))
    index.delete(["7"])
    queries = cloud(20, seed=8)
    for k in (500, 2999, 5000):
        for (rows, scores), (_, exact) in zip(index.search(queries, k), index.search(queries, k, exact=True)):
            assert len(rows) == min(k, 2999) and scores.tolist() == exact.tolist()


def test_merging_keeps_a_graph_that_still_fits_and_the_rest_is_found_beside_it(tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    vectors = cloud(2600)
    index = VectorIndex.create(tmp_path, MODEL, "hnsw")
    index.add(vectors[:2500], items(range(2500)))
    built = []
    monkeypatch.setattr(search_graph, "build", lambda *args: built.append(args))
    for start in range(2500, 2600, 10):
        index.add(vectors[start : start + 10], items(range(start, start + 10)))
    index._rewrite(0, index.snapshot.deleted)  # all in one segment, the graph covers its first rows
    assert len(index.snapshot.segments) == 1 and index.snapshot.graph_rows == 2500
    for n in (0, 2499, 2500, 2599):
        assert ids_of(VectorIndex.open(tmp_path), vectors[n], 1) == [str(n)]
    index.compact()
    assert index.snapshot.graph_rows == 2600 and not built
    assert all(ids_of(VectorIndex.open(tmp_path), vectors[n], 1) == [str(n)] for n in (0, 2500, 2599))


def test_a_cut_off_may_leave_nothing():
    index = VectorIndex(MODEL)
    index.add(np.eye(4), items("abcd"))
    (rows, scores), (none, _) = index.search([[1, 0.1, 0, 0], [1, 1, 1, 1]], 3, cutoff=0.6)
    assert rows.tolist() == [0] and scores[0] > 0.99 and none.tolist() == []


@pytest.mark.parametrize(
    ("vectors", "names", "said"),
    [
        ([[1, np.nan]], "a", "vector 0 is not finite"),
        ([[1, 0], [0, 0]], "ab", "vector 1 is zero"),
        ([[1, 0], [0, 1]], "aa", "'a' is given twice"),
        ([[1, 0]], "ab", "1 vectors for 2 items"),
        ([[1, 0, 0]], "a", "holds vectors of dimension 2"),
        ([[1, 0]], [""], "needs an id"),
    ],
)
def test_wrong_input_changes_nothing(vectors, names, said, tmp_path):
    index = VectorIndex.create(tmp_path, MODEL)
    index.add([[0.6, 0.8]], items(["kept"]))
    listed = sorted(os.listdir(tmp_path))
    named = items(names) if names != [""] else [{"id": ""}]
    with pytest.raises(ValueError, match=said):
        index.add(vectors, named)
    assert sorted(os.listdir(tmp_path)) == listed and ids_of(index, np.array([1.0, 0]), 5) == ["kept"]


def test_wrong_queries_are_refused():
    index = VectorIndex(MODEL)
    index.add([[1, 0]], items("a"))
    for query, said in ([[np.nan, 1]], "query 0 is not finite"), ([[0, 0]], "zero"), ([[1, 0, 0]], "dimension 2"):
        with pytest.raises(ValueError, match=said):
            index.search(query)
    with pytest.raises(ValueError, match="unknown|no field"):
        index.add([[1, 0]], [{"id": "b", "colour": "red"}])


def test_another_model_is_refused_by_name_and_remedy(tmp_path):
    index = VectorIndex.create(tmp_path, MODEL)
    index.check_model(dict(MODEL, id="a copy elsewhere"))
    with pytest.raises(IndexFolderError, match=r"made with org/model .*same name, other weights.*another index"):
        index.check_model(dict(MODEL, digest="b" * 64))
    with pytest.raises(IndexFolderError, match="not with org/other at 0123456789ab"):
        index.check_model({"id": "org/other", "revision": "0123456789abcdef", "digest": "c" * 64})
    with pytest.raises(IndexFolderError, match="holds an index already"):
        VectorIndex.create(tmp_path, MODEL)


@pytest.mark.parametrize("wait", [0.0, 1.0])
def test_a_change_after_the_folder_was_moved_makes_no_new_one(wait, tmp_path):
    VectorIndex.create(tmp_path / "old", MODEL)
    index = VectorIndex.open(tmp_path / "old", wait)
    (tmp_path / "old").rename(tmp_path / "new")
    with pytest.raises(IndexFolderError, match="old was moved or deleted since it was opened: open it where it is now"):
        index.add(cloud(3), items(range(3)))
    assert not (tmp_path / "old").exists()


def test_damage_is_one_error_that_names_the_file(tmp_path):
    with pytest.raises(IndexFolderError, match="holds no index"):
        VectorIndex.open(tmp_path / "nowhere")
    index = VectorIndex.create(tmp_path, MODEL)
    index.add(cloud(50), items(range(50)))
    for name in [*index.snapshot.segments[0].files]:
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(IndexFolderError, match=f"{name} has .* bytes, not"):
            VectorIndex.open(tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(IndexFolderError, match=f"{name} is missing"):
            VectorIndex.open(tmp_path)
        (tmp_path / name).write_bytes(whole)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(IndexFolderError, match="format 99.*update vsehub"):
        VectorIndex.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 1, "gen')
    with pytest.raises(IndexFolderError, match="no manifest"):
        VectorIndex.open(tmp_path)


@pytest.mark.parametrize("opened", ["index_segments.Segment.open", "approximate.read"])
def test_a_writer_between_the_manifest_and_its_files_is_no_damage(tmp_path, monkeypatch, opened):
    pytest.importorskip("faiss")
    VectorIndex.create(tmp_path, MODEL, "hnsw").add(cloud(3000), items(range(3000)))
    writer, target = VectorIndex.open(tmp_path), f"vsehub.search.{opened}"
    real, due = pkgutil.resolve_name(target), [[str(n) for n in range(1000)]]

    def late(*args, **kwargs):
        if due:
            writer.delete(due.pop())
        return real(*args, **kwargs)

    monkeypatch.setattr(target, late)
    assert len(VectorIndex.open(tmp_path)) == 2000


def test_an_index_that_was_made_again_in_the_folder_is_another(tmp_path):
    first = VectorIndex.create(tmp_path, MODEL)
    shutil.rmtree(tmp_path)
    VectorIndex.create(tmp_path, MODEL)
    with pytest.raises(IndexFolderError, match="changed since it was opened"):
        first.add(cloud(10), items(range(10)))


def test_a_change_behind_its_back_is_noticed(tmp_path):
    first = VectorIndex.create(tmp_path, MODEL)
    second = VectorIndex.open(tmp_path)
    first.add(cloud(10), items(range(10)))
    assert len(second) == 0 and second.search(cloud(1))[0][0].tolist() == []  # a reader keeps its generation
    with pytest.raises(IndexFolderError, match="changed since it was opened"):
        second.add(cloud(1), items(["x"]))
    reader = VectorIndex.open(tmp_path)
    first.add(cloud(10, seed=1), items(range(10)))
    assert ids_of(reader, cloud(10)[3], 1) == ["3"]  # its files are gone, its maps are not


CHANGES = {
    "add": lambda index: index.add(cloud(40, seed=7), items(range(1000, 1040))),
    "replace": lambda index: index.add(cloud(40, seed=7), items(range(40))),
    "delete": lambda index: index.delete([str(n) for n in range(5)]),
    "delete most": lambda index: index.delete([str(n) for n in range(80)]),
    "compact": lambda index: index.compact(),
    "note": lambda index: index.note(cutoff={"text": 0.5}),
    "graph": lambda index: (index.note(kind="hnsw"), index.compact()),
}


def prepared(folder):
    index = VectorIndex.create(folder, MODEL)
    index.add(cloud(100), items(range(100)))
    index.add(cloud(20, seed=1), items(range(200, 220)))
    return index


def content(folder):
    index = VectorIndex.open(folder)
    table = {
        item["id"]: vector for vectors, items in index.batches() for vector, item in zip(vectors, items.to_pylist())
    }
    return {name: vector.tobytes() for name, vector in table.items()}, index.cutoff


def steps_of(change, folder, monkeypatch, at, effect):
    """Run a change that meets `effect` at its step number `at` (fsync or rename); returns how many steps it came to."""
    count = 0

    def stepping(real):
        def step(*args):
            nonlocal count
            count += 1
            if count == at:
                effect()
            return real(*args)

        return step

    index = VectorIndex.open(folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", stepping(os.fsync))
        patch.setattr(os, "replace", stepping(os.replace))
        try:
            CHANGES[change](index)
        except OSError:
            assert at
    return count


def disk_full():
    raise OSError(28, "No space left on device")


SLOW = ("delete", "delete most", "compact")


@pytest.mark.parametrize("change", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in CHANGES])
def test_a_fault_at_any_step_leaves_the_old_index_or_the_new(change, tmp_path, monkeypatch):
    if change == "graph":
        pytest.importorskip("faiss")
    prepared(tmp_path / "whole")
    before = content(tmp_path / "whole")
    steps = steps_of(change, tmp_path / "whole", monkeypatch, 0, None)
    after = content(tmp_path / "whole")
    assert steps >= 3
    for at in range(1, steps + 1):
        for way in ("raises", "killed"):
            folder = tmp_path / f"{at}-{way}"
            prepared(folder)
            if way == "raises":
                steps_of(change, folder, monkeypatch, at, disk_full)
            else:
                child = multiprocessing.get_context("fork").Process(
                    target=steps_of,
                    args=(change, folder, monkeypatch, at, lambda: os.kill(os.getpid(), signal.SIGKILL)),
                )
                child.start()
                child.join(60)
                assert child.exitcode == -signal.SIGKILL
            assert content(folder) in (before, after)
            assert at < steps or content(folder) == after  # the last step is after the rename
            CHANGES[change](VectorIndex.open(folder))  # and it can be done again
            assert content(folder) == after
            VectorIndex.open(folder).compact()
            named = set(json.loads((folder / "manifest.json").read_text())["files"])
            assert set(os.listdir(folder)) <= named | {"manifest.json", ".lock"}  # nothing is left over


@pytest.mark.parametrize("name", ["vectors", "items"])
def test_zeroed_files_are_refused_with_the_remedy(tmp_path, name):
    index = VectorIndex.create(tmp_path / "index")
    index.add(np.eye(3), [{"id": name} for name in "abc"])
    (path,) = (tmp_path / "index").glob(f"{name}-*")
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(IndexFolderError, match="index again"):
        VectorIndex.open(tmp_path / "index").items([0])


def test_files_of_others_in_the_folder_are_left_alone(tmp_path):
    others = ["notes.tmp", "vectors-mine.npy", "items-2024.parquet", "graph-of-friends.faiss"]
    for name in others:
        (tmp_path / name).write_text("mine")
    index = VectorIndex.create(tmp_path)
    for _ in range(3):
        index.add(np.eye(3), [{"id": name} for name in "abc"])
    assert all((tmp_path / name).read_text() == "mine" for name in others)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file, not a folder"):
        VectorIndex.create(tmp_path / "file")


def test_links_planted_in_a_received_index_are_not_written_through(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    prepared(tmp_path / "index")
    names = [f"{kind}-{n:06}.{end}" for n in range(3, 9) for kind, end in PLANTED]
    for name in [*names, "manifest.json.tmp", ".manifest.json.lock"]:
        if not (tmp_path / "index" / name).exists():
            (tmp_path / "index" / name).symlink_to(victim)
    index = VectorIndex.open(tmp_path / "index")
    index.add(cloud(40, seed=7), items(range(1000, 1040)))
    index.delete(["1", "2"])
    index.compact()
    assert victim.read_text() == "precious" and len(VectorIndex.open(tmp_path / "index")) == 158
    (tmp_path / "index" / ".lock").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        index.delete(["3"])
    assert victim.read_text() == "precious"


PLANTED = [("vectors", "npy"), ("items", "parquet"), ("deleted", "npy"), ("graph", "faiss")]
