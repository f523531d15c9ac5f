"""Scenes and deep pictures: one reader for whole, tiles and boxes; layouts, depth, limits, memory."""

import io
import itertools
import os
import socket
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rasters import assert_one_reader, declare_raster, patch_tag, pixels, ramp, stretched, write_raster

from vsehub.processing import raster, scenes
from vsehub.processing.pixels import BadImageError, open_image
from vsehub.processing.scenes import open_any, pages_of, read_box, read_tiles

pytest.importorskip("rasterio", reason="the extra `geo` is not installed")


LAYOUTS = {
    "plain": {},
    "tiled": {"tiled": True, "blockxsize": 32, "blockysize": 16},
    "strips": {"blockysize": 7},
    "apart": {"interleave": "band"},
    "apart and tiled": {"interleave": "band", "tiled": True, "blockxsize": 16, "blockysize": 16},
    "packed": {"compress": "deflate", "predictor": 2},
    "zstd": {"compress": "zstd"},
    "big": {"BIGTIFF": "YES"},
    "big-endian": {"ENDIANNESS": "BIG"},
    "big and big-endian": {"BIGTIFF": "YES", "ENDIANNESS": "BIG"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_twelve_bits_are_stretched_whatever_the_layout(tmp_path, layout):
    values = ramp(60, 90, 4, np.uint16, 4095)
    whole = assert_one_reader(write_raster(tmp_path / "scene.tif", values, **LAYOUTS[layout]))
    for band in range(3):
        assert np.abs(whole[..., band] - stretched(values[..., band])).max() <= 1


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        ("int16", -5000, 9000),
        ("uint16", 0, 65535),
        ("int32", -(2**31), 2**31 - 1),
        ("uint32", 0, 2**32 - 1),
        ("int64", -(2**62), 2**62),
        ("uint64", 0, 2**63),
        ("float32", -1e-3, 1e30),
        ("float64", -1e300, 1e300),
    ],
)
def test_numbers_of_every_type_are_stretched(tmp_path, dtype, low, high):
    steps = np.linspace(0, 1, 40 * 50).reshape(40, 50)
    values = (low * (1 - steps) + high * steps).astype(dtype)
    whole = assert_one_reader(write_raster(tmp_path / "numbers.tif", values))
    assert np.abs(whole[..., 0] - stretched(values)).max() <= 1 and np.ptp(whole) == 255


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "complex_int16"])
def test_complex_numbers_are_seen_by_their_magnitude(tmp_path, dtype):
    turns = np.exp(1j * np.linspace(0, 9, 40 * 50)).reshape(40, 50)
    size = ramp(40, 50, 1, np.float64, 3000)[..., 0]
    values = (turns * size).astype("complex128" if dtype == "complex128" else "complex64")
    whole = assert_one_reader(write_raster(tmp_path / "radar.tif", values, dtype=dtype))
    assert np.abs(whole[..., 0] - stretched(size)).max() <= 2


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("bands", [1, 3])
def test_few_bits_fill_the_range_of_eight(tmp_path, bits, bands):
    full = 2**bits - 1
    values = ramp(33, 47, bands, np.uint8, full + 0.99)
    whole = assert_one_reader(write_raster(tmp_path / "few.tif", values, NBITS=bits))
    assert np.array_equal(whole, np.broadcast_to(np.round(values * 255.0 / full), whole.shape))


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 15])
def test_odd_depths_are_stretched(tmp_path, bits):
    values = ramp(33, 47, 1, np.uint16, 2**bits - 1)
    whole = assert_one_reader(write_raster(tmp_path / "odd.tif", values, NBITS=bits))
    assert np.abs(whole[..., 0] - stretched(values[..., 0])).max() <= 1


def test_signed_eight_bits_do_not_wrap(tmp_path):
    values = np.arange(-128, 128, dtype=np.int8).reshape(16, 16)
    whole = assert_one_reader(write_raster(tmp_path / "signed.tif", values))
    assert np.array_equal(whole[..., 0], values.astype(int) + 128)


def test_bands_are_chosen_by_number_and_a_missing_one_is_named(tmp_path):
    values = ramp(20, 30, 13, np.float32, 1.0)
    values[:5, :5] = np.nan
    path = write_raster(tmp_path / "sentinel.tif", values)
    whole, swapped = pixels(path), assert_one_reader(path, bands=(3, 2, 1))
    assert np.array_equal(whole[..., ::-1], swapped) and (whole[:5, :5] == 0).all()
    with pytest.raises(BadImageError, match=r"bands \(1, 2, 14\) of 13; give three numbers from 1 to 13"):
        open_any(path, bands=(1, 2, 14))


def test_the_bands_that_a_file_calls_red_green_and_blue_are_taken(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (20, 30, 4), np.uint8)
    names = ("blue", "green", "red", "undefined")
    path = write_raster(tmp_path / "bgr.tif", values, interpretation=names, photometric="MINISBLACK")
    assert np.array_equal(assert_one_reader(path), values[..., [2, 1, 0]])


def test_infinities_are_no_part_of_a_picture(tmp_path):
    values = ramp(20, 30, 1, np.float32, 1000)[..., 0]
    values[:4, :4], values[4:8, :4] = np.inf, -np.inf
    whole = assert_one_reader(write_raster(tmp_path / "infinite.tif", values))
    assert (whole[:8, :4] == 0).all() and np.abs(whole[..., 0] - stretched(values, np.isfinite(values))).max() <= 1


@pytest.mark.parametrize(
    ("driver", "suffix", "options"),
    [("JP2OpenJPEG", "jp2", {"QUALITY": 100, "REVERSIBLE": "YES"}), ("PNG", "png", {}), ("PNM", "pgm", {})],
)
@pytest.mark.parametrize("bands", [1, 3])
def test_the_same_stretch_in_every_container(tmp_path, driver, suffix, options, bands):
    values = ramp(40, 70, bands, np.uint16, 3000)
    path = write_raster(
        tmp_path / f"B04.{suffix if bands == 1 else suffix.replace('pgm', 'ppm')}", values, driver=driver, **options
    )
    same = write_raster(tmp_path / "same.tif", values)
    assert np.array_equal(pixels(path), pixels(same)) and np.array_equal(pixels(Path(path).read_bytes()), pixels(same))
    if bands == 3:
        assert np.array_equal(pixels(path, bands=(3, 1, 1)), pixels(same, bands=(3, 1, 1)))
        assert np.array_equal(assert_one_reader(path), pixels(same))


def test_twelve_bit_jpeg_is_stretched(tmp_path):
    values = ramp(64, 96, 1, np.uint16, 4000)
    path = write_raster(tmp_path / "deep.jpg", values, driver="JPEG", NBITS=12, QUALITY=100)
    assert np.abs(pixels(path)[..., 0] - stretched(values[..., 0])).max() <= 2
    with pytest.raises(BadImageError, match="deep"):
        open_any(Path(path).read_bytes()[:600], name="deep")


def test_chosen_bands_of_eight_bit_pictures_keep_their_values():
    values = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    for kind in ("PNG", "TIFF", "BMP"):
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, kind)
        assert np.array_equal(pixels(buffer.getvalue()), values)
        assert np.array_equal(pixels(buffer.getvalue(), bands=(3, 2, 1)), values[..., ::-1])
    with pytest.raises(BadImageError, match="AVIF has no bands"):
        open_any(b"\0\0\0\x20ftypavif" + bytes(200), bands=(1, 2, 3))


@pytest.mark.parametrize("quality", [75, 95])
def test_jpeg_inside_a_scene_is_cut_into_tiles_like_any_other(tmp_path, quality):
    values = np.asarray(Image.effect_noise((300, 200), 60).convert("RGB"))
    options = {"compress": "jpeg", "photometric": "ycbcr", "JPEG_QUALITY": quality, "tiled": True}
    path = write_raster(tmp_path / "ortho.tif", values, blockxsize=64, blockysize=64, **options)
    assert np.abs(assert_one_reader(path, 100, 30) - values).mean() < 12


def test_a_webp_scene_is_read_whole_too(tmp_path):
    values = ramp(128, 128, 3, np.uint8, 255)
    path = write_raster(
        tmp_path / "web.tif", values, compress="webp", WEBP_LOSSLESS=True, tiled=True, blockxsize=64, blockysize=64
    )
    assert np.array_equal(assert_one_reader(path, 50, 10), values)


@pytest.mark.parametrize(("height", "width"), [(150, 210), (64, 64), (40, 300), (1, 1), (1, 500), (300, 3)])
def test_tiles_cover_scenes_of_every_shape(tmp_path, height, width):
    path = write_raster(tmp_path / "scene.tif", ramp(height, width, 3, np.uint16, 3000))
    assert_one_reader(path, 64, 16)
    with pytest.raises(ValueError, match="overlap 64"):
        next(read_tiles(path, tile=64, overlap=64))


@pytest.mark.parametrize("layout", [{}, {"tiled": True, "blockxsize": 64, "blockysize": 64}])
def test_the_percentiles_of_a_large_scene_are_those_of_a_sample_and_the_same_everywhere(tmp_path, monkeypatch, layout):
    monkeypatch.setattr(scenes, "SMALL", 10_000)
    monkeypatch.setattr(scenes, "SAMPLE", 6_000)
    values = (ramp(400, 500, 3, np.float64, 3000) + np.random.default_rng(0).normal(0, 50, (400, 500, 3))).clip(0)
    path = write_raster(tmp_path / "scene.tif", values.astype(np.uint16), **layout)
    whole = assert_one_reader(path, 150, 50)
    assert all(np.abs(whole[..., b] - stretched(values[..., b])).mean() < 12 for b in range(3))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_scene_is_turned_upright_like_a_photograph(tmp_path, orientation):
    values = np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "turned.tif", tiffinfo={274: orientation})
    upright = np.asarray(open_image(tmp_path / "turned.tif"))
    assert np.array_equal(assert_one_reader(str(tmp_path / "turned.tif")), upright)
    assert upright.shape[:2] == ((50, 30) if orientation >= 5 else (30, 50))


def test_a_box_that_leads_out_of_the_scene_is_refused(tmp_path):
    path = write_raster(tmp_path / "scene.tif", ramp(90, 120, 4, np.uint16, 3000))
    for box in ((100, 0, 148, 48), (-1, 0, 5, 5), (5, 5, 5, 9), (0, 0, 1, 91)):
        with pytest.raises(BadImageError, match="no box"):
            read_box(path, box)


# --- Blank tiles and pages -----------------------------------------------------------------------------------------


def test_blank_tiles_are_told_from_others(tmp_path):
    values = ramp(64, 96, 3, np.uint16, 3000) + 1
    values[:32, :32], values[:32, 32:64] = 0, 7  # nothing there, and one colour
    path = write_raster(tmp_path / "scene.tif", values, nodata=0)
    blank = {box[:2]: image.info["blank"] for box, image in read_tiles(path, 32, 0)}
    assert blank == {(0, 0): True, (32, 0): True, (64, 0): False, (0, 32): False, (32, 32): False, (64, 32): False}


def test_a_scene_without_a_valid_pixel_is_black_and_blank(tmp_path):
    path = write_raster(tmp_path / "empty.tif", np.full((40, 40), np.nan, np.float32))
    assert (pixels(path) == 0).all() and all(image.info["blank"] for _, image in read_tiles(path, 20, 0))


def test_the_first_of_several_pages_is_read_and_overviews_are_no_pages(tmp_path):
    pages = [Image.new("L", (20, 20), value) for value in (10, 20, 30)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    assert (assert_one_reader(str(tmp_path / "pages.tif"), 16, 4) == 10).all() and pages_of(tmp_path / "pages.tif") == 3
    options = {"tiled": True, "blockxsize": 128, "blockysize": 128}
    path = write_raster(tmp_path / "one.tif", ramp(512, 512, 1, np.uint8, 255), **options)
    with pytest.importorskip("rasterio").open(path, "r+") as file:
        file.build_overviews([2, 4])
    assert pages_of(path) == 1 and pages_of(tmp_path / "absent.tif") == 1 and pages_of(b"II*\0") == 1


def directories_over_each_other(count=2000, entries=65535):
    """A classic TIFF of 0.8 MB whose directories start 16 bytes apart, each of the largest size."""
    data = bytearray(8 + 16 * count + 2 + 12 * entries + 4)
    data[:8] = struct.pack("<2sHI", b"II", 42, 8)
    for number in range(count):
        place = 8 + 16 * number
        struct.pack_into("<H", data, place, entries)
        struct.pack_into("<I", data, place + 2 + 12 * entries, place + 16)
    return bytes(data)


CORRUPT = {
    "a directory beyond any file": b"II+\0\x08\0\0\0" + b"\xff" * 8,
    "at the largest place": b"II+\0\x08\0\0\0" + b"\xff" * 7 + b"\x7f",
    "big-endian": b"MM\0+\0\x08\0\0" + b"\xff" * 8,
    "a huge count": b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**64 - 1) + bytes(200),
    "a next directory beyond any file": b"II+\0\x08\0\0\0" + struct.pack("<QQ20xQ", 16, 1, 2**64 - 1),
    "a circle": b"II*\0" + struct.pack("<IH12xI", 8, 1, 8),
    "classic, beyond its end": b"II*\0" + b"\xff" * 4,
    "directories over each other": directories_over_each_other(),
}


@pytest.mark.parametrize("kind", CORRUPT)
def test_a_corrupt_header_has_few_pages_soon_and_is_a_bad_picture(tmp_path, kind):
    path, start = tmp_path / "corrupt.tif", time.perf_counter()
    path.write_bytes(CORRUPT[kind])
    assert pages_of(path) == pages_of(CORRUPT[kind]) <= 40
    assert time.perf_counter() - start < 20
    for reader in (lambda: open_any(str(path)), lambda: list(read_tiles(str(path)))):
        with pytest.raises(BadImageError, match="corrupt.tif"):
            reader()


# --- Limits --------------------------------------------------------------------------------------------------------


def seconds(call, match):
    start = time.perf_counter()
    with pytest.raises(BadImageError, match=match):
        call()
    return time.perf_counter() - start


@pytest.mark.parametrize("kind", ["tiled", "strips", "jp2", "deep png"])
def test_the_limit_of_pixels_holds_before_anything_is_decoded(tmp_path, kind):
    if kind == "jp2":
        path = write_raster(tmp_path / "x.jp2", np.zeros((64, 64), np.uint16), driver="JP2OpenJPEG")
        data = bytearray(Path(path).read_bytes())
        start = data.find(b"\xff\x4f\xff\x51")
        for place in (data.find(b"ihdr") + 4, data.find(b"ihdr") + 8, start + 8, start + 12, start + 24, start + 28):
            data[place : place + 4] = (20000).to_bytes(4, "big")
        source = bytes(data)
    elif kind == "deep png":
        header = struct.pack(">IIBBBBB", 20000, 20000, 16, 2, 0, 0, 0)
        parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(99))), (b"IEND", b""))
        chunks = [struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in parts]
        source = b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
    else:
        layout = {"tiled": False, "blockysize": 20000} if kind == "strips" else {}
        source = declare_raster(tmp_path / "bomb.tif", 20000, 20000, 3, "uint16", compress="deflate", **layout)
        assert os.path.getsize(source) < 400_000
    assert seconds(lambda: open_any(source, name="bomb"), "20000 x 20000 pixels, more than 64,000,000") < 5


def test_a_block_that_is_too_large_to_decode_is_refused_with_the_remedy(tmp_path):
    path = declare_raster(
        tmp_path / "strip.tif", 20000, 20000, 3, "uint16", tiled=False, blockysize=20000, compress="deflate"
    )
    assert seconds(lambda: next(read_tiles(path)), "MB each: store it in tiles") < 5


def test_a_scene_of_billions_of_tiles_is_refused(tmp_path):
    path = declare_raster(
        tmp_path / "endless.tif", 70_000, 70_000, blockxsize=4096, blockysize=4096, compress="deflate", BIGTIFF="NO"
    )
    for tag in (256, 257):
        patch_tag(path, tag, 2_000_000_000)
    assert seconds(lambda: next(read_tiles(path)), "endless.tif") < 10
    path = declare_raster(tmp_path / "large.tif", 400_000, 400_000, blockxsize=4096, blockysize=4096)
    assert seconds(lambda: next(read_tiles(path)), "tiles, more than 250,000: use a larger --tile") < 10


MEASURE = """
import itertools, sys
from vsehub.processing.scenes import read_tiles
import rasterio, rasterio.io
def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
before = kilobytes("VmRSS:")
for path in sys.argv[1:]:
    assert sum(1 for _ in itertools.islice(read_tiles(path), 60)) == 60
    print((kilobytes("VmHWM:") - before) // 1000)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_scene_of_any_size_costs_less_than_300_megabytes(tmp_path):
    layouts = [{"tiled": True}, {"tiled": False}, {"tiled": False, "interleave": "pixel"}]
    options = {"width": 20480, "height": 20480, "count": 3, "dtype": "uint16", "compress": "deflate"}
    paths = [declare_raster(tmp_path / f"{n}.tif", **options, **layout) for n, layout in enumerate(layouts)]
    done = subprocess.run([sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 3 and all(int(most) < 300 for most in done.stdout.split()), done.stdout


# --- The boundary --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [5, 30, 200, 0.3, 0.6, 0.95])
def test_torn_scenes_are_one_error_with_their_name(tmp_path, cut):
    path = write_raster(tmp_path / "scene.tif", ramp(200, 200, 4, np.uint16, 4095), blockysize=8)
    data = Path(path).read_bytes()
    data = data[: cut if isinstance(cut, int) else int(len(data) * cut)]
    Path(path).write_bytes(data)
    for reader in (
        lambda: open_any(data, name="scene"),
        lambda: open_any(path),
        lambda: list(read_tiles(path, 48, 16)),
        lambda: read_box(path, (150, 150, 198, 198)),
    ):
        with pytest.raises(BadImageError, match="scene"):
            reader()
    assert pages_of(path) == 1


@pytest.mark.parametrize("error", [MemoryError, IndexError, TypeError, RecursionError, SystemError])
def test_whatever_a_decoder_raises_is_one_error_with_the_name(tmp_path, monkeypatch, error):
    path = write_raster(tmp_path / "scene.tif", ramp(30, 30, 1, np.uint16, 4095))

    def broken(*args):
        raise error("inside")

    monkeypatch.setattr(scenes, "read_window", broken)
    for reader in (lambda: open_any(path), lambda: list(read_tiles(path)), lambda: read_box(path, (0, 0, 9, 9))):
        with pytest.raises(BadImageError, match=f"scene.tif: does not decode .{error.__name__}: inside"):
            reader()


def test_what_is_no_path_and_no_bytes_is_refused():
    for source in (3, None, 1.5, ["a.jpg"]):
        with pytest.raises(BadImageError, match="a picture is a path or bytes"):
            open_any(source, name="row 7")


def test_without_rasterio_plain_pictures_are_read_and_others_name_the_extra(tmp_path, monkeypatch):
    values = ramp(30, 40, 3, np.uint8, 255)
    plain = write_raster(tmp_path / "plain.tif", values, compress="lzw")
    deep = write_raster(tmp_path / "deep.tif", values.astype(np.uint16) * 9)
    grey = write_raster(tmp_path / "grey.tif", values[..., 0], nodata=0)
    expected = pixels(plain)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert np.array_equal(pixels(plain), expected)
    for reader in (lambda: open_any(deep), lambda: open_any(grey), lambda: next(read_tiles(plain))):
        with pytest.raises(BadImageError, match=r"vsehub\[geo\]"):
            reader()


def test_threads_read_one_scene_alike(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    path = write_raster(tmp_path / "scene.tif", ramp(200, 300, 3, np.uint16, 3000), compress="deflate")
    expected = pixels(path)
    with ThreadPoolExecutor(8) as pool:
        assert all(np.array_equal(found, expected) for found in pool.map(pixels, [path] * 40))


class Opened:
    """A dataset of torch whose rows are one scene, opened in the worker."""

    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 8

    def __getitem__(self, row):
        return pixels(self.path).sum()


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_of_a_data_loader_read_scenes_after_their_parent_did(tmp_path, start):
    from torch.utils.data import DataLoader

    path = write_raster(tmp_path / "scene.tif", ramp(100, 100, 3, np.uint16, 3000))
    expected = pixels(path).sum()
    list(itertools.islice(read_tiles(path, 50, 0), 1))  # left open half-way
    loader = DataLoader(Opened(path), batch_size=None, num_workers=2, multiprocessing_context=start, timeout=120)
    assert [int(total) for total in loader] == [expected] * 8


READERS = [open_any, lambda path: next(read_tiles(path)), lambda path: read_box(path, (0, 0, 1, 1))]


@pytest.mark.parametrize("reader", READERS)
def test_pipes_devices_and_sockets_are_no_pictures_and_nobody_waits_for_them(tmp_path, reader):
    os.mkfifo(tmp_path / "pipe.tif")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.tif"))
        for path in (tmp_path / "pipe.tif", tmp_path / "socket.tif", "/dev/zero", tmp_path):
            with pytest.raises(BadImageError, match="not a regular file"):
                reader(path)


def test_headers_tell_depths():
    assert raster.bits_of(b"P5\n# 255\n3 3 65535\n" + bytes(18), "PPM") == 16
    assert raster.bits_of(b"P6 3 3 255\n" + bytes(27), "PPM") == 8
    assert raster.bits_of(b"\xff\xd8\xff\xe0\0\4ab\xff\xc1\0\x0b\x0c", "JPEG") == 12
    assert raster.bits_of(b"\xff\xd8\xff", "JPEG") == 8
