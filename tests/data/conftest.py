"""Folders of pictures that the tests of data share."""

import pytest
from caption_folder import paint
from photos import jpeg


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures, some in a subfolder, and a file that is none."""
    root = tmp_path / "images"
    (root / "deep").mkdir(parents=True)
    for index in range(12):
        paint(index).save(root / ("deep" if index % 3 == 0 else "") / f"{index:02}.png")
    (root / "notes.txt").write_text("no image")
    return root


@pytest.fixture
def images(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    for index in range(4):
        (root / f"{index}.jpg").write_bytes(jpeg(index))
    return root
