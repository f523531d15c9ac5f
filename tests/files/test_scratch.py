"""Folders that killed processes left are removed, those of living ones and of others are not."""

import os
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock

from vsehub.files.scratch import LOCK, ScratchFolder, remove_left


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def old(folder: Path, lock: bool = True) -> Path:
    """A folder as a killed process leaves it, made long ago."""
    folder.mkdir(exist_ok=True)
    (folder / "a.arrow").write_bytes(b"a")
    if lock:
        (folder / LOCK).touch()
    os.utime(folder, (0, 0))
    return folder


def test_what_a_killed_process_left_goes_and_all_else_stays(temporary):
    left = old(temporary / "mine-1")
    others = [old(temporary / "other-1"), old(temporary / "mine-2", lock=False)]
    fresh = old(temporary / "mine-3")
    os.utime(fresh)  # its process may be about to lock it
    with FileLock(old(temporary / "mine-4") / LOCK):
        os.utime(temporary / "mine-4", (0, 0))
        folder = ScratchFolder("mine-")
        assert not left.exists() and all(each.exists() for each in (*others, fresh, temporary / "mine-4"))
    path = old(Path(folder.name))
    remove_left("mine-")
    assert path.exists() and not (temporary / "mine-4").exists()
    folder.cleanup()
    assert not path.exists()


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_is_not_followed(temporary):
    target = old(temporary / "target")
    (temporary / "mine-1").symlink_to(target)
    os.utime(temporary / "mine-1", (0, 0), follow_symlinks=False)
    remove_left("mine-")
    assert (target / "a.arrow").exists()
