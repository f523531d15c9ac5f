"""Copies of an index from one place to another."""

import numpy as np
import pytest

from vsehub.search.export import export_index
from vsehub.search.index_store import IndexFolderError
from vsehub.search.stores.copies import kept_in
from vsehub.search.stores.places import holds_index, open_index
from vsehub.search.vector_index import VectorIndex


def test_an_index_is_copied_there_and_back(address, local, tmp_path):
    mine = local()
    mine.cutoff = {"text": 0.2}
    mine.add(np.eye(3), [{"id": x, "caption": f"the {x}"} for x in "abc"])
    theirs = kept_in(mine, address)
    assert theirs.cutoff == {"text": 0.2} and not theirs.unfinished
    with pytest.raises(IndexFolderError, match="holds an index already"):
        kept_in(mine, address)
    back = kept_in(open_index(address), tmp_path / "back")
    again = VectorIndex.open(tmp_path / "back")
    assert again.items(range(3)) == mine.items(range(3)) and np.array_equal(back.vectors(range(3)), np.eye(3))
    assert again.cutoff == {"text": 0.2} and again.model == mine.model


@pytest.fixture
def stopped_copy(local, monkeypatch):
    """A function of an address: the index whose copy to it was stopped before its end."""

    def stop(address):
        mine = local()
        mine.add(np.eye(3), [{"id": x} for x in "abc"])
        with monkeypatch.context() as patch:
            patch.setattr("vsehub.search.stores.table_index.TableIndex.note", lambda *a, **k: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                kept_in(mine, address)
        return mine

    return stop


def test_an_interrupted_copy_is_made_again(address, stopped_copy):
    mine = stopped_copy(address)
    assert open_index(address).unfinished
    assert len(kept_in(mine, address)) == 3 and not open_index(address).unfinished


def test_an_interrupted_copy_to_a_folder_is_made_again_too(address, local, monkeypatch, tmp_path):
    mine = local()
    mine.add(np.eye(3), [{"id": x} for x in "abc"])
    theirs = kept_in(mine, address)
    with monkeypatch.context() as patch:
        patch.setattr("vsehub.search.vector_index.VectorIndex.note", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            kept_in(theirs, tmp_path / "back")
    theirs.note(cutoff={"text": 0.3})
    kept_in(theirs, tmp_path / "back")
    again = VectorIndex.open(tmp_path / "back")
    assert len(again) == 3 and not again.unfinished and again.cutoff == {"text": 0.3}


def test_an_interrupted_copy_that_goes_on_loses_what_the_index_lost(address, stopped_copy):
    mine = stopped_copy(address)
    mine.delete(["b"])
    kept_in(mine, address)
    theirs = open_index(address)
    assert [item["id"] for item in theirs.items(np.flatnonzero(theirs.alive))] == ["a", "c"]


def test_what_cannot_be_exported_to_an_address_is_told(address, tmp_path, local):
    mine = VectorIndex.create(tmp_path / "empty", local().model)
    with pytest.raises(ValueError, match="is empty: there is nothing to export"):
        export_index(mine.place, address)
    with pytest.raises(ValueError, match="geoparquet is a file"):
        export_index(mine.place, address, "geoparquet")


def test_an_index_without_rows_is_nowhere_until_the_first(address, local):
    theirs = kept_in(local(), address)
    theirs.note(unfinished=True)
    assert not holds_index(address) and len(theirs) == 0 and theirs.column("id") == []
    theirs.add(np.eye(2), [{"id": "a"}, {"id": "b"}])
    assert holds_index(address) and open_index(address).unfinished
