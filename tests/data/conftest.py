"""Fixtures that the captioning tests share."""

import pytest
from caption_folder import paint


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures, some in a subfolder, and a file that is none."""
    root = tmp_path / "images"
    (root / "deep").mkdir(parents=True)
    for index in range(12):
        paint(index).save(root / ("deep" if index % 3 == 0 else "") / f"{index:02}.png")
    (root / "notes.txt").write_text("no image")
    return root
