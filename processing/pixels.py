"""Decode files and bytes to upright 8-bit RGB pictures; a damaged picture is an error.

A file is what its first bytes say, whatever it is called, and only the one decoder of that format sees it. Pillow alone
drops alpha onto hidden colours, turns 16-bit images white and ignores EXIF orientation; each is put right here, without
touching any of Pillow's process-wide switches.
"""

import contextlib
import os
import re
import stat
from pathlib import Path

MAX_PIXELS = 64_000_000
MAX_BYTES = 1 << 30  # of an encoded picture
HEAD = 256  # bytes from which a format is known
STRETCH = (2.0, 98.0)  # percentiles of a band of more than 8 bits that become 0 and 255

# The formats that are read, by Pillow's names, and how a file of each begins. Those that are not here are never opened:
# EPS starts Ghostscript, and others refer to further files or hold data of special sensors.
FORMATS = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "WEBP": rb"RIFF.{4}WEBP",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "JPEG2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "AVIF": rb".{4}ftyp(avif|avis|(mif1|msf1).{4}(.{4})*?avi[fs])",
    "HEIF": rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1|msf1)",
    "PPM": rb"P[1-6](\s|#[^\n]*\n)+\d|P[fF]\s+\d",
    "PSD": rb"8BPS\0\x01",
    "QOI": rb"qoif",
}
SIGNATURES = {name: re.compile(pattern, re.DOTALL) for name, pattern in FORMATS.items()}
UNSIGNED = {".tga": "TGA", ".icb": "TGA", ".vda": "TGA", ".vst": "TGA"}  # formats without a signature, by suffix


class BadImageError(ValueError):
    """An image that cannot be used; the message says which and why."""


@contextlib.contextmanager
def opening(name):
    """Context for opening a picture: every error of a decoder becomes a `BadImageError` that names the file."""
    try:
        yield
    except BadImageError:
        raise
    except Exception as error:  # OSError, SyntaxError, struct.error, IndexError, TypeError, MemoryError, ...
        if isinstance(error, OSError) and error.strerror:  # an error of the system, not of a decoder
            raise BadImageError(f"{name}: cannot be read ({error.strerror.lower()})") from None
        reason = " ".join(f"{type(error).__name__}: {error.__cause__ or error}".split())
        raise BadImageError(f"{name}: does not decode ({reason})") from None


def format_of(head: bytes, name: str | os.PathLike = "") -> str | None:
    """Name the format of a file by its first `HEAD` bytes, and by its suffix where a format has no signature."""
    for kind, signature in SIGNATURES.items():
        if signature.match(head):
            return kind
    return UNSIGNED.get(os.path.splitext(os.fspath(name))[1].lower()) if name else None


def head_of(source, name: str = "image") -> bytes:
    """Return the first bytes of a path, bytes or binary file.

    Raises:
        BadImageError: missing, empty, or no regular file (reading a pipe would wait for ever).
    """
    if isinstance(source, bytes):
        head = source[:HEAD]
    elif isinstance(source, (str, os.PathLike)):
        head = _head_of_file(source, name)
    else:
        place = source.tell()
        head = source.read(HEAD)
        source.seek(place)
    if not head:
        raise BadImageError(f"{name}: zero bytes")
    return head


def _head_of_file(path, name) -> bytes:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # no such file, a loop of links, a NUL in the name
        raise BadImageError(f"{name}: no such file, or not a regular file") from None
    if not stat.S_ISREG(status.st_mode):
        raise BadImageError(f"{name}: not a regular file")
    with Path(path).open("rb") as file:
        head = file.read(HEAD)
    if status.st_size > MAX_BYTES and format_of(head) not in ("TIFF", "JPEG2000"):  # these are read in parts
        raise BadImageError(f"{name}: {status.st_size:,} bytes, more than {MAX_BYTES:,}")
    return head


def open_image(source, name: str = "", max_pixels: int = MAX_PIXELS, least_side: int | None = None):
    """Decode a path, bytes or a binary file to an upright RGB `PIL.Image.Image`.

    Args:
        source: what to decode. A path must be a regular file.
        name: how errors call the image; default the path.
        max_pixels: larger pictures are refused before they are decoded (a 1 KB file can hold 400 megapixels).
        least_side: decode a JPEG at the smallest of 1/1, 1/2, 1/4, 1/8 whose sides are no shorter; other formats whole.

    Raises:
        BadImageError: missing, empty, truncated, of no format in `FORMATS`, or too large.
    """
    import io

    from PIL import Image, ImageFile

    name = name or (str(source) if isinstance(source, (str, os.PathLike)) else "image")
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise BadImageError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set in this process: half a JPEG would pass as a picture with a "
            "grey bottom. Set it to False"
        )
    with opening(name):
        kind = format_of(head_of(source, name), name if isinstance(source, bytes) else source_name(source))
        if kind is None:
            raise BadImageError(f"{name}: not an image of a format that is read ({', '.join((*FORMATS, 'TGA'))})")
        try:
            image = _identified(io.BytesIO(source) if isinstance(source, bytes) else source, kind, name)
        except Image.DecompressionBombError:
            raise BadImageError(f"{name}: more than {max_pixels:,} pixels") from None
        with image:
            if image.width * image.height > max_pixels:
                raise BadImageError(f"{name}: {image.width} x {image.height} pixels, more than {max_pixels:,}")
            if least_side is not None:
                image.draft(None, (least_side, least_side))
            image.load()
            return to_rgb(image)


def source_name(source) -> str:
    """The path of a source, or nothing."""
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else getattr(source, "name", "") or ""


def _identified(source, kind, name):
    """Read the header of a picture with the one plug-in of its format."""
    from PIL import Image, UnidentifiedImageError

    if kind == "HEIF":
        try:
            import pillow_heif
        except ImportError:
            raise BadImageError(f'{name}: HEIC needs pillow-heif: pip install "vsehub[heif]"') from None
        pillow_heif.register_heif_opener()
    if kind not in Image.OPEN:
        Image.init()  # imports all plug-ins; the most common ones are loaded already
    if kind not in Image.OPEN:
        raise BadImageError(f"{name}: this Pillow reads no {kind}; AVIF needs Pillow 11.3 or newer")
    try:
        return Image.open(source, formats=[kind])
    except UnidentifiedImageError:
        raise BadImageError(f"{name}: not a {kind} that Pillow can read, or half of one") from None


def to_rgb(image):
    """Return an upright 8-bit RGB copy: EXIF orientation applied, alpha on white, more than 8 bits stretched.

    Raises:
        BadImageError: a picture without pixels.
    """
    import numpy as np
    from PIL import Image, ImageOps

    if not image.width or not image.height:
        raise BadImageError(f"a picture of {image.width} x {image.height} pixels shows nothing: leave it out")
    hidden = image.info.get("transparency")
    if image.mode == "RGB" and hidden is None and not image.getexif():
        return image
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        valid = np.isfinite(values) if hidden is None else values != hidden
        pixels = stretched(values, limits_of(values[valid]))
        pixels[~valid] = 0 if hidden is None else 255
        return Image.fromarray(pixels).convert("RGB")
    image = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode))
    if image.mode in ("LA", "PA", "RGBA") or hidden is not None:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image.convert("RGB")


def limits_of(values, stretch=STRETCH) -> tuple[float, float]:
    """The values of a band that become 0 and 255: two percentiles, so that a few bright pixels do not darken it."""
    import numpy as np

    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, stretch)
    return float(low), float(high)


def stretched(values, limits: tuple[float, float]):
    """Scale values of any depth between two limits to 8 bits; if both limits are equal, values above are white."""
    import numpy as np

    values = np.asarray(values)
    if values.dtype.kind in "iu" and values.dtype.itemsize == 2 and values.size > 65536:  # a table is faster
        least = np.iinfo(values.dtype).min
        table = stretched(np.arange(least, least + 65536), limits)
        return table[values.astype(np.int32) - least if least else values]
    low, high = limits
    with np.errstate(all="ignore"):  # infinities are clipped
        scaled = (values.astype(np.float64) - low) / max(high - low, np.finfo(np.float64).tiny)
        return np.nan_to_num((scaled * 255).clip(0, 255)).round().astype(np.uint8)


__all__ = ["FORMATS", "BadImageError", "format_of", "limits_of", "open_image", "opening", "stretched", "to_rgb"]
