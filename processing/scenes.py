"""Pictures of any kind as upright 8-bit RGB: whole, tile by tile, or one box, with the same pixels each time.

Plain 8-bit pictures are Pillow's. Scenes (TIFF, JPEG 2000), chosen bands and all that has more than 8 bits are read
with rasterio, the extra `geo`. A 12-bit band in a 16-bit file is nearly black to a viewer that divides by 257, and
nearly white to one that clips: such bands are stretched between two percentiles of their valid pixels, found once a
scene.
"""

import os

import numpy as np

from .bands import bands_of, read_window
from .pixels import (
    MAX_PIXELS,
    STRETCH,
    BadImageError,
    format_of,
    head_of,
    limits_of,
    open_image,
    opening,
    source_name,
    stretched,
)
from .raster import DRIVERS, ORIENTATION, TiffHeader, bits_of, has_rasterio, opened

SCENES = ("TIFF", "JPEG2000")  # formats that are read in parts, and cut into tiles
MOST_TILES = 250_000  # of one scene; the header of a small file can declare billions
MOST_BLOCK_BYTES = 96_000_000  # of one block of a scene that is read in parts; GDAL decodes it at once
SMALL, SAMPLE = 4_000_000, 2_000_000  # percentiles are of all pixels up to SMALL, else of about SAMPLE pixels
READ_AT_ONCE = 1_000_000  # pixels, so that intermediate numbers stay small
WIDEST_STRIP = 96_000_000  # bytes of 8-bit RGB of a row of tiles

# TIFFs that Pillow reads as rasterio does, so that no extra is needed: lossless compressions and plain modes of TIFF.
PLAIN_COMPRESSIONS = {1, 2, 3, 4, 5, 8, 32773, 32946}
PLAIN_MODES = ("1", "L", "P", "RGB", "RGBA")
BITS, COMPRESSION, SAMPLE_FORMAT, NODATA = 258, 259, 339, 42113  # tags of TIFF and, the last, of GDAL


def open_any(source, name: str = "", bands=None, stretch=STRETCH, least_side: int | None = None):
    """Open a picture of any kind as upright 8-bit RGB.

    Args:
        source: a path or bytes.
        name: how errors call it; default the path.
        bands: three band numbers, counted from 1, as red, green, blue. Default: those that the file calls so, else the
            first three; of fewer, the first.
        stretch: percentiles of a band's valid pixels that become 0 and 255, where a band has more than 8 bits.
        least_side: of `open_image`.

    Raises:
        BadImageError: whatever there is to say against this picture, with its name.
    """
    name = name or source_name(source) or "image"
    if not isinstance(source, (str, bytes, os.PathLike)):  # os functions take a number for an open file
        raise BadImageError(f"{name}: a picture is a path or bytes, not {type(source).__name__}")
    with opening(name):
        kind = format_of(head_of(source, name), name if isinstance(source, bytes) else source)
        if not _needs_raster(source, kind, bands):
            return open_image(source, name=name, least_side=least_side)
        with opened(source, kind, name) as dataset:
            return Scene(dataset, source, kind, bands, stretch, name).whole()


def _needs_raster(source, kind, bands) -> bool:
    if kind is None:
        return False  # `open_image` reports the error
    if bands is not None or bits_of(source, kind) > 8:
        return True
    return kind in SCENES and (has_rasterio() or not _is_plain(source, kind))


def _is_plain(source, kind) -> bool:
    """Whether Pillow reads a TIFF or an 8-bit JPEG 2000 as rasterio does."""
    import io

    from PIL import Image, UnidentifiedImageError

    if kind == "JPEG2000":
        return True
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=["TIFF"])
    except UnidentifiedImageError:
        return False
    with image:
        tags = image.tag_v2  # type: ignore[attr-defined]  # of Pillow's class for TIFF
        return (
            image.mode in PLAIN_MODES
            and set(np.atleast_1d(tags.get(BITS, 1)).tolist()) in ({1}, {8})
            and set(np.atleast_1d(tags.get(SAMPLE_FORMAT, 1)).tolist()) == {1}
            and tags.get(COMPRESSION, 1) in PLAIN_COMPRESSIONS
            and NODATA not in tags
        )


def is_scene(source) -> bool:
    """Tell whether a path or bytes hold a format that is cut into tiles, by its content."""
    try:
        return format_of(head_of(source)) in SCENES
    except (BadImageError, OSError):  # opening it reports the error
        return False


def pages_of(source) -> int:
    """Number of pages of a TIFF, without overviews and masks; 1 for other formats and what cannot be read."""
    try:
        return TiffHeader(source).pages if format_of(head_of(source)) == "TIFF" else 1
    except (BadImageError, OSError):
        return 1


class Scene:
    """One raster: how it is read and stretched is decided once, then any part of it can be read.

    Args:
        dataset: of `raster.opened`.
        source, kind: what it was opened from, and its format.
        bands, stretch, name: of `open_any`.

    Attributes:
        width, height: in pixels of the upright picture; boxes are counted in these.
    """

    def __init__(self, dataset, source, kind, bands, stretch, name):
        tags = TiffHeader(source).tags if kind == "TIFF" else {}
        self.dataset, self.name, self.stretch = dataset, name, stretch
        self.bands = bands_of(dataset, tags, bands, name)
        self.orientation = tags.get(ORIENTATION, 1) if tags.get(ORIENTATION, 1) in range(1, 9) else 1
        turned = self.orientation >= 5
        self.width, self.height = (dataset.height, dataset.width) if turned else (dataset.width, dataset.height)
        self._limits = None

    def whole(self):
        """Read all of it.

        Raises:
            BadImageError: more than `MAX_PIXELS`.
        """
        if self.width * self.height > MAX_PIXELS:
            raise BadImageError(f"{self.name}: {self.width} x {self.height} pixels, more than {MAX_PIXELS:,}")
        self._check_blocks(8 * MOST_BLOCK_BYTES)
        return _image(self.read((0, 0, self.width, self.height))[0])

    def tiles(self, tile: int, overlap: int):
        """Cut it into tiles that cover it; at most one row of tiles is in memory.

        The last column and row are moved inwards so that all tiles are full; a scene smaller than a tile is one tile.

        Yields:
            (box, picture) as `read_tiles` does.
        """
        count = self.width * self.height // (tile - overlap) ** 2
        if count > MOST_TILES:
            raise BadImageError(
                f"{self.name}: {self.width} x {self.height} pixels make {count:,} tiles, more than {MOST_TILES:,}: use "
                "a larger --tile"
            )
        lefts, tops = _starts(self.width, tile, overlap), _starts(self.height, tile, overlap)
        self._check_blocks(MOST_BLOCK_BYTES)
        together = (
            len(lefts) if self._in_strips else 1
        )  # otherwise a strip would be decoded for each tile that it crosses
        together = min(together, max(1, WIDEST_STRIP // (tile * tile * 3)))
        for top in tops:
            bottom = min(top + tile, self.height)
            for first in range(0, len(lefts), together):
                row = lefts[first : first + together]
                start, end = row[0], min(row[-1] + tile, self.width)
                pixels, seen = self.read((start, top, end, bottom))
                for left in row:
                    right = min(left + tile, self.width)
                    columns = slice(left - start, right - start)
                    image = _image(pixels[:, columns])
                    image.info["blank"] = not seen[:, columns].any() or _is_one_colour(pixels[:, columns])
                    yield (left, top, right, bottom), image

    def box(self, box):
        """Read one box (left, top, right, bottom).

        Raises:
            BadImageError: it leads out of the scene.
        """
        left, top, right, bottom = box
        if not (0 <= left < right <= self.width and 0 <= top < bottom <= self.height):
            raise BadImageError(f"{self.name}: no box {tuple(box)} in {self.width} x {self.height} pixels")
        if (right - left) * (bottom - top) > MAX_PIXELS:
            raise BadImageError(f"{self.name}: the box {tuple(box)} has more than {MAX_PIXELS:,} pixels")
        self._check_blocks(MOST_BLOCK_BYTES)
        return _image(self.read(box)[0])

    def read(self, box) -> tuple[np.ndarray, np.ndarray]:
        """Read a box of the upright picture: (H, W, 1 or 3) in 8 bits, and where pixels are valid (H, W)."""
        left, top, right, bottom = stored_box(box, self.orientation, self.dataset.width, self.dataset.height)
        channels = 1 if len(self.bands.indexes) == 1 and self.bands.palette is None else 3
        pixels = np.empty((bottom - top, right - left, channels), np.uint8)
        seen = np.empty(pixels.shape[:2], bool)
        rows = max(1, READ_AT_ONCE // (right - left))
        for start in range(top, bottom, rows):
            end = min(start + rows, bottom)
            part = slice(start - top, end - top)
            pixels[part], seen[part] = self._painted(left, start, right, end)
        return upright(pixels, self.orientation), upright(seen, self.orientation)

    @property
    def limits(self) -> list[tuple[float, float]]:
        """The values that become 0 and 255 in each band of more than 8 bits, from a sample of the whole scene."""
        if self._limits is None:
            parts = [[], [], []]
            for window in self._sample_windows():
                values, opacity, valid = read_window(self.dataset, self.bands, *window)
                for channel in range(values.shape[-1]):
                    known = np.isfinite(values[..., channel])
                    known = known if valid is None else known & valid[..., channel]
                    known = known if opacity is None else known & (opacity > 0)
                    parts[channel].append(values[..., channel][known])
            self._limits = [limits_of(np.concatenate(part), self.stretch) for part in parts if part]
        return self._limits

    def _painted(self, *window) -> tuple[np.ndarray, np.ndarray]:
        values, opacity, valid = read_window(self.dataset, self.bands, *window)
        if self.bands.deep:
            values = np.stack([stretched(values[..., n], limits) for n, limits in enumerate(self.limits)], -1)
            values = values if valid is None else np.where(valid, values, np.uint8(0))
        seen = np.ones(values.shape[:2], bool) if valid is None else valid.any(-1)
        if not seen.all():
            values = np.where(seen[..., None], values, np.uint8(0))
        if opacity is None:
            return values, seen
        opacity = opacity[..., None]
        shown = values if self.bands.premultiplied and not self.bands.deep else values * opacity
        return (shown + 255 * (1 - opacity)).clip(0, 255).round().astype(np.uint8), seen & (opacity[..., 0] > 0)

    def _sample_windows(self):
        """Parts of blocks, spread over the scene, that hold about `SAMPLE` pixels; all of a small scene."""
        width, height = self.dataset.width, self.dataset.height
        across = min(self.dataset.block_shapes[0][1], width, READ_AT_ONCE)
        down = min(self.dataset.block_shapes[0][0], height, max(1, READ_AT_ONCE // across))
        columns = -(-width // across)
        count = columns * -(-height // down)
        wanted = count if width * height <= SMALL else min(count, max(16, SAMPLE // (across * down)))
        for part in np.unique(np.linspace(0, count - 1, wanted).astype(np.int64)).tolist():
            left, top = part % columns * across, part // columns * down
            yield left, top, min(left + across, width), min(top + down, height)

    @property
    def _in_strips(self) -> bool:
        return self.dataset.block_shapes[0][1] >= self.dataset.width and self.orientation == 1

    def _check_blocks(self, most: int):
        """Refuse blocks that need too much memory to decode."""
        height, width = self.dataset.block_shapes[0]
        interleaved = self.dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL"
        size = height * width * np.dtype(self.dataset.dtypes[0].replace("complex_int16", "complex64")).itemsize
        size *= self.dataset.count if interleaved else 1
        if size > most:
            raise BadImageError(
                f"{self.name}: it is stored in blocks of {width} x {height} pixels, {size // 1_000_000} MB each: store "
                "it in tiles (gdal_translate -of COG, or rio cogeo create)"
            )


def read_tiles(path, tile: int = 512, overlap: int = 64, bands=None, stretch=STRETCH):
    """Cut a large scene into tiles that cover it, see `Scene.tiles`.

    Yields:
        ((left, top, right, bottom) in pixels, RGB image); `image.info["blank"]` tells whether all of it is one colour
        or nothing: nodata, masked or transparent.

    Raises:
        BadImageError: does not decode; ValueError: an overlap that is not smaller than the tile.
    """
    if not 0 <= overlap < tile:
        raise ValueError(f"overlap {overlap} must be at least 0 and smaller than the tile, {tile}")
    with opening(path):
        kind = format_of(head_of(path, path), path)
        if kind not in SCENES and not (kind in DRIVERS and bits_of(path, kind) > 8):
            raise BadImageError(f"{path}: {kind or 'no known format'} is not read in tiles, but TIFF and JPEG 2000 are")
        with opened(path, kind, path) as dataset:
            yield from Scene(dataset, path, kind, bands, stretch, path).tiles(tile, overlap)


def read_box(path, box, bands=None, stretch=STRETCH):
    """Cut one box (left, top, right, bottom) out of a scene, as `read_tiles` does.

    Raises:
        BadImageError: does not decode, or the box leads out of the scene.
    """
    with opening(path):
        kind = format_of(head_of(path, path), path)
        with opened(path, kind, path) as dataset:
            return Scene(dataset, path, kind, bands, stretch, path).box(box)


def stored_box(box, orientation: int, width: int, height: int) -> tuple[int, int, int, int]:
    """Where a box of the upright picture lies in the stored one of `width` x `height` (TIFF's and EXIF's tag 274)."""
    left, top, right, bottom = box
    if orientation >= 5:
        left, top, right, bottom = top, left, bottom, right
    if orientation in (2, 3, 7, 8):
        left, right = width - right, width - left
    if orientation in (3, 4, 6, 7):
        top, bottom = height - bottom, height - top
    return left, top, right, bottom


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn stored pixels (H, W, ...) as the orientation says."""
    if orientation in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels.swapaxes(0, 1) if orientation >= 5 else pixels)


def _image(pixels: np.ndarray):
    from PIL import Image

    if pixels.shape[-1] == 1:
        return Image.fromarray(np.ascontiguousarray(pixels[..., 0])).convert("RGB")
    return Image.fromarray(np.ascontiguousarray(pixels))


def _is_one_colour(pixels: np.ndarray) -> bool:
    first = pixels[0, 0]
    return bool(
        (pixels[::29, ::31] == first).all() and (pixels == first).all()
    )  # a few pixels are enough for most tiles


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    last = max(0, length - tile)
    return [*range(0, last, tile - overlap), last]


__all__ = ["SCENES", "Scene", "is_scene", "open_any", "pages_of", "read_box", "read_tiles"]
