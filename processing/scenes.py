"""Overhead imagery as it really comes: 16-bit and multi-band TIFF to 8-bit RGB, and large scenes tile by tile.

A 12-bit band in a 16-bit file is nearly black to a viewer that divides by 257, and nearly white to one that clips: each
band is stretched between two percentiles of its valid pixels instead. Reading needs the extra `geo` (tifffile).
"""

import contextlib
import io
import os

import numpy as np

from .pixels import BadImageError, open_image

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # TIFF and BigTIFF, both byte orders
NODATA, PIXEL_SCALE, TIE_POINT, GEO_KEYS = 42113, 33550, 33922, 34735  # tags of GDAL and GeoTIFF
PROJECTED, GEOGRAPHIC, RASTER_TYPE = 3072, 2048, 1025  # GeoTIFF keys: EPSG codes, and whether a pixel is a point
SEGMENTS_SEEN = 64  # of a large scene, for its percentiles


def open_any(source, name: str = "", bands=None, stretch=(2.0, 98.0), least_side: int | None = None):
    """Open a picture of any kind as upright 8-bit RGB: `open_overhead` where Pillow would spoil it, else `open_image`.

    Args:
        source: a path or bytes.
        name: how errors call it.
        bands, stretch: of `open_overhead`.
        least_side: of `open_image`.
    """
    if not isinstance(source, (str, bytes, os.PathLike)):  # the system takes a number for an open file
        raise BadImageError(f"{name or 'image'}: a picture is a path or bytes, not {type(source).__name__}")
    if is_overhead(source) or (bands is not None and _is_tiff(source)):  # 8-bit red, green, blue, infrared too
        return open_overhead(source, bands, stretch, name=name)
    if bands is not None:
        raise BadImageError(f"{name or 'image'}: bands {tuple(bands)} were asked of a picture that is no TIFF")
    return open_image(source, name=name, least_side=least_side)


def is_overhead(source) -> bool:
    """Tell whether a path or bytes hold a TIFF that is not plain 8-bit grey, RGB or RGBA."""
    from PIL import Image

    if not _is_tiff(source):
        return False
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            tags = image.tag_v2
            eight = set(np.atleast_1d(tags.get(258, 1)).tolist()) <= {1, 8}
            return not (
                eight and tags.get(277, 1) in (1, 3, 4) and image.mode in ("1", "L", "P", "RGB", "RGBA", "CMYK")
            )
    except Exception:  # a layout that Pillow does not know
        return True


def _is_tiff(source) -> bool:
    try:
        if isinstance(source, bytes):
            return source[:4] in MAGIC
        if not os.path.isfile(source):
            return False  # opening a pipe would wait for ever
        with open(source, "rb") as file:
            return file.read(4) in MAGIC
    except (OSError, TypeError, ValueError):
        return False  # `open_image` says what is wrong


def open_overhead(source, bands=None, stretch=(2.0, 98.0), nodata: float | None = None, name: str = ""):
    """Read a TIFF of any depth and number of bands as 8-bit RGB.

    Args:
        source: a path or bytes.
        bands: three band numbers, counted from 1, as red, green, blue. Default: the first three; of fewer, the first.
        stretch: percentiles of a band's valid pixels that become 0 and 255.
        nodata: value of pixels that hold nothing; default what the file says. They and NaN become black.
        name: how errors call the image.

    Raises:
        BadImageError: does not decode, or has no such band.
        ImportError: without tifffile.
    """
    from PIL import Image

    name = name or (source if isinstance(source, (str, os.PathLike)) else "image")
    with _opened(source, name) as file:
        page = file.pages[0]
        chosen = _bands(page, bands, name)
        nodata = _nodata(page) if nodata is None else nodata
        with _decoding(name):
            values = _rows(page, 0, page.imagelength, chosen)
    return Image.fromarray(_stretched(values, _limits(values, nodata, stretch), nodata))


def read_tiles(path, tile: int = 512, overlap: int = 64, bands=None, stretch=(2.0, 98.0)):
    """Cut a large scene into tiles that cover it; a band of rows is in memory at a time.

    The last column and row are moved inwards so that all tiles are full; a scene smaller than a tile is one tile.
    Percentiles are those of a sample of the whole scene, so that neighbours agree.

    Yields:
        ((left, top, right, bottom) in pixels, RGB image).

    Raises:
        BadImageError: does not decode; ValueError: an overlap that is not smaller than the tile.
    """
    from PIL import Image

    if not 0 <= overlap < tile:
        raise ValueError(f"overlap {overlap} must be at least 0 and smaller than the tile, {tile}")
    with _opened(path, path) as file:
        page = file.pages[0]
        chosen, nodata = _bands(page, bands, path), _nodata(page)
        with _decoding(path):
            limits = _limits(_sample(page, chosen), nodata, stretch)
        for top in _starts(page.imagelength, tile, overlap):
            bottom = min(top + tile, page.imagelength)
            with _decoding(path):
                values = _rows(page, top, bottom, chosen)
            for left in _starts(page.imagewidth, tile, overlap):
                right = min(left + tile, page.imagewidth)
                yield (left, top, right, bottom), Image.fromarray(_stretched(values[:, left:right], limits, nodata))


def read_box(path, box, bands=None, stretch=(2.0, 98.0)):
    """Cut one box (left, top, right, bottom) out of a scene, stretched as `read_tiles` does.

    Raises:
        BadImageError: does not decode, or the box leads out of the scene.
    """
    from PIL import Image

    left, top, right, bottom = box
    with _opened(path, path) as file:
        page = file.pages[0]
        if not (0 <= left < right <= page.imagewidth and 0 <= top < bottom <= page.imagelength):
            raise BadImageError(f"{path}: no box {tuple(box)} in {page.imagewidth} x {page.imagelength} pixels")
        chosen, nodata = _bands(page, bands, path), _nodata(page)
        with _decoding(path):
            limits = _limits(_sample(page, chosen), nodata, stretch)
            values = _rows(page, top, bottom, chosen)[:, left:right]
    return Image.fromarray(_stretched(values, limits, nodata))


def geo_transform(path) -> tuple[tuple[float, ...] | None, str | None]:
    """Where a GeoTIFF lies: (corner x, pixel width, 0, corner y, 0, -pixel height) and its CRS; None if unknown."""
    with _opened(path, path) as file:
        tags = file.pages[0].tags
        scale, tie, keys = (tags[code].value if code in tags else None for code in (PIXEL_SCALE, TIE_POINT, GEO_KEYS))
    codes = {keys[i]: keys[i + 3] for i in range(4, len(keys or ()), 4) if keys[i + 1] == 0}
    transform = None
    if scale and tie:
        half = 0.5 if codes.get(RASTER_TYPE) == 2 else 0.0  # a point: the tie is to its centre, not its corner
        west, north = tie[3] - (tie[0] + half) * scale[0], tie[4] + (tie[1] + half) * scale[1]
        transform = (west, scale[0], 0.0, north, 0.0, -scale[1])
    code = codes.get(PROJECTED, codes.get(GEOGRAPHIC))
    return transform, f"EPSG:{code}" if code and code < 32767 else None


def box_to_coordinates(box, transform) -> tuple[float, float, float, float]:
    """A pixel box as (least x, least y, largest x, largest y) in the scene's coordinates."""
    left, top, right, bottom = box
    xs = sorted(transform[0] + x * transform[1] for x in (left, right))
    ys = sorted(transform[3] + y * transform[5] for y in (top, bottom))
    return xs[0], ys[0], xs[1], ys[1]


def _opened(source, name):
    try:
        import tifffile
    except ImportError:
        raise ImportError('multi-band and 16-bit TIFF need tifffile: pip install "vsehub[geo]"') from None
    try:
        return tifffile.TiffFile(io.BytesIO(source) if isinstance(source, bytes) else source)
    except Exception as error:  # not a TIFF, torn, absent
        raise BadImageError(f"{name}: not a TIFF that can be read ({type(error).__name__}: {error})") from None


@contextlib.contextmanager
def _decoding(name):
    try:
        yield
    except Exception as error:  # damaged segments raise many kinds
        raise BadImageError(f"{name}: does not decode ({type(error).__name__}: {error})") from None


def _bands(page, bands, name) -> list[int]:
    count = page.samplesperpixel
    if bands is None:
        return [0, 1, 2] if count >= 3 else [0, 0, 0]
    if len(bands) != 3 or not all(1 <= band <= count for band in bands):
        raise BadImageError(f"{name}: bands {tuple(bands)} of {count}; give three numbers from 1 to {count}")
    return [band - 1 for band in bands]


def _nodata(page) -> float | None:
    try:
        return float(str(page.tags[NODATA].value).strip("\0 "))
    except (KeyError, ValueError):
        return None


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    last = max(0, length - tile)
    return [*range(0, last, tile - overlap), last]


def _grid(page) -> tuple[int, int, int]:
    """Height and width of a segment (tile or strip), and segments in a row of them."""
    if page.is_tiled:
        return page.tilelength, page.tilewidth, -(-page.imagewidth // page.tilewidth)
    return page.rowsperstrip or page.imagelength, page.imagewidth, 1


def _segment(page, index: int):
    handle = page.parent.filehandle
    handle.seek(page.dataoffsets[index])
    data = handle.read(page.databytecounts[index])
    if len(data) < page.databytecounts[index]:
        raise ValueError("the file ends early")
    return page.decode(data, index)[0]  # (depth, height, width, samples), or None where nothing is stored


def _rows(page, top: int, bottom: int, bands: list[int]) -> np.ndarray:
    """The rows top..bottom of three bands, (rows, width, 3); only the segments that hold them are decoded."""
    height, width, across = _grid(page)
    apart = page.planarconfig == 2 and page.samplesperpixel > 1  # each band has segments of its own
    down = -(-page.imagelength // height)
    values = np.zeros((bottom - top, page.imagewidth, 3), page.dtype)
    for row in range(top // height, -(-bottom // height)):
        for column in range(across):
            found = {}
            for target, band in enumerate(bands):
                plane = band if apart else 0
                if plane not in found:
                    found[plane] = _segment(page, plane * down * across + row * across + column)
                if found[plane] is None:
                    continue
                segment = found[plane][0, :, :, 0 if apart else band]
                first, left = row * height, column * width
                start, end = max(first, top), min(first + segment.shape[0], bottom)
                right = min(left + segment.shape[1], page.imagewidth)
                values[start - top : end - top, left:right, target] = segment[
                    start - first : end - first, : right - left
                ]
    return values


def _sample(page, bands) -> np.ndarray:
    """Rows spread over the scene, for its percentiles."""
    height = _grid(page)[0]
    tops = range(0, page.imagelength, height)
    step = -(-len(tops) // SEGMENTS_SEEN)
    parts = [_rows(page, top, min(top + height, page.imagelength), bands) for top in tops[::step]]
    return np.concatenate([part.reshape(-1, 1, 3)[:: max(1, part.size // 600_000)] for part in parts])


def _valid(band: np.ndarray, nodata: float | None) -> np.ndarray:
    valid = np.isfinite(band)
    return valid if nodata is None or np.isnan(nodata) else valid & (band != nodata)


def _limits(values: np.ndarray, nodata, stretch) -> list[tuple[float, float]]:
    """What becomes 0 and 255 in each band; 8-bit data stay as they are."""
    if values.dtype == np.uint8:
        return [(0.0, 255.0)] * 3
    limits = []
    for band in np.moveaxis(values, -1, 0):
        known = band[_valid(band, nodata)]
        low, high = np.percentile(known, stretch) if known.size else (0.0, 1.0)
        limits.append((float(low), float(high)))
    return limits


def _stretched(values: np.ndarray, limits, nodata) -> np.ndarray:
    picture = np.zeros(values.shape, np.uint8)
    for channel, (low, high) in enumerate(limits):
        band = values[..., channel]
        valid = _valid(band, nodata)
        scaled = (band.astype(np.float64) - low) / max(high - low, 1e-12) * 255
        picture[..., channel][valid] = scaled[valid].clip(0, 255).round()
    return picture


__all__ = ["box_to_coordinates", "geo_transform", "is_overhead", "open_any", "open_overhead", "read_box", "read_tiles"]
