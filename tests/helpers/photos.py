"""Pictures that differ from each other, as bytes and as files."""

import io

import numpy as np
from PIL import Image


def jpeg(seed=0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def paint(path, seed=0, kind=None):
    """Write a picture of 64 x 48 blocks; `kind` is Pillow's format, where the suffix does not tell it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((64, 48), Image.Resampling.NEAREST).save(path, kind)


def photograph(path, taken=None, gps=None, orientation=None, size=(40, 30)) -> str:
    """Write a picture with tags of EXIF: the date as cameras write it, the place, the way up; its path."""
    exif = Image.Exif()
    if taken is not None:
        exif.get_ifd(0x8769)[0x9003] = taken
    if gps is not None:
        exif.get_ifd(0x8825).update(gps)
    if orientation is not None:
        exif[0x0112] = orientation
    Image.new("RGB", size, "red").save(path, exif=exif.tobytes())
    return str(path)
