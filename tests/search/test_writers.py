"""Two writers of one index: the second one waits, gives up after its time, or is refused."""

import multiprocessing
import shutil
import time

import pytest
from clouds import cloud

from vsehub.search.index_store import IndexFolderError
from vsehub.search.vector_index import VectorIndex

MODEL = {"id": "org/model", "revision": None, "digest": "a" * 64}


def items(names):
    return [{"id": str(name)} for name in names]


def hold(folder, held, seconds, change):
    """In another process: keep the index locked for a while, then make a change."""
    index = VectorIndex.open(folder)
    with index.lock():
        held.set()
        time.sleep(seconds)
        change(index)


@pytest.fixture
def other_writer(tmp_path):
    """A function: seconds, change -> another process that holds the lock so long and then makes the change."""
    started = []

    def start(seconds, change=lambda index: None):
        processes = multiprocessing.get_context("fork")
        held = processes.Event()
        started.append(processes.Process(target=hold, args=(tmp_path / "index", held, seconds, change)))
        started[-1].start()
        assert held.wait(30)
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.join(30)


def test_a_writer_that_waits_changes_what_the_other_wrote(tmp_path, other_writer, caplog):
    VectorIndex.create(tmp_path / "index", MODEL).add(cloud(5), items(range(5)))
    refused, patient = VectorIndex.open(tmp_path / "index"), VectorIndex.open(tmp_path / "index", wait=60)
    other = other_writer(1.0, lambda index: index.add(cloud(4, seed=1), items("abcd")))
    with pytest.raises(IndexFolderError, match=f"process {other.pid} is writing .*: wait for it"):
        refused.add(cloud(1, seed=2), items(["new"]))
    patient.add(cloud(1, seed=2), items(["new"]))
    assert f"waiting for process {other.pid}, which is writing" in caplog.text and len(caplog.records) == 1
    assert sorted(VectorIndex.open(tmp_path / "index").column("id")) == sorted([*"01234abcd", "new"])
    assert patient.delete(["a"]) == 1 and len(patient) == 9  # it has taken the others' rows over


def test_a_writer_gives_up_after_its_time(tmp_path, other_writer):
    VectorIndex.create(tmp_path / "index", MODEL)
    other, index = other_writer(60), VectorIndex.open(tmp_path / "index", wait=0.3)
    with pytest.raises(IndexFolderError, match=f"process {other.pid} has been writing .* for 0.3 s: end it, or wait"):
        index.add(cloud(1), items("a"))
    assert len(index.search(cloud(1))[0][0]) == 0  # who searches never waits


def test_a_writer_that_waited_refuses_vectors_of_another_model(tmp_path):
    VectorIndex.create(tmp_path / "index", MODEL)
    index = VectorIndex.open(tmp_path / "index", wait=5)
    shutil.rmtree(tmp_path / "index")
    VectorIndex.create(tmp_path / "index", dict(MODEL, digest="b" * 64)).add(cloud(1), items("a"))
    with pytest.raises(IndexFolderError, match="now holds vectors of org/model .*: open it again"):
        index.add(cloud(1), items("b"))
