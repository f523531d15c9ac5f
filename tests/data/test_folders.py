"""Every file of a folder is a picture, a raster that is refused with a reason, or counted; folders as sources."""

import os
import shutil
import socket

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image, features

from vsehub.__main__ import main
from vsehub.data.folders import SUFFIXES, holds_pictures, holds_tables, list_folder
from vsehub.data.leakage import prints_of_split
from vsehub.data.sources import read_source


def paint(path, seed=0, kind=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((64, 48), Image.Resampling.NEAREST).save(path, kind)


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


# --- Folders as sources --------------------------------------------------------------------------------------------


def rows_of(*args, **options):
    return sorted(
        os.path.relpath(row["image"]["path"], args[0]) for row in read_source(str(args[0]), *args[1:], **options)
    )


def test_a_name_that_looks_like_a_split_hides_no_picture(tmp_path):
    for number in (1, 12, 3):
        paint(tmp_path / f"train_{number}.jpg", number)
        paint(tmp_path / f"test-{number}.jpg", number + 20)
        paint(tmp_path / f"img_{number}.JPG", number + 40)
    assert len(rows_of(tmp_path, "train")) == 9
    with pytest.raises(ValueError, match="a folder of pictures without splits: there is no split 'test'"):
        read_source(str(tmp_path), "test")
    assert len(rows_of(tmp_path, "test", any_split=True)) == 9


def test_folders_named_like_splits_are_splits_and_their_subfolders_labels(tmp_path):
    for split in ("train", "val"):
        for label in ("airport", "bridge"):
            paint(tmp_path / split / label / "train_1.png")
            paint(tmp_path / split / label / "2.png")
    assert rows_of(tmp_path, "validation") == [
        f"val/{c}/{n}.png" for c in ("airport", "bridge") for n in ("2", "train_1")
    ]
    assert set(read_source(str(tmp_path), "train")["label"]) == {"airport", "bridge"}
    with pytest.raises(ValueError, match="no split 'test'; its folders are train, val"):
        read_source(str(tmp_path), "test")
    assert len(rows_of(tmp_path / "{split}", "validation", any_split=False)) == 4
    (tmp_path / "stray.txt").write_text("x")  # now the two are folders like any others
    assert len(rows_of(tmp_path, "train")) == 8


def test_pictures_with_metadata_keep_their_captions_and_lose_no_row(tmp_path):
    lines = []
    for number, name in enumerate(("train_12.jpg", "b.jpg", "c.jpg")):
        paint(tmp_path / name, number)
        lines.append(f'{{"file_name": "{name}", "captions": "picture {number}"}}\n')
    (tmp_path / "metadata.jsonl").write_text("".join(lines))
    rows = read_source(str(tmp_path), "train")
    assert sorted(rows["captions"]) == ["picture 0", "picture 1", "picture 2"]


def test_what_is_left_out_of_a_folder_is_told(tmp_path, caplog):
    paint(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "mosaic.vrt").write_text("<VRTDataset></VRTDataset>")
    shutil.copy(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff.png")
    assert rows_of(tmp_path, "train") == ["a.png"]
    assert "no pictures (1 .txt)" in caplog.text and "mosaic.vrt: names other files" in caplog.text
    assert "1 files whose names are not Unicode" in caplog.text


def test_leaks_between_folders_are_found_whatever_their_names(tmp_path, capsys):
    for number in range(4):
        paint(tmp_path / "a" / f"img{number}.png", number)
    paint(tmp_path / "a" / "train_12.png", 99)
    shutil.copy(tmp_path / "a" / "img2.png", tmp_path / "leak.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "leak.png").rename(tmp_path / "b" / "test_1.png")
    paint(tmp_path / "b" / "train_1.png", 50)
    assert main(["check-leakage", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    assert "1 pairs (1 exact, 0 near); 1 of 2 images of B" in capsys.readouterr().out
    assert main(["check-leakage", str(tmp_path / "a")]) == 2  # two splits of what has none
    assert "without splits" in capsys.readouterr().err


def test_one_bad_file_does_not_end_the_search_for_leaks(tmp_path):
    paint(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "torn.tif").write_bytes(b"II*\0")
    (tmp_path / "empty.jpg").touch()
    side = prints_of_split(str(tmp_path), "train")
    assert names(side.unreadable) == ["empty.jpg", "pipe.jpg", "torn.tif"] and len(side.ids) == 4
