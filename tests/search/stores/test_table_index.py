"""An index in a database: facts, writers, changes that stop halfway, and what cannot be opened."""

import numpy as np
import pytest

from vsehub.search.index_store import IndexFolderError
from vsehub.search.stores.copies import kept_in
from vsehub.search.stores.places import open_index, stamp_of
from vsehub.search.vector_index import VectorIndex

OTHER = {"id": "org/other", "revision": None, "digest": "b" * 64}


@pytest.fixture
def index(address, local):
    mine = local()
    mine.add(np.eye(4), [{"id": f"p{n}"} for n in range(4)])
    return kept_in(mine, address)


def ids(index):
    return sorted(name for name, alive in zip(index.column("id"), index.alive) if alive)


def test_facts_are_stored_and_only_by_changes(index, address):
    index.note(cutoff={"text": 0.25}, sources={"photos": {"data": "photos", "split": None}}, unfinished=True)
    index.allow(["/photos"])
    index.remember()
    again = open_index(address)
    assert (again.cutoff, again.unfinished, again.named) == ({"text": 0.25}, True, {"/photos"})
    assert again.model == index.model and again.dimension == 4 and again.place == address
    assert again.generation == index.generation and stamp_of(address) == index._stamp
    index.compact()
    assert ids(open_index(address)) == ["p0", "p1", "p2", "p3"]


def test_folders_that_an_addition_or_removal_names_stay_named(index, address):
    index.allow(["/photos"])
    index.add(np.eye(4)[:1], [{"id": "new"}])
    assert open_index(address).named == {"/photos"}
    index.allow(["/more"])
    index.delete(["new"])
    assert open_index(address).named == {"/photos", "/more"}


def test_an_empty_id_is_unknown(index, address):
    assert index.delete(["", "p0"]) == 1
    with pytest.raises(ValueError, match="has no item with the id ''"):
        index.snapshot.row_of("")
    assert ids(open_index(address)) == ["p1", "p2", "p3"]


def test_another_model_or_dimension_is_refused_as_in_a_folder(index, tmp_path):
    local = VectorIndex.create(tmp_path / "local", index.model)
    local.add(np.eye(4), [{"id": f"p{n}"} for n in range(4)])

    def refusals(index):
        told = []
        for refused in lambda: index.check_model(OTHER), lambda: index.add(np.eye(3), [{"id": x} for x in "abc"]):
            with pytest.raises(IndexFolderError) as error:
                refused()
            told.append(str(error.value).replace(index.place, "INDEX"))
        return told

    assert refusals(index) == refusals(local)
    assert ids(index) == ["p0", "p1", "p2", "p3"] and index.dimension == 4


def test_who_has_not_seen_anothers_change_is_refused_or_takes_it_over(index, address):
    stale, patient = open_index(address), open_index(address, wait=1)
    index.add(np.eye(4)[:1], [{"id": "new"}])
    with pytest.raises(IndexFolderError, match="was changed since it was opened"):
        stale.delete(["p0"])
    assert patient.delete(["p0"]) == 1
    assert ids(open_index(address)) == ["new", "p1", "p2", "p3"]


def test_a_second_writer_of_this_machine_is_refused(index, address):
    other = open_index(address)
    with index.lock(), pytest.raises(IndexFolderError, match="is writing lance|is writing qdrant"):
        other.delete(["p0"])
    assert other.delete(["p0", "nobody"]) == 1 and other.delete([]) == 0


def test_a_change_that_fails_leaves_what_was_there(index, address, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(index._table, "write", lambda *args: (_ for _ in ()).throw(OSError("no space")))
        with pytest.raises(OSError, match="no space"):
            index.add(np.eye(4)[:1], [{"id": "new"}])
    with monkeypatch.context() as patch:
        patch.setattr(index._table, "note", lambda *args: (_ for _ in ()).throw(OSError("no space")))
        with pytest.raises(OSError, match="no space"):
            index.note(cutoff={"text": 0.9})
    assert index.cutoff is None and len(index) == 4
    index.add(np.eye(4)[:1], [{"id": "new"}])
    assert ids(open_index(address)) == ["new", "p0", "p1", "p2", "p3"]


def test_what_is_no_index_is_not_opened(index, address, tmp_path):
    with pytest.raises(IndexFolderError, match="holds no index"):
        open_index(f"{address}2")
    index._table.note({**index._facts(), "format": 2})
    with pytest.raises(IndexFolderError, match="format 2.*update vsehub"):
        open_index(address)
    index._table.note({**index._facts(), "model": "mine"})
    with pytest.raises(IndexFolderError, match="is damaged"):
        open_index(address)
