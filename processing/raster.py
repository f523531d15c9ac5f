"""Open rasters with rasterio (GDAL), safely: one driver for a file, chosen by its first bytes, and no other file is
read.

GDAL reads some 150 formats, and several of them name other files or addresses to read pixels from. Only formats that
carry their own pixels are opened here; sidecar files, other directories and the network stay closed.
"""

import contextlib
import io
import os
import struct
import warnings

from .pixels import BadImageError

DRIVERS = {  # of the formats in `pixels.FORMATS`
    "TIFF": "GTiff",
    "JPEG2000": "JP2OpenJPEG",
    "PNG": "PNG",
    "JPEG": "JPEG",
    "PPM": "PNM",
    "WEBP": "WEBP",
    "BMP": "BMP",
    "GIF": "GIF",
}
OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no sidecar file is looked for
    "GDAL_PAM_ENABLED": "NO",  # nor .aux.xml
    "GDAL_GEOREF_SOURCES": "INTERNAL",
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",  # a truncated JPEG is an error
    "GDAL_CACHEMAX": 96,  # MB of decoded blocks
    "GDAL_NUM_THREADS": 1,
    "PROJ_NETWORK": "OFF",
    "GDAL_HTTP_MAX_RETRY": 0,
    "GDAL_HTTP_CONNECTTIMEOUT": 1,
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
}
REDUCED, MASK = 1, 4  # bits of TIFF's NewSubfileType: not a page, but an overview or a mask of one
ORIENTATION, PHOTOMETRIC, EXTRA_SAMPLES, SUBFILE_TYPE = 274, 262, 338, 254
MOST_PAGES = 10_000  # a chain of directories may be a circle
MOST_ENTRIES = 1_000_000  # of all directories together; in a small file they may lie over each other


def has_rasterio() -> bool:
    """Tell whether the extra `geo` is installed."""
    try:
        import rasterio  # noqa: F401
    except ImportError:
        return False
    return True


@contextlib.contextmanager
def opened(source, kind: str, name: str):
    """Open a raster for reading; every thread and process opens its own.

    Args:
        source: a path or bytes.
        kind: its format, of `pixels.format_of`.
        name: how errors call it.

    Yields:
        a `rasterio.DatasetReader`.

    Raises:
        BadImageError: no driver for this format, a path inside one of GDAL's virtual file systems, rasterio not
            installed, or what GDAL raises.
    """
    if kind not in DRIVERS:
        raise BadImageError(f"{name}: {kind} has no bands to choose from")
    try:
        import rasterio
        from rasterio.io import MemoryFile
    except ImportError:
        raise BadImageError(
            f'{name}: scenes, bands and more than 8 bits need rasterio: pip install "vsehub[geo]"'
        ) from None
    warnings.filterwarnings(
        "ignore", category=rasterio.errors.NotGeoreferencedWarning
    )  # photographs have no coordinates
    with contextlib.ExitStack() as stack:
        stack.enter_context(rasterio.Env(**OPTIONS))
        options = {"driver": DRIVERS[kind], "sharing": False}
        if isinstance(source, bytes):
            yield stack.enter_context(stack.enter_context(MemoryFile(source)).open(**options))
            return
        path = os.path.abspath(os.fspath(source))  # so that it cannot look like a scheme or a prefix of GDAL
        if path.startswith("/vsi"):
            raise BadImageError(f"{name}: paths of GDAL's virtual file systems are not opened")
        yield stack.enter_context(rasterio.open(path, **options))


def bits_of(source, kind: str) -> int:
    """Bits of a sample, as the header of a PNG, JPEG, JPEG 2000 or PNM says; 8 for other formats."""
    with _reading(source) as file:
        if kind == "PNG":
            return file.read(25)[24]
        if kind == "JPEG2000":
            head = file.read(256)
            place = head.find(b"ihdr")
            size = head[place + 14] if place >= 0 else head[40 + 2]  # of the box, or of the bare code stream
            return 16 if size == 255 else (size & 127) + 1  # 255: another for each component
        if kind == "PPM":
            fields = b" ".join(line.partition(b"#")[0] for line in file.read(512).split(b"\n")).split()
            return 16 if fields[0] in (b"P5", b"P6") and int(fields[3]) > 255 else 8
        if kind == "JPEG":
            return _jpeg_bits(file)
    return 8


def _jpeg_bits(file) -> int:
    """The precision in the frame header; 8 where there is none, which the decoder then reports."""
    file.seek(2)
    while len(marker := file.read(4)) == 4 and marker[0] == 0xFF:
        if 0xC0 <= marker[1] <= 0xCF and marker[1] not in (0xC4, 0xC8, 0xCC):
            return file.read(1)[0]
        file.seek(struct.unpack(">H", marker[2:])[0] - 2, io.SEEK_CUR)
    return 8


class TiffHeader:
    """What GDAL does not report of a TIFF: values of its first directory, and its number of pages.

    Args:
        source: a path or bytes of a TIFF or BigTIFF, of either byte order.
    """

    def __init__(self, source):
        with _reading(source) as file:
            self._size, self._left = file.seek(0, io.SEEK_END), MOST_ENTRIES
            file.seek(0)
            head = file.read(16)
            self.order, self.big = "<" if head[:2] == b"II" else ">", 43 in head[2:4]
            place = self._unpack("Q" if self.big else "I", head.ljust(16, b"\0")[8 if self.big else 4 :])
            self.tags, place = self._directory(file, place)
            self.pages, seen = 1, set()
            while place and place not in seen and len(seen) < MOST_PAGES:
                seen.add(place)
                tags, place = self._directory(file, place)
                self.pages += bool(tags) and not tags.get(SUBFILE_TYPE, 0) & (REDUCED | MASK)

    def _unpack(self, kind: str, data: bytes) -> int:
        return struct.unpack_from(self.order + kind, data)[0]

    def _directory(self, file, place: int) -> tuple[dict[int, int], int]:
        """The first number of each tag of a directory that holds short or long numbers; where the next directory is."""
        if place >= self._size:  # which GDAL reports
            return {}, 0
        file.seek(place)
        try:
            count = self._unpack("Q" if self.big else "H", file.read(8 if self.big else 2))
            size = 20 if self.big else 12
            count = min(count, 65535, self._left)
            self._left -= count
            entries = file.read(count * size)
            after = self._unpack("Q" if self.big else "I", file.read(8 if self.big else 4))
        except struct.error:  # the file ends early, which GDAL reports
            return {}, 0
        tags = {}
        for start in range(0, len(entries) - size + 1, size):
            tag, kind = struct.unpack_from(self.order + "HH", entries, start)
            field = entries[start + size - (8 if self.big else 4) : start + size]
            numbers = self._unpack("Q" if self.big else "I", entries[start + 4 : start + size])
            if kind in (3, 4) and numbers * (2 if kind == 3 else 4) <= len(field):  # short or long, and not elsewhere
                tags[tag] = self._unpack("H" if kind == 3 else "I", field)
        return tags, after


def _reading(source):
    return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")


__all__ = ["DRIVERS", "TiffHeader", "bits_of", "has_rasterio", "opened"]
