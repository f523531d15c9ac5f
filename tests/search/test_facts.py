"""What a file says of its picture: size, date and place; nothing where it says nothing, or nonsense."""

import json
from pathlib import Path

import numpy as np
import pytest
from photos import photograph
from PIL.TiffImagePlugin import IFDRational
from rasters import write_raster

from vsehub.search.facts import Facts
from vsehub.search.filters import chosen_rows
from vsehub.search.stores.places import open_index

BERN = {1: "N", 2: (46.0, 56.0, 52.8), 3: "E", 4: (7.0, 26.0, 50.64)}
LIMA = {1: "S", 2: (12.0, 2.0, 45.6), 3: "W", 4: (77.0, 1.0, 40.8)}


def said(path, box=None) -> dict:
    return json.loads(Facts(str(path)).fields(box))


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.png"])
def test_a_photograph_says_its_size_its_date_and_its_place(tmp_path, name):
    path = photograph(tmp_path / name, "2024:06:01 12:30:00", BERN)
    expected = {"width": 40, "height": 30, "taken": "2024-06-01T12:30:00", "longitude": 7.4474, "latitude": 46.948}
    assert said(path) == pytest.approx(expected)


def test_exif_behind_the_pixels_of_a_png_is_found_without_decoding_these(tmp_path, monkeypatch):
    content = Path(photograph(tmp_path / "a.png", "2024:06:01 12:30:00", orientation=6)).read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    last = content.index(b"IEND") - 4
    late = content[:start] + content[end:last] + content[start:end] + content[last:]
    (tmp_path / "late.png").write_bytes(late)
    (tmp_path / "none.png").write_bytes(content[:start] + content[end:])
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", None)
    assert said(tmp_path / "late.png") == {"width": 30, "height": 40, "taken": "2024-06-01T12:30:00"}
    assert said(tmp_path / "none.png") == {"width": 40, "height": 30}


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_sides_are_those_of_the_upright_picture(tmp_path, name):
    found = said(photograph(tmp_path / name, orientation=6))
    assert (found["width"], found["height"]) == (30, 40)


def test_south_and_west_are_negative(tmp_path):
    found = said(photograph(tmp_path / "a.jpg", gps=LIMA))
    assert (found["longitude"], found["latitude"]) == pytest.approx((-77.028, -12.046))


@pytest.mark.parametrize("taken", ["0000:00:00 00:00:00", "    :  :     :  :  ", "yesterday", "2024:02:31 10:00:00"])
def test_a_date_that_is_none_is_left_out(tmp_path, taken):
    assert said(photograph(tmp_path / "a.jpg", taken)) == {"width": 40, "height": 30}


@pytest.mark.parametrize(
    "gps",
    [
        {1: "N", 2: (IFDRational(0, 0), 0.0, 0.0), 3: "E", 4: (7.0, 0.0, 0.0)},
        {1: "N", 2: (95.0, 0.0, 0.0), 3: "E", 4: (7.0, 0.0, 0.0)},
        {1: "N", 2: (46.0, 56.0, 0.0)},
        {1: "N", 3: "E", 4: (7.0, 0.0, 0.0)},
    ],
)
def test_a_place_that_is_none_is_left_out(tmp_path, gps):
    assert said(photograph(tmp_path / "a.jpg", gps=gps)) == {"width": 40, "height": 30}


def test_a_file_that_is_no_picture_says_nothing(tmp_path):
    for content in (b"", b"\xff\xd8\xff no picture", b"text"):
        (tmp_path / "a.jpg").write_bytes(content)
        assert Facts(str(tmp_path / "a.jpg")).fields() is None
    assert Facts(str(tmp_path / "gone.jpg")).fields() is None


def test_a_tile_of_a_scene_lies_where_its_middle_is(tmp_path):
    affine = pytest.importorskip("affine", reason="the extra `geo` is not installed")
    pixels = np.full((40, 60, 3), 90, np.uint8)
    path = tmp_path / "a.tif"
    write_raster(path, pixels, crs="EPSG:4326", transform=affine.Affine(0.5, 0, 10, 0, -0.5, 60))
    found = said(path, (20, 10, 40, 30))
    assert (found["width"], found["height"]) == (20, 20)
    assert (found["longitude"], found["latitude"]) == pytest.approx((10 + 15, 60 - 10), abs=0.6)
    whole = said(path)
    assert (whole["longitude"], whole["latitude"]) == pytest.approx((25, 50), abs=0.6)


def test_photographs_are_found_by_date_and_by_a_box_in_degrees(tmp_path, tiny_folder, vsehub):
    photos = tmp_path / "photos"
    photos.mkdir()
    photograph(photos / "bern.jpg", "2024:06:01 12:30:00", BERN)
    photograph(photos / "lima.jpg", "2023:01:01 00:00:00", LIMA, size=(50, 30))
    photograph(photos / "nowhere.jpg")
    vsehub("index", photos, "--model", tiny_folder, "--out", tmp_path / "photos.index")
    snapshot = open_index(str(tmp_path / "photos.index")).snapshot
    names = [str(path).rsplit("/", 1)[-1] for path in snapshot.column("path")]
    for where, expected in (
        ("taken >= '2024-01-01'", {"bern.jpg"}),
        ("5 < longitude < 11 and 45 < latitude < 48", {"bern.jpg"}),
        ("width == 50", {"lima.jpg"}),
        ("taken is None", {"nowhere.jpg"}),
    ):
        kept = chosen_rows(snapshot, where=where)
        assert {name for name, chosen in zip(names, kept) if chosen} == expected
