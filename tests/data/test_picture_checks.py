import os

import datasets
import numpy as np
import pytest
from datasets import Dataset
from photos import jpeg

from vsehub.data import picture_checks
from vsehub.data.picture_checks import bad_pictures


def table(broken):
    images = [{"bytes": jpeg(row)[: 200 if row in broken else None], "path": None} for row in range(5)]
    return Dataset.from_dict({"image": images, "image_id": [str(row) for row in range(5)]})


def test_several_processes_find_what_one_finds_and_the_next_asks_none(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    rows = table(broken=(1, 4))
    alone = bad_pictures(rows, np.arange(5))
    assert sorted(alone) == [1, 4] and "image 4" in alone[4]
    monkeypatch.setattr(picture_checks, "FEW", 1)
    monkeypatch.setattr(picture_checks, "CHUNK", 2)
    assert bad_pictures(rows, np.arange(5)) == alone
    monkeypatch.setattr(picture_checks, "_checked_by_all", None)  # another process of the machine did it
    assert bad_pictures(rows, np.arange(5)) == alone
    with pytest.raises(TypeError):
        bad_pictures(table(broken=(1,)), np.arange(5))  # other pictures are not those that were checked
    with pytest.raises(TypeError):
        bad_pictures(rows, np.arange(5), except_for=[1])


def test_rows_that_are_bad_already_are_not_opened():
    assert sorted(bad_pictures(table(broken=(1, 4)), np.arange(5), except_for=[1])) == [4]
    assert bad_pictures(table(broken=(1, 4)), np.array([0, 2])) == {}


def test_a_picture_of_a_file_is_checked_again_when_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(picture_checks, "FEW", 0)
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg()[:200])
    rows = Dataset.from_dict({"image": [str(path)], "image_id": ["a"]})
    assert list(bad_pictures(rows, np.arange(1))) == [0]
    path.write_bytes(jpeg())
    assert bad_pictures(rows, np.arange(1)) == {}
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a copy that keeps the date
    assert list(bad_pictures(rows, np.arange(1))) == [0]
