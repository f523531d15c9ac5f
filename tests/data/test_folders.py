"""Every file of a folder is a picture, a raster that is refused with a reason, or counted."""

import os
import shutil
import socket

import pytest
from datasets import Dataset
from photos import paint
from PIL import features

from vsehub.data.folders import SUFFIXES, holds_pictures, holds_tables, list_folder


def names(paths):
    return sorted(os.path.basename(path) for path in paths)


def test_pictures_of_every_kind_are_listed(tmp_path):
    kinds = {
        "a.jpg": None,
        "a.jfif": "JPEG",
        "a.tga": None,
        "a.ppm": None,
        "a.j2k": None,
        "a.webp": None,
        "a.qoi": None,
    }
    kinds |= {"a.avif": None} if features.check("avif") else {}
    kinds |= {"no suffix": "PNG", "IMG_1": "JPEG", "scan.dat": "TIFF", "photo.txt": "BMP"}
    for name, kind in kinds.items():
        try:
            paint(tmp_path / name, kind=kind)
        except (KeyError, OSError):  # this Pillow does not write it
            (tmp_path / name).write_bytes(b"qoif" + bytes(99))
    (tmp_path / "IMG_2.HEIC").write_bytes(b"\0\0\0\x20ftypheic" + bytes(99))
    assert names(list_folder(tmp_path).pictures) == sorted([*kinds, "IMG_2.HEIC"])


def test_every_other_file_is_refused_with_a_reason_or_counted(tmp_path):
    paint(tmp_path / "more" / "a.png")
    paint(tmp_path / "scene.tif")
    for name in ("x.txt", "y.txt", "z.CSV", "README", ".hidden.png", "more/q.json"):
        (tmp_path / name).write_text("words")
    (tmp_path / "mosaic.vrt").write_text("<VRTDataset rasterXSize='9'></VRTDataset>")
    (tmp_path / "cube.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(90))
    (tmp_path / "raw.NEF").write_bytes(b"II*\0" + bytes(90))
    shutil.copy(tmp_path / "scene.tif", tmp_path / "scene.tif.ovr")
    (tmp_path / "linked").symlink_to(tmp_path / "more")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        folder = list_folder(tmp_path)
    assert names(folder.pictures) == ["a.png", "scene.tif"]
    reasons = {os.path.basename(path): why for path, why in folder.refused.items()}
    assert set(reasons) == {"mosaic.vrt", "cube.h5", "raw.NEF", "scene.tif.ovr", "linked"}
    assert "overviews of scene.tif" in reasons["scene.tif.ovr"] and "not followed" in reasons["linked"]
    assert "names other files" in reasons["mosaic.vrt"] and "camera" in reasons["raw.NEF"]
    assert folder.told == "1 (hidden), 2 (no regular file), 1 (no suffix), 1 .csv, 1 .json, 2 .txt"
    files = sum(len(found) for _, _, found in os.walk(tmp_path)) + 1  # and the link to a folder
    assert len(folder.pictures) + len(folder.refused) + sum(folder.others.values()) == files


def test_links_in_circles_end(tmp_path):
    paint(tmp_path / "a.png")
    (tmp_path / "self").symlink_to(tmp_path)
    (tmp_path / "b.jpg").symlink_to(tmp_path / "b.jpg")
    folder = list_folder(tmp_path)
    assert names(folder.pictures) == ["a.png", "b.jpg"] and names(folder.refused) == ["self"]


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "closed").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "closed").chmod(0)
    assert "permission denied" in list_folder(tmp_path).refused[str(tmp_path / "closed")]


def test_content_tells_a_folder_of_pictures_from_one_of_tables(tmp_path):
    Dataset.from_list([{"a": 1}]).to_parquet(str(tmp_path / "rows.parquet"))
    (tmp_path / "README.md").write_text("data")
    assert holds_tables(tmp_path) and not holds_pictures(tmp_path)
    paint(tmp_path / "deep" / "picture", kind="PNG")
    assert holds_pictures(tmp_path) and ".jfif" in SUFFIXES
