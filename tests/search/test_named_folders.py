"""What the user named for an index is remembered on this machine, under a name that only the index knows."""

import os

import numpy as np
import pytest

from vsehub.files import remembered
from vsehub.search.named_folders import folders_of, lies_in, new_origin, remember_folders
from vsehub.search.vector_index import VectorIndex


def test_folders_add_up():
    origin = new_origin()
    assert folders_of(origin) == set()
    remember_folders(origin, ["/a"])
    remember_folders(origin, ["/b", "/a"])
    assert folders_of(origin) == {"/a", "/b"} and folders_of(new_origin()) == set()


@pytest.mark.parametrize("origin", [None, 3, "", "../x", "A" * 32, "a" * 31, "a" * 33, "a" * 31 + "\n", ["a"], {}])
def test_a_name_of_another_form_is_not_known(origin):
    assert folders_of(origin) == set()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"folders": 3}', '{"folders": [3, null]}', "\xff"])
def test_a_damaged_record_is_none(content):
    origin = new_origin()
    remember_folders(origin, ["/a"])
    (remembered.digests_folder().with_name("collections") / f"{origin}.json").write_text(content, encoding="latin-1")
    assert folders_of(origin) == set()


def test_a_cache_that_cannot_be_written_is_none(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(remembered, "digests_folder", lambda: tmp_path / "file" / "digests")
    remember_folders(origin := new_origin(), ["/a"])
    assert folders_of(origin) == set()


def test_what_lies_below_a_folder(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "out.png").symlink_to(tmp_path / "private.png")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    named = [str(tmp_path / "link")]
    for path in ("link", "link/a.png", "photos/a.png", "link/../photos/a.png"):
        assert lies_in(str(tmp_path / path), named), path
    for path in ("photos2/a.png", "private.png", "link/../private.png", "photos/out.png", "photos/a\0.png"):
        assert not lies_in(str(tmp_path / path), named), path
    assert not lies_in(None, named) and not lies_in(b"", named) and not lies_in(str(tmp_path / "photos"), [])


def test_the_system_is_not_asked_about_what_was_not_named(monkeypatch, tmp_path):
    asked, real = [], os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path, **rest: asked.append(str(path)) or real(path, **rest))
    assert not lies_in("//host/share/a.png", [str(tmp_path)])
    assert "//host/share/a.png" not in asked


def index_of(path, **more):
    index = VectorIndex({"id": "org/model", "revision": None, "digest": "0"}, **more)
    index.add(np.eye(1, 4, dtype=np.float32), [{"id": "a", "path": str(path), "modality": "image"}])
    return index


def test_an_index_remembers_where_it_was_made(tmp_path):
    index = index_of(tmp_path / "photos" / "a.png")
    index.allow([str(tmp_path / "photos")])
    index.save(tmp_path / "index")
    os.rename(tmp_path / "index", tmp_path / "moved")
    opened = VectorIndex.open(tmp_path / "moved")
    assert opened.named == {str(tmp_path / "photos")}
    opened.allow([str(tmp_path / "more")])
    opened.remember()
    assert VectorIndex.open(tmp_path / "moved").named == {str(tmp_path / "photos"), str(tmp_path / "more")}


def test_one_that_was_received_gets_a_new_name_when_something_is_named_for_it(tmp_path):
    index_of("/home/other/a.png").save(tmp_path / "index")
    received = VectorIndex.open(tmp_path / "index")
    received.origin = theirs = new_origin()
    received.note()
    assert VectorIndex.open(tmp_path / "index").named == set() and received.origin == theirs
    received.allow([str(tmp_path / "mine")])
    received.remember()
    assert received.origin != theirs and folders_of(theirs) == set()
    assert VectorIndex.open(tmp_path / "index").named == {str(tmp_path / "mine")}
