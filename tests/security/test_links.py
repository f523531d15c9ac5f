"""A link that is planted, or swapped in while something is written, is never written through."""

import json
import os
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from vsehub.__main__ import main
from vsehub.files.whole import whole_file, whole_folder, whole_path
from vsehub.search.index_store import IndexFolderError
from vsehub.search.vector_index import VectorIndex

SECRET = "not yours"


@pytest.fixture
def victim(tmp_path):
    """A folder of somebody else."""
    folder = tmp_path / "victim"
    folder.mkdir()
    for name in ("config.json", "out.json", "manifest.json"):
        (folder / name).write_text(SECRET)
    return folder


def untouched(folder):
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        name: SECRET for name in ("config.json", "out.json", "manifest.json")
    }


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_that_becomes_a_link_while_it_is_written(there, tmp_path, victim):
    target = tmp_path / "out"
    if there:
        target.mkdir()
    with whole_folder(target) as draft:
        (draft / "config.json").write_text("mine")
        shutil.rmtree(target, ignore_errors=True)
        target.symlink_to(victim)
    untouched(victim)
    assert not target.is_symlink() and (target / "config.json").read_text() == "mine"


@pytest.mark.parametrize("writer", [whole_file, whole_path])
def test_a_file_that_becomes_a_link_while_it_is_written(writer, tmp_path, victim):
    target = tmp_path / "out.json"
    with writer(target) as draft:
        target.symlink_to(victim / "out.json")
        draft.write(b"mine") if writer is whole_file else draft.write_text("mine")
    untouched(victim)
    assert not target.is_symlink() and target.read_text() == "mine"


def an_index(folder, rows=3):
    index = VectorIndex({"id": "org/model", "revision": None, "digest": "0"})
    index.add(np.eye(rows, 4, dtype=np.float32), [{"id": f"{n}", "caption": "c"} for n in range(rows)])
    index.save(folder)
    return index


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.mark.parametrize("how", ["a link", "another folder"])
@pytest.mark.parametrize("step", ["before the files", "before the manifest"])
def test_an_index_that_is_swapped_while_it_is_changed(step, how, tmp_path, monkeypatch):
    index, other = an_index(tmp_path / "index"), an_index(tmp_path / "other", 4)
    before = contents(tmp_path / "other")

    def swap(*_):
        os.rename(tmp_path / "index", tmp_path / "moved")
        if how == "a link":
            (tmp_path / "index").symlink_to(tmp_path / "other")
        else:
            os.rename(tmp_path / "other", tmp_path / "index")

    with index.lock():
        if step == "before the files":
            swap()
        else:
            written = index._segment
            monkeypatch.setattr(index, "_segment", lambda *given: (written(*given), swap())[0])
        with pytest.raises(IndexFolderError, match="was replaced while it was written|was changed since"):
            index.add(np.eye(1, 4, dtype=np.float32), [{"id": "new"}])
    assert contents(tmp_path / ("other" if how == "a link" else "index")) == before
    assert len(other) == 4


def test_a_linked_index_is_exported_and_nothing_is_written_through(tmp_path, victim):
    an_index(tmp_path / "index")
    (tmp_path / "link").symlink_to(tmp_path / "index")
    (tmp_path / "out.parquet").symlink_to(victim / "out.json")
    before = contents(tmp_path / "index")
    assert main(["index", "export", str(tmp_path / "link"), "--out", str(tmp_path / "out.parquet")]) == 0
    untouched(victim)
    assert not (tmp_path / "out.parquet").is_symlink() and pq.read_table(tmp_path / "out.parquet").num_rows == 3
    assert contents(tmp_path / "index") == before


@pytest.mark.parametrize("key", ["segments", "deleted", "graph", "files"])
@pytest.mark.parametrize("name", ["../other/vectors-000001.npy", "/etc/passwd", "config.json", "a/vectors-000001.npy"])
def test_a_manifest_names_files_of_its_folder_alone(name, key, tmp_path):
    an_index(tmp_path / "index")
    an_index(tmp_path / "other")
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    size = os.path.getsize(tmp_path / "other" / "vectors-000001.npy")
    if key == "segments":
        manifest["segments"][0][0] = name
    elif key != "files":
        manifest[key] = name
    manifest["files"][name] = size
    (tmp_path / "index" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(IndexFolderError, match="no file of an index"):
        VectorIndex.open(tmp_path / "index")
