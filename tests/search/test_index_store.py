"""The files of an index: one generation at a time, whatever writers, kills and other files do beside it."""

import json
from pathlib import Path

import pytest

from vsehub.search.index_store import FORMAT, MANIFEST, IndexFolderError, Store


def commit(store, generation, content):
    """Write one file and switch to it."""
    name = f"vectors-{generation:06}.npy"
    with store.writing(name) as path:
        path.write_bytes(content)
    store.commit({"format": FORMAT, "generation": generation, "files": [name]})
    return name


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "index")
    store.folder.mkdir()
    commit(store, 1, b"one")
    return store


def content(store):
    return store.load(lambda manifest: [(store.folder / name).read_bytes() for name in manifest["files"]])[1]


def test_a_place_whose_name_is_not_unicode_is_refused_before_the_work(tmp_path):
    with pytest.raises(IndexFolderError, match="must be Unicode: rename the folder"):
        Store(tmp_path / "index\udcff")


def test_an_empty_name_is_not_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IndexFolderError, match="the name of the index is empty: name a folder"):
        Store("")


def test_a_commit_is_read_and_removes_what_it_no_longer_names(store):
    assert store.exists() and content(store) == [b"one"]
    (store.folder / "vectors-mine.npy").write_text("of others")
    name = commit(store, 2, b"two")
    assert content(Store(store.folder)) == [b"two"]
    assert {path.name for path in store.folder.iterdir()} == {MANIFEST, name, "vectors-mine.npy"}
    assert json.loads((store.folder / MANIFEST).read_text())["files"] == {name: 3}


def test_a_change_that_was_not_committed_is_none(store):
    with store.writing("vectors-000002.npy") as path:
        path.write_bytes(b"two")
    assert content(Store(store.folder)) == [b"one"]


def test_a_reader_that_meets_a_writer_reads_the_new_generation(store):
    due = [1]

    def opener(manifest):
        if due:  # the writer comes between the manifest and its files
            due.clear()
            commit(Store(store.folder), 2, b"second")
        return [(store.folder / name).read_bytes() for name in manifest["files"]]

    manifest, files = store.load(opener)
    assert manifest["generation"] == 2 and files == [b"second"]


def test_a_file_that_is_missing_or_cut_is_named_with_the_remedy(store):
    path = store.folder / "vectors-000001.npy"
    path.write_bytes(b"on")
    with pytest.raises(IndexFolderError, match="vectors-000001.npy has 2 bytes, not 3: copy the index again"):
        content(store)
    path.unlink()
    with pytest.raises(IndexFolderError, match="vectors-000001.npy is missing: copy the index again"):
        content(store)


def test_whatever_goes_wrong_in_a_file_is_one_error(store):
    def opener(manifest):
        raise ZeroDivisionError("inside")

    with pytest.raises(IndexFolderError, match=r"index is damaged \(ZeroDivisionError: inside\)"):
        store.load(opener)

    def hungry(manifest):
        raise MemoryError

    with pytest.raises(MemoryError):  # no fault of the files
        store.load(hungry)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"format": 1, "gen', "is no manifest of an index"),
        ("[]", "is no manifest of an index"),
        ("[" * 100_000, "is no manifest of an index"),
        ('{"format": 1}', "is no manifest of an index"),
        ('{"format": 99, "generation": 1, "files": {}}', "of format 99, this vsehub reads up to 2: update vsehub"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_told(store, text, said):
    (store.folder / MANIFEST).write_text(text)
    with pytest.raises(IndexFolderError, match=said):
        store.manifest()


def test_no_index_is_told_with_the_verb_that_makes_one(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        assert not Store(folder).exists()
        with pytest.raises(IndexFolderError, match="holds no index: make one with `vsehub index`"):
            Store(folder).manifest()


def test_one_writer_at_a_time_may_enter_again(store):
    other = Store(store.folder)
    with store.lock(), store.lock(), pytest.raises(IndexFolderError, match="index"), other.lock():
        raise AssertionError("two writers")
    with other.lock():
        commit(other, 2, b"two")
    assert content(store) == [b"two"]


def test_a_file_that_cannot_be_removed_fails_no_change(store, monkeypatch):
    def mapped(path, *args, **kwargs):
        raise PermissionError(13, "used by another process", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", mapped)  # Windows, while a reader maps it
        for generation in (2, 3):
            commit(store, generation, b"new")
    assert content(store) == [b"new"] and len(list(store.folder.glob("vectors-*"))) == 3
    name = commit(store, 4, b"four")  # the next change removes what is left
    assert [path.name for path in store.folder.glob("vectors-*")] == [name]


def test_what_a_change_that_failed_has_left_is_removed_but_not_in_a_folder_that_took_its_place(store):
    (store.folder / "vectors-000007.npy").write_text("half")
    with store.lock():
        store.remove_others()
        assert content(store) == [b"one"] and len(list(store.folder.glob("vectors-*"))) == 1
        store.folder.rename(store.folder.with_name("away"))
        store.folder.mkdir()
        (store.folder / "vectors-000007.npy").write_text("of others")
        store.remove_others()
        assert (store.folder / "vectors-000007.npy").exists()
