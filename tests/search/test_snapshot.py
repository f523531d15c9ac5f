"""One state of an index: threads that search while another changes it get the hits of one moment."""

import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from clouds import cloud

from vsehub.search.retriever import Retriever
from vsehub.search.vector_index import VectorIndex

STAY, COME = 64, 40


class Known(Retriever):
    """A retriever whose queries are vectors: no model is needed."""

    def __init__(self, index):
        self.index = index
        self.encoder = SimpleNamespace(means=None)

    def embed_query(self, text=None, image=None, weight=0.5, plus=(), minus=(), means=None):
        return image


@pytest.fixture
def often(request):
    """Threads change places after every few steps."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_threads_that_search_while_another_changes_the_index_get_right_hits(kind, tmp_path, often):
    index = VectorIndex() if kind == "memory" else VectorIndex.create(tmp_path / "index")
    stay, come = cloud(STAY), cloud(COME, seed=1)
    names = [f"stay-{n}" for n in range(STAY)]
    index.add(np.concatenate([come, stay]), [{"id": f"come-{n}"} for n in range(COME)] + [{"id": n} for n in names])
    wrong, done = [], threading.Event()

    def searching(first):
        n = first
        while not done.is_set():
            n = (n + 1) % STAY
            try:
                hit = Known(index).search(image=stay[n], k=1, cutoff=None)[0]
                if hit.id != names[n] or hit.score < 0.999:
                    wrong.append((hit.id, names[n], hit.score))
            except Exception as error:
                wrong.append(repr(error))

    readers = [threading.Thread(target=searching, args=(n,)) for n in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(120 if kind == "memory" else 25):
        index.delete([f"come-{n}" for n in range(COME)])
        index.add(come, [{"id": f"come-{n}"} for n in range(COME)])
    done.set()
    for reader in readers:
        reader.join()
    assert not wrong, f"{len(wrong)}: {wrong[:3]}"


def test_threads_that_change_one_index_lose_no_row(tmp_path, often):
    index, failed = VectorIndex.create(tmp_path / "index"), []

    def adding(first):
        try:
            for n in range(8):
                index.add(cloud(2, seed=10 * first + n), [{"id": f"{first}-{n}-{m}"} for m in range(2)])
        except Exception as error:
            failed.append(repr(error))

    writers = [threading.Thread(target=adding, args=(n,)) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not failed and len(index) == len(VectorIndex.open(tmp_path / "index")) == 48


def test_a_graph_in_memory_grows_beside_the_one_that_is_searched():
    pytest.importorskip("faiss")
    index = VectorIndex(kind="hnsw")
    index.add(cloud(3000), [{"id": str(n)} for n in range(3000)])
    before = index.snapshot
    index.add(cloud(3000, seed=1), [{"id": f"new-{n}"} for n in range(3000)])
    index.compact()
    assert index.snapshot.graph.ntotal == 6000 and before.graph.ntotal == 3000
    rows, _ = before.search(cloud(1, seed=1), 10)[0]
    assert (rows < 3000).all() and len(before) == 3000


def test_an_item_that_was_deleted_is_not_proposed():
    index = VectorIndex()
    index.add(cloud(10), [{"id": f"photo{n}.jpg"} for n in range(10)])
    index.delete(["photo3.jpg"])
    assert index.snapshot.total == 10 and "photo3.jpg" not in index.snapshot.first("id", 10)
    with pytest.raises(ValueError, match=r"no item with the id 'photo3.jpg'; did you mean 'photo[0124-9].jpg'"):
        index.snapshot.row_of("photo3.jpg")


def test_a_name_that_is_not_unicode_is_no_item():
    index = VectorIndex()
    index.add(cloud(2), [{"id": "0.jpg"}, {"id": "1.jpg"}])
    with pytest.raises(ValueError, match=r"no item with the id '\\udcff\.jpg'"):
        index.snapshot.row_of("\udcff.jpg")
