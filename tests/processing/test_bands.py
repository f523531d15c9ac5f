"""What the numbers of a raster mean: palettes, ink, inverted greys, Lab, alpha, masks, nodata; whole and in tiles."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rasters import assert_one_reader, patch_tag, ramp, stretched, write_raster

from vsehub.processing.pixels import BadImageError, open_image
from vsehub.processing.scenes import open_any

pytest.importorskip("rasterio", reason="the extra `geo` is not installed")
RANDOM = np.random.default_rng(0)
TABLE = {n: (n * 7 % 256, n * 13 % 256, 255 - n, 255) for n in range(256)}


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_palette_shows_its_colours_not_its_indices(tmp_path, bits):
    values = RANDOM.integers(0, min(2**bits, 256), (40, 30)).astype(np.uint16 if bits == 16 else np.uint8)
    options = {} if bits in (8, 16) else {"NBITS": bits}
    path = write_raster(tmp_path / "classes.tif", values, colormap=TABLE, photometric="PALETTE", **options)
    expected = np.array([TABLE[n][:3] for n in range(256)])[values]
    assert np.array_equal(assert_one_reader(path), expected)


@pytest.mark.parametrize("bits", [1, 3, 4, 8])
def test_white_is_zero_where_the_file_says_so(tmp_path, bits):
    values = ramp(40, 30, 1, np.uint8, 2**bits - 0.01)[..., 0]
    path = write_raster(tmp_path / "fax.tif", values, photometric="MINISWHITE", NBITS=bits)
    expected = np.round((2**bits - 1 - values.astype(int)) * 255 / (2**bits - 1))
    assert np.array_equal(assert_one_reader(path)[..., 0], expected)
    if bits in (1, 8):
        assert np.array_equal(assert_one_reader(path), np.asarray(open_image(path)))


@pytest.mark.parametrize("dtype", ["uint16", "float32", "int16"])
def test_white_is_zero_in_deep_scenes_too(tmp_path, dtype):
    values = ramp(40, 30, 1, np.float64, 3000)[..., 0].astype(dtype)
    path = write_raster(tmp_path / "negative.tif", values, photometric="MINISWHITE")
    assert np.abs(assert_one_reader(path)[..., 0] - stretched(-values.astype(float))).max() <= 1


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_ink_becomes_light(tmp_path, interleave):
    values = ramp(40, 30, 4, np.uint8, 255)
    path = write_raster(tmp_path / "ink.tif", values, photometric="CMYK", interleave=interleave)
    expected = np.asarray(Image.fromarray(values, "CMYK").convert("RGB")).astype(int)
    assert np.abs(assert_one_reader(path) - expected).max() <= 1
    deep = write_raster(
        tmp_path / "deep.tif", values.astype(np.uint16) * 257, photometric="CMYK", interleave=interleave
    )
    ink = values / 255.0
    light = (1 - ink[..., :3]) * (1 - ink[..., 3:])
    found = assert_one_reader(deep)
    assert all(np.abs(found[..., b] - stretched(light[..., b])).max() <= 1 for b in range(3))


def test_lab_is_converted_or_refused_by_name(tmp_path):
    for lab, rgb in [((255, 128, 128), (255, 255, 255)), ((0, 128, 128), (0, 0, 0)), ((136, 208, 195), (255, 0, 0))]:
        Image.new("LAB", (20, 30), lab).save(tmp_path / "lab.tif")
        assert np.abs(assert_one_reader(str(tmp_path / "lab.tif")) - rgb).max() < 45  # libtiff takes the white of D50
    path = write_raster(tmp_path / "grey.tif", ramp(20, 30, 1, np.uint16, 900))
    for photometric, name in ((9, "ICCLAB"), (32844, "LogL"), (8, "CIELAB of more than 8 bits"), (32803, "CFA")):
        patch_tag(path, 262, photometric)
        with pytest.raises(BadImageError, match=f"grey.tif: .*{name}.*convert it to RGB|grey.tif: does not decode"):
            open_any(path)


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("premultiplied", [False, True])
def test_alpha_is_laid_on_white(tmp_path, bands, premultiplied):
    colours = RANDOM.integers(0, 256, (40, 30, bands)).astype(float)
    alpha = np.zeros((40, 30, 1)) + [0, 64, 128, 255, 200][0:1]
    alpha[:, 10:20], alpha[:, 20:] = 128, 255
    stored = np.concatenate([colours * (alpha / 255 if premultiplied else 1), alpha], -1).round().astype(np.uint8)
    options = {"ALPHA": "PREMULTIPLIED" if premultiplied else "NON-PREMULTIPLIED"}
    path = write_raster(tmp_path / "alpha.tif", stored, photometric="RGB" if bands == 3 else "MINISBLACK", **options)
    expected = colours * (alpha / 255) + 255 - alpha
    assert np.abs(assert_one_reader(path) - expected).max() <= 1
    assert (assert_one_reader(path)[:, :10] == 255).all()


def test_alpha_of_deep_scenes_is_laid_on_white_and_hidden_pixels_stretch_nothing(tmp_path):
    values = ramp(40, 60, 4, np.uint16, 3000)
    values[..., 3] = 65535
    values[:, :20, :3], values[:, :20, 3] = 60000, 0
    found = assert_one_reader(write_raster(tmp_path / "alpha.tif", values, photometric="RGB", ALPHA="YES"))
    assert (found[:, :20] == 255).all()
    seen = np.arange(60)[None].repeat(40, 0) >= 20
    for band in range(3):
        assert np.abs(found[..., band] - stretched(values[..., band], seen))[seen].max() <= 1


def test_bands_that_are_chosen_are_no_alpha(tmp_path):
    values = RANDOM.integers(0, 256, (9, 7, 4), np.uint8)  # as NAIP: red, green, blue, infrared
    for options in ({"ALPHA": "NO"}, {"ALPHA": "YES"}):
        path = write_raster(tmp_path / "naip.tif", values, photometric="RGB", **options)
        assert np.array_equal(assert_one_reader(path, bands=(4, 3, 2)), values[..., [3, 2, 1]])
        with pytest.raises(BadImageError, match="from 1 to 4"):
            open_any(path, bands=(5, 3, 2))


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("int16", -9999), ("uint16", 65535), ("float32", -3.4e38), ("float64", np.nan)]
)
def test_nodata_is_black_and_no_part_of_the_percentiles(tmp_path, dtype, nodata):
    values = (ramp(40, 40, 1, np.float64, 1000)[..., 0] + 5).astype(dtype)
    values[:, :20] = nodata
    found = assert_one_reader(write_raster(tmp_path / "height.tif", values, nodata=nodata))
    seen = np.arange(40)[None].repeat(40, 0) >= 20
    assert (found[:, :20] == 0).all() and np.abs(found[..., 0] - stretched(values, seen)).max() <= 1


def test_a_pixel_is_missing_where_all_its_bands_are(tmp_path):
    values = RANDOM.integers(1, 255, (20, 30, 3), np.uint8)
    values[:5], values[10, :, 0] = 255, 255  # nothing there, and a bright red
    found = assert_one_reader(write_raster(tmp_path / "white.tif", values, nodata=255))
    assert (found[:5] == 0).all() and np.array_equal(found[5:], values[5:])


def test_a_mask_inside_the_file_hides_what_it_masks(tmp_path):
    values, mask = ramp(40, 60, 3, np.uint16, 3000), np.arange(60)[None].repeat(40, 0) >= 25
    values[~mask] = 50000
    found = assert_one_reader(write_raster(tmp_path / "masked.tif", values, mask=mask))
    assert (found[~mask] == 0).all()
    assert all(np.abs(found[..., b] - stretched(values[..., b], mask)).max() <= 1 for b in range(3))


@pytest.mark.parametrize("bands", [1, 3])
def test_the_hidden_colour_of_a_deep_png_is_white(tmp_path, bands):
    values = ramp(40, 30, bands, np.uint16, 3000)
    values[:9] = 3000
    path = write_raster(tmp_path / "x.png", values, driver="PNG", nodata=3000) if bands == 1 else None
    if bands == 3:
        path = tmp_path / "x.png"
        data = Path(write_raster(path, values, driver="PNG")).read_bytes()
        body, start = b"tRNS" + struct.pack(">HHH", *[3000] * 3), data.index(b"IDAT") - 4
        chunk = struct.pack(">I", 6) + body + struct.pack(">I", zlib.crc32(body))
        path.write_bytes(data[:start] + chunk + data[start:])
    assert (np.asarray(open_any(path))[:9] == 255).all()


def test_a_band_beside_grey_that_is_no_alpha_is_ignored(tmp_path):
    values = RANDOM.integers(0, 256, (20, 30, 2), np.uint8)
    path = write_raster(tmp_path / "two.tif", values, photometric="MINISBLACK", ALPHA="NO")
    assert np.array_equal(assert_one_reader(path)[..., 1], values[..., 0])
