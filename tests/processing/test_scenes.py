"""16-bit and multi-band TIFF, as files that tifffile writes: bands, percentiles, nodata, tiles, coordinates."""

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vsehub.processing import scenes as overhead
from vsehub.processing.pixels import BadImageError
from vsehub.processing.scenes import (
    box_to_coordinates,
    geo_transform,
    is_overhead,
    open_any,
    open_overhead,
    read_box,
    read_tiles,
)

tifffile = pytest.importorskip("tifffile", reason="the extra `geo` is not installed")


def write(path, values, **kwargs):
    tifffile.imwrite(path, values, **kwargs)
    return str(path)


def ramp(height, width, bands, dtype, top):
    """Bands that rise from 0 to `top`, each in another direction."""
    y, x = np.mgrid[0:height, 0:width]
    found = [(x / (width - 1), y / (height - 1), (x + y) / (width + height - 2))[band % 3] for band in range(bands)]
    return (np.stack(found, -1) * top).astype(dtype)


LAYOUTS = {
    "plain": {},
    "tiled": {"tile": (32, 48)},
    "strips": {"rowsperstrip": 7},
    "apart": {"planarconfig": "separate"},
    "apart and tiled": {"planarconfig": "separate", "tile": (16, 16)},
    "packed": {"compression": "zlib"},
    "big": {"bigtiff": True},
    "big-endian": {"byteorder": ">"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_twelve_bits_are_stretched_whatever_the_layout(tmp_path, layout):
    values, options = ramp(60, 90, 4, np.uint16, 4095), dict(LAYOUTS[layout])
    stored = np.moveaxis(values, -1, 0) if options.get("planarconfig") == "separate" else values
    path = write(tmp_path / "scene.tif", stored, photometric="minisblack", **{"planarconfig": "contig", **options})
    assert is_overhead(path)
    found = np.asarray(open_any(path), float)
    for band in range(3):
        low, high = np.percentile(values[..., band], (2, 98))
        expected = ((values[..., band] - low) / (high - low) * 255).clip(0, 255).round()
        assert np.abs(found[..., band] - expected).max() <= 1


def test_bands_are_chosen_by_number_and_a_missing_one_is_named(tmp_path):
    values = ramp(20, 30, 13, np.float32, 1.0)
    values[:5, :5] = np.nan
    path = write(tmp_path / "sentinel.tif", values, photometric="minisblack", planarconfig="contig")
    whole, swapped = np.asarray(open_any(path)), np.asarray(open_any(path, bands=(3, 2, 1)))
    assert np.array_equal(whole[..., ::-1], swapped) and (whole[:5, :5] == 0).all()
    with pytest.raises(BadImageError, match=r"bands \(1, 2, 14\) of 13; give three numbers from 1 to 13"):
        open_any(path, bands=(1, 2, 14))


def test_nodata_is_black_and_no_part_of_the_percentiles(tmp_path):
    values = ramp(40, 40, 1, np.int16, 1000)[..., 0]
    values[:, :20] = -9999
    path = write(tmp_path / "height.tif", values, extratags=[(42113, "s", 6, "-9999", True)])
    found = np.asarray(open_any(path))
    assert (found[:, :20] == 0).all() and found[:, 20:].max() == 255 and (found[..., 0] == found[..., 2]).all()
    assert np.percentile(values[:, 20:], 2) > 0 and found[0, 25, 0] < 100


def test_plain_pictures_stay_with_pillow(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    for kind in ("TIFF", "PNG"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind)
        assert not is_overhead(buffer.getvalue()) and np.array_equal(np.asarray(open_any(buffer.getvalue())), pixels)
    with pytest.raises(BadImageError, match="no TIFF"):
        open_any(buffer.getvalue(), bands=(1, 2, 3))
    with pytest.raises(BadImageError, match="no such file"):
        open_any(str(tmp_path / "absent.tif"))


def test_eight_bit_bands_keep_their_values(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (20, 30, 5), dtype=np.uint8)
    path = write(tmp_path / "five.tif", values, photometric="minisblack", planarconfig="contig")
    assert np.array_equal(np.asarray(open_any(path, bands=(5, 1, 2))), values[..., [4, 0, 1]])


@pytest.mark.parametrize(("height", "width"), [(150, 210), (64, 64), (40, 300)])
def test_tiles_cover_the_scene_and_agree_with_it(tmp_path, height, width):
    values = ramp(height, width, 3, np.uint16, 3000)
    path = write(tmp_path / "scene.tif", values, photometric="rgb", tile=(32, 32))
    whole, seen = np.asarray(open_overhead(path), int), np.zeros((height, width), int)
    for (left, top, right, bottom), image in read_tiles(path, tile=64, overlap=16):
        assert image.size == (min(64, width), min(64, height)) == (right - left, bottom - top)
        assert np.abs(np.asarray(image, int) - whole[top:bottom, left:right]).max() <= 2
        seen[top:bottom, left:right] += 1
    assert seen.min() >= 1
    with pytest.raises(ValueError, match="overlap 64"):
        next(read_tiles(path, tile=64, overlap=64))


@pytest.mark.parametrize("extra", ["unspecified", "unassalpha"])
def test_the_fourth_of_four_8_bit_bands_can_be_chosen(tmp_path, extra):
    values = np.random.default_rng(0).integers(0, 256, (9, 7, 4), np.uint8)  # as NAIP: red, green, blue, infrared
    path = write(tmp_path / "naip.tif", values, photometric="rgb", extrasamples=[extra])
    for source in (path, Path(path).read_bytes()):
        assert np.array_equal(np.asarray(open_any(source, bands=(4, 3, 2))), values[..., [3, 2, 1]])
    with pytest.raises(BadImageError, match="from 1 to 4"):
        open_any(path, bands=(5, 3, 2))


def test_a_scene_knows_where_it_lies(tmp_path):
    keys = (1, 1, 0, 1, 3072, 0, 1, 32633)
    tags = [(33550, "d", 3, (0.5, 0.5, 0.0), True), (33922, "d", 6, (0, 0, 0, 400000.0, 5000000.0, 0), True)]
    tags.append((34735, "H", 8, keys, True))
    path = write(tmp_path / "geo.tif", ramp(20, 30, 3, np.uint16, 900), photometric="rgb", extratags=tags)
    transform, crs = geo_transform(path)
    assert transform == (400000.0, 0.5, 0.0, 5000000.0, 0.0, -0.5)
    assert crs in ("EPSG:32633", None)
    assert box_to_coordinates((10, 4, 20, 8), transform) == (400005.0, 4999996.0, 400010.0, 4999998.0)
    assert geo_transform(write(tmp_path / "nowhere.tif", ramp(8, 8, 3, np.uint16, 9))) == (None, None)


def test_a_scene_of_points_begins_half_a_pixel_before_the_first(tmp_path):
    keys = (1, 1, 0, 2, 1025, 0, 1, 2, 3072, 0, 1, 32633)  # GTRasterTypeGeoKey 2: PixelIsPoint
    tags = [(33550, "d", 3, (10.0, 10.0, 0.0), True), (33922, "d", 6, (0, 0, 0, 400000.0, 5000000.0, 0), True)]
    tags.append((34735, "H", 12, keys, True))
    path = write(tmp_path / "points.tif", ramp(20, 30, 3, np.uint16, 900), photometric="rgb", extratags=tags)
    assert geo_transform(path) == ((399995.0, 10.0, 0.0, 5000005.0, 0.0, -10.0), "EPSG:32633")


def test_a_torn_file_and_a_missing_library_are_told(tmp_path, monkeypatch):
    path = write(
        tmp_path / "scene.tif", ramp(200, 200, 4, np.uint16, 4095), photometric="minisblack", planarconfig="contig"
    )
    data = Path(path).read_bytes()
    with pytest.raises(BadImageError, match="scene"):
        open_any(data[: len(data) // 2], name="scene")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ImportError, match=r"vsehub\[geo\]"):
        overhead.open_overhead(path)


def test_a_box_is_the_tile_that_was_cut_there_and_torn_scenes_are_named(tmp_path):
    path = write(tmp_path / "scene.tif", ramp(90, 120, 4, np.uint16, 3000), rowsperstrip=8, photometric="rgb")
    for box, tile in read_tiles(path, tile=48, overlap=16, bands=(4, 2, 1)):
        assert np.array_equal(np.asarray(read_box(path, box, bands=(4, 2, 1))), np.asarray(tile))
    with pytest.raises(BadImageError, match="no box"):
        read_box(path, (100, 0, 148, 48))
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[: len(whole) * 2 // 3])
    for reader in (lambda: list(read_tiles(path, 48, 16)), lambda: read_box(path, (0, 0, 48, 48))):
        with pytest.raises(BadImageError, match="does not decode"):
            reader()


def test_a_pipe_is_no_picture_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.tif")
    with pytest.raises(BadImageError, match="not a regular file"):
        open_any(tmp_path / "pipe.tif")
