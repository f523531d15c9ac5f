"""Addresses, what they refuse, and copies from one place to another."""

import numpy as np
import pytest

from vsehub.search.index_store import IndexFolderError
from vsehub.search.stores.places import check_options, holds_index, is_address, kept_in, open_index, table_at
from vsehub.search.vector_index import VectorIndex


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("lance://images", "lance://FOLDER/NAME"),
        ("lance://db/", "lance://FOLDER/NAME"),
        ("lance://db/a b", "lance://FOLDER/NAME"),
        ("lance://s3://key:secret@bucket/db/images", "set environment variables"),
        ("lance://s3://bucket/db/images?aws_secret_access_key=secret", "set environment variables"),
        ("lance://db://mine/images", "LanceDB Cloud is not supported"),
    ],
)
def test_addresses_that_cannot_be_used_are_told_without_their_secrets(address, told):
    assert is_address(address)
    with pytest.raises(ValueError, match=told) as error:
        table_at(address)
    assert "secret" not in str(error.value)


def test_the_same_folder_has_one_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert table_at("lance://db/images").address == table_at(f"lance://{tmp_path}/db/images").address
    assert table_at("lance://s3://bucket/db/images").address == "lance://s3://bucket/db/images"


def test_folders_are_no_addresses(tmp_path):
    assert not is_address("photos.index") and not is_address(tmp_path)
    assert not holds_index(tmp_path / "none")
    check_options(tmp_path, "hnsw", "int8")


def test_what_a_database_cannot_hold_is_refused_before_the_work(address):
    with pytest.raises(ValueError, match="leave out --vectors int8"):
        check_options(address, None, "int8")
    check_options(address, "flat", "float32")
    assert not holds_index(address)


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


def test_an_interrupted_copy_is_made_again(address, local, monkeypatch):
    mine = local()
    mine.add(np.eye(3), [{"id": x} for x in "abc"])
    with monkeypatch.context() as patch:
        patch.setattr("vsehub.search.stores.table_index.TableIndex.note", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            kept_in(mine, address)
    assert open_index(address).unfinished
    assert len(kept_in(mine, address)) == 3 and not open_index(address).unfinished


def test_an_index_without_rows_is_nowhere_until_the_first(address, local):
    theirs = kept_in(local(), address)
    theirs.note(unfinished=True)
    assert not holds_index(address) and len(theirs) == 0 and theirs.column("id") == []
    theirs.add(np.eye(2), [{"id": "a"}, {"id": "b"}])
    assert holds_index(address) and open_index(address).unfinished
