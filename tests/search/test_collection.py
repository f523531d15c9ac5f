"""What an index makes of scenes and foreign files: tiles, blank tiles, pages, bad files that end no verb."""

import json
import os
import shutil
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image
from rasters import ramp, write_raster

from vsehub.__main__ import main
from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows
from vsehub.processing import pixels, scenes
from vsehub.processing.scenes import read_box
from vsehub.search.collection import Collection, fields_of
from vsehub.search.vector_index import VectorIndex


def index(tmp_path, tiny_folder, capsys, source, *words, expected=0):
    status = main(["index", str(source), "--model", str(tiny_folder), "--out", str(tmp_path / "index"), *words])
    said = capsys.readouterr()
    assert status == expected, said.err
    return said.out if expected == 0 else said.err


def report(tmp_path):
    lines = (tmp_path / "index" / "bad_samples.jsonl").read_text().splitlines()
    return {os.path.basename(line["image_id"]): line["problem"] for line in map(json.loads, lines)}


def entries_of(collection):
    return [entry for unit in collection.units() for entry in collection.entries(unit)]


@pytest.fixture
def hostile(tmp_path):
    """A folder of two good pictures and of every bad file that once ended a job."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in ("good.png", "good.jpg"):
        Image.effect_noise((40, 30), 50).convert("RGB").save(folder / name)
    write_raster(folder / "radar.tif", np.full((9, 9), 3 + 4j, np.complex64))
    data = Path(write_raster(folder / "whole.tif", ramp(90, 90, 1, np.uint16, 900))).read_bytes()
    for size in (0, 3, 8, 12, 100, len(data) // 2):
        (folder / f"torn{size}.tif").write_bytes(data[:size])
    (folder / "far.tif").write_bytes(b"II+\0\x08\0\0\0" + b"\xff" * 8)  # its directory is at 2**64 - 1
    (folder / "page.jpg").write_text("<html>404</html>")
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.gif").symlink_to(folder / "loop.gif")
    return folder


BAD = {f"torn{size}.tif" for size in (0, 3, 8, 12, 100)} | {"far.tif", "page.jpg", "pipe.png", "loop.gif"}


@pytest.mark.parametrize("words", [(), ("--tile", "32", "--overlap", "0")])
def test_bad_files_are_lines_of_the_report_and_the_job_goes_on(tmp_path, tiny_folder, capsys, hostile, words):
    said = index(tmp_path, tiny_folder, capsys, hostile, *words)
    assert " 10 bad, listed in" in said or " 11 bad, listed in" in said  # a radar scene of one number is a blank tile
    assert set(report(tmp_path)) > BAD and all(
        name in problem for name, problem in report(tmp_path).items() if name in BAD
    )
    kept = {os.path.basename(name.partition("#")[0]) for name in VectorIndex.open(tmp_path / "index").column("id")}
    assert {"good.png", "good.jpg", "whole.tif"} <= kept


@pytest.mark.parametrize("error", [MemoryError, IndexError, TypeError])
def test_what_a_decoder_raises_ends_no_job(tmp_path, tiny_folder, capsys, hostile, monkeypatch, error):
    def broken(*args, **options):
        raise error("inside")

    monkeypatch.setattr(scenes, "read_window", broken)
    said = index(tmp_path, tiny_folder, capsys, hostile)
    assert "2 rows; 2 embedded" in said and f"{error.__name__}: inside" in report(tmp_path)["whole.tif"]
    rows = [{"image": str(path), "captions": ["a"], "image_id": path.name} for path in sorted(hostile.glob("*.tif"))]
    rows.append({"image": str(hostile / "good.png"), "captions": ["a"], "image_id": "good"})
    Dataset.from_list(rows).to_parquet(str(tmp_path / "rows.parquet"))
    args = DataArguments(data=str(tmp_path / "rows.parquet"), on_bad_sample="quarantine")
    assert prepare_rows(args, "train", str(tmp_path), need_dense=False)["image_id"] == ["good"]
    for words in (["search", str(tmp_path / "index"), "--image"], ["explain", str(tiny_folder)]):
        assert main([*words, str(hostile / "whole.tif")]) == 2
        assert capsys.readouterr().err.count("whole.tif: does not decode") == 1
    assert main(["check-leakage", str(hostile), str(hostile)]) == 1
    assert "images do not decode" in capsys.readouterr().out


def test_complex_scenes_are_read_by_every_verb(tmp_path, tiny_folder, capsys):
    values = ramp(40, 50, 1, np.float64, 900)[..., 0] * np.exp(1j)
    path = write_raster(tmp_path / "radar.tif", values.astype(np.complex64))
    assert "1 rows; 1 embedded" in index(tmp_path, tiny_folder, capsys, path)
    assert main(["search", str(tmp_path / "index"), "--image", path]) == 0
    assert "1.000" in capsys.readouterr().out


def test_blank_tiles_are_counted_not_indexed_and_the_note_stays(tmp_path, tiny_folder, capsys):
    values = ramp(64, 96, 3, np.uint16, 3000) + 1
    values[:32, :64] = 0
    (tmp_path / "scenes").mkdir()
    write_raster(tmp_path / "scenes" / "half.tif", values, nodata=0)
    write_raster(tmp_path / "scenes" / "none.tif", values * 0, nodata=0)
    words = ("--tile", "32", "--overlap", "0")
    said = index(tmp_path, tiny_folder, capsys, tmp_path / "scenes", *words)
    assert "4 rows; 4 embedded" in said and "1 bad" in said and "2 blank tiles left out" in said
    said = index(tmp_path, tiny_folder, capsys, tmp_path / "scenes", *words, "--update")
    assert "4 rows; 0 embedded, 4 unchanged, 0 removed; 1 bad" in said
    assert report(tmp_path)["half.tif"] == "2 of 6 tiles are empty (nodata, or one colour) and are not indexed"
    assert "all of its 6 tiles are empty" in report(tmp_path)["none.tif"]


def test_the_pages_that_are_not_read_are_told(tmp_path, tiny_folder, capsys):
    pages = [Image.effect_noise((20, 20), 40 + n) for n in range(3)]
    (tmp_path / "photos").mkdir()
    pages[0].save(tmp_path / "photos" / "fax.tif", save_all=True, append_images=pages[1:])
    assert "1 rows; 1 embedded" in index(tmp_path, tiny_folder, capsys, tmp_path / "photos")
    assert report(tmp_path) == {"fax.tif": "page 1 of 3 is read, the others are not"}
    index(tmp_path, tiny_folder, capsys, tmp_path / "photos", "--update")
    assert report(tmp_path) == {"fax.tif": "page 1 of 3 is read, the others are not"}
    index(tmp_path, tiny_folder, capsys, tmp_path / "photos", "--update", "--tile", "16", "--overlap", "0")
    assert report(tmp_path) == {"fax.tif": "page 1 of 3 is read, the others are not"}


@pytest.mark.parametrize("suffix", ["tif", "jp2", "scene"])
def test_content_decides_what_is_cut_into_tiles(tmp_path, suffix):
    path = str(tmp_path / f"B04.{suffix}")
    driver = "JP2OpenJPEG" if suffix == "jp2" else "GTiff"
    write_raster(path, ramp(96, 96, 1, np.uint16, 3000), driver=driver)
    alone, folder = Collection(path), Collection(str(tmp_path), tile=64, overlap=0)
    assert alone.settings["tile"] == 512 and len(entries_of(alone)) == 1 and len(entries_of(folder)) == 4
    item, tile = entries_of(folder)[3]
    again = read_box(folder.source_of(item), item["box"])
    assert item["box"] == [32, 32, 96, 96] and np.array_equal(np.asarray(again), np.asarray(tile))


def test_bands_are_chosen_in_every_container(tmp_path, tiny_folder, capsys):
    values = ramp(40, 50, 3, np.uint16, 3000)
    (tmp_path / "scenes").mkdir()
    for name, driver in (("a.tif", "GTiff"), ("b.jp2", "JP2OpenJPEG"), ("c.png", "PNG")):
        options = {"QUALITY": 100, "REVERSIBLE": "YES"} if driver == "JP2OpenJPEG" else {}
        write_raster(tmp_path / "scenes" / name, values, driver=driver, **options)
    assert "3 rows; 3 embedded" in index(tmp_path, tiny_folder, capsys, tmp_path / "scenes", "--bands", "3", "2", "1")
    (vectors, _), = VectorIndex.open(tmp_path / "index").batches()  # fmt: skip
    assert np.allclose(vectors, vectors[0], atol=1e-6)


def test_a_folder_without_a_picture_says_what_is_there(tmp_path, tiny_folder, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.doc").write_text("x")
    (tmp_path / "empty" / "b.vrt").write_text("<VRTDataset/>")
    said = index(tmp_path, tiny_folder, capsys, tmp_path / "empty", expected=2)
    assert "no picture in it (1 .doc; b.vrt: names other files" in said


def test_a_home_of_nobody_is_a_folder_that_is_not_there(tmp_path, tiny_folder, capsys):
    said = index(tmp_path, tiny_folder, capsys, "~nosuchuser/photos", expected=2)
    assert "~nosuchuser/photos" in said and said.count("\n") == 1
    assert Collection(str(tmp_path), image_root="~nosuchuser/p").settings["image_root"].endswith("~nosuchuser/p")


def test_a_virtual_raster_is_refused_in_folders_and_alone(tmp_path, tiny_folder, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.effect_noise((40, 30), 50).convert("RGB").save(folder / "good.png")
    (folder / "mosaic.vrt").write_text("<VRTDataset rasterXSize='9' rasterYSize='9'/>")
    shutil.copy(folder / "mosaic.vrt", folder / "renamed.tif")
    assert "1 rows; 1 embedded, 0 unchanged, 0 removed; 2 bad" in index(tmp_path, tiny_folder, capsys, folder)
    assert "names other files" in report(tmp_path)["mosaic.vrt"] and "not an image" in report(tmp_path)["renamed.tif"]
    said = index(tmp_path / "x", tiny_folder, capsys, folder / "mosaic.vrt", expected=2)
    assert "mosaic.vrt" in said and not (tmp_path / "x" / "index").exists()


def test_the_limit_holds_for_whole_scenes_and_tiles_are_the_way_out(tmp_path, tiny_folder, capsys, monkeypatch):
    (tmp_path / "scenes").mkdir()
    write_raster(tmp_path / "scenes" / "large.tif", ramp(100, 100, 1, np.uint16, 900))
    monkeypatch.setattr(scenes, "MAX_PIXELS", 9_999)
    assert "0 rows" in index(tmp_path, tiny_folder, capsys, tmp_path / "scenes")
    assert "100 x 100 pixels, more than 9,999" in report(tmp_path)["large.tif"]
    words = ("--update", "--tile", "64", "--overlap", "0")
    assert "4 rows; 4 embedded" in index(tmp_path, tiny_folder, capsys, tmp_path / "scenes", *words)
    assert pixels.MAX_PIXELS > 9_999


def test_a_decimal_is_a_number_that_a_condition_can_compare():
    row = {"price": Decimal("1.50"), "none": Decimal("NaN"), "image": b""}
    assert json.loads(fields_of(row, ["image"])) == {"price": 1.5}
