"""Small rasters for tests, written with rasterio, and what it cannot write, patched into them."""

import struct
import warnings

import numpy as np
import pytest

from vsehub.processing.scenes import open_any, read_box, read_tiles


def write_raster(path, values, colormap=None, mask=None, interpretation=None, driver="GTiff", **options):
    """Write (H, W) or (H, W, bands) with the creation options of GDAL's driver; return the path as text."""
    rasterio = pytest.importorskip("rasterio", reason="the extra `geo` is not installed")
    values = np.asarray(values)
    values = values[..., None] if values.ndim == 2 else values
    height, width, count = values.shape
    profile = {"driver": driver, "width": width, "height": height, "count": count, "dtype": values.dtype.name}
    profile.update(options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a raster without a place
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as file:
            if interpretation:
                file.colorinterp = [rasterio.enums.ColorInterp[name] for name in interpretation]
            if colormap:
                file.write_colormap(1, colormap)
            if values.size:
                file.write(np.moveaxis(values, -1, 0))
            if mask is not None:
                file.write_mask(np.asarray(mask, bool))
    return str(path)


def declare_raster(path, width, height, count=1, dtype="uint8", **options):
    """Write a TIFF that declares a size and stores nothing: a few KB, whatever the size."""
    rasterio = pytest.importorskip("rasterio", reason="the extra `geo` is not installed")
    options = {"SPARSE_OK": True, "tiled": True, "blockxsize": 256, "blockysize": 256, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        profile = {"driver": "GTiff", "width": width, "height": height, "count": count, "dtype": dtype}
        rasterio.open(path, "w", **profile, **options).close()
    return str(path)


def patch_tag(path, tag, value):
    """Set the number of a short or long tag in the first directory of a little-endian classic TIFF."""
    with open(path, "r+b") as file:
        data = file.read()
        (place,) = struct.unpack_from("<I", data, 4)
        (count,) = struct.unpack_from("<H", data, place)
        for entry in range(place + 2, place + 2 + 12 * count, 12):
            found, kind = struct.unpack_from("<HH", data, entry)
            if found == tag:
                file.seek(entry + 8)
                file.write(struct.pack("<H2x" if kind == 3 else "<I", value))
                return path
    raise ValueError(f"no tag {tag}")


def ramp(height, width, bands, dtype, top):
    """Bands (height, width, bands) that rise from 0 to `top`, each in another direction."""
    y, x = np.mgrid[0:height, 0:width]
    parts = [
        (x / max(width - 1, 1), y / max(height - 1, 1), (x + y) / max(width + height - 2, 1))[b % 3]
        for b in range(bands)
    ]
    return (np.stack(parts, -1) * top).astype(dtype)


def stretched(values, valid=None):
    """What a band (H, W) of more than 8 bits should look like: its percentiles 2 and 98 become 0 and 255."""
    values = np.asarray(values, float)
    low, high = np.percentile(values if valid is None else values[valid], (2, 98))
    found = ((values - low) / (high - low) * 255).clip(0, 255).round()
    return found if valid is None else np.where(valid, found, 0)


def pixels(source, **options):
    """A picture as whole numbers (H, W, 3)."""
    return np.asarray(open_any(source, **options)).astype(int)


def assert_one_reader(path, tile=24, overlap=8, **options):
    """Check that tiles and boxes hold the pixels of the whole picture, and cover it; return those."""
    whole = pixels(path, **options)
    covered = np.zeros(whole.shape[:2], bool)
    for box, image in read_tiles(path, tile, overlap, **options):
        left, top, right, bottom = box
        assert image.size == (right - left, bottom - top) == (min(tile, whole.shape[1]), min(tile, whole.shape[0]))
        assert np.array_equal(np.asarray(image), whole[top:bottom, left:right])
        assert np.array_equal(np.asarray(read_box(path, box, **options)), np.asarray(image))
        covered[top:bottom, left:right] = True
    assert covered.all()
    return whole
