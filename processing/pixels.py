"""Files and bytes to upright 8-bit RGB pictures. Half a picture is an error, never a picture.

Pillow alone drops alpha onto hidden colours, turns 16-bit images white and ignores EXIF orientation; each is put right
here, without touching any of Pillow's process-wide switches.
"""

import os

MAX_PIXELS = 64_000_000


class BadImageError(ValueError):
    """An image that cannot be used; the message says which and why."""


def open_image(source, name: str = "", max_pixels: int = MAX_PIXELS, least_side: int | None = None):
    """Decode a path, bytes or a binary file to an upright RGB `PIL.Image.Image`.

    Args:
        source: what to decode. A path must be a regular file.
        name: how errors call the image; default the path.
        max_pixels: larger pictures are refused before they are decoded (a 1 KB file can hold 400 megapixels).
        least_side: decode a JPEG at the smallest of 1/1, 1/2, 1/4, 1/8 whose sides are no shorter; other formats whole.

    Raises:
        BadImageError: missing, empty, truncated, not an image, or too large.
    """
    import io

    from PIL import Image, ImageFile, UnidentifiedImageError

    if isinstance(source, (str, os.PathLike)):
        name = name or str(source)
        if not os.path.isfile(source):
            raise BadImageError(f"{name}: no such file, or not a regular file")
    elif isinstance(source, bytes):
        if not source:
            raise BadImageError(f"{name or 'image'}: zero bytes")
        source = io.BytesIO(source)
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise BadImageError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set in this process: half a JPEG would pass as a picture with a "
            "grey bottom. Set it to False"
        )
    try:
        image = Image.open(source)
        if image.width * image.height > max_pixels:
            raise BadImageError(f"{name or 'image'}: {image.width} x {image.height} pixels, more than {max_pixels:,}")
        if least_side is not None:
            image.draft(None, (least_side, least_side))
        image.load()
        return to_rgb(image)
    except BadImageError:
        raise
    except UnidentifiedImageError:
        raise BadImageError(f"{name or 'image'}: not an image that Pillow can read") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, EOFError, ...
        raise BadImageError(f"{name or 'image'}: does not decode ({type(error).__name__}: {error})") from None


def to_rgb(image):
    """Return an upright 8-bit RGB copy: EXIF orientation applied, alpha laid on white, 16-bit scaled to 8."""
    import numpy as np
    from PIL import Image, ImageOps

    if image.mode == "RGB" and not image.getexif():
        return image
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        if values.size and values.max() > 255:  # 16-bit, or wider sensors in a 16-bit container
            values = values / (257.0 if values.max() <= 65535 else values.max() / 255)
        image = Image.fromarray(values.clip(0, 255).round().astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(canvas, image)
    return image.convert("RGB")


__all__ = ["BadImageError", "open_image", "to_rgb"]
