"""What a picture's file says beside its pixels: how large it is, when and where it was taken. `--where` can ask for it.

A photograph says it in EXIF, a scene in its georeference. What is absent, damaged or impossible is left out: that is no
reason to leave out the picture.
"""

import datetime
import json
import math
import os
import struct
from functools import cached_property
from typing import Any

from ..processing.pixels import BadImageError, format_of, head_of
from ..processing.places import NoPlaceError, Place
from ..processing.raster import ORIENTATION
from ..processing.scenes import is_scene

DETAILS, GPS = 0x8769, 0x8825  # tags of EXIF
TAKEN = 0x9003  # in DETAILS
WIDTH, HEIGHT = 0x100, 0x101  # of a TIFF
SOUTH_NORTH, LATITUDE, WEST_EAST, LONGITUDE = 1, 2, 3, 4  # in GPS


class Facts:
    """What one file says.

    Args:
        path: of the file.
    """

    def __init__(self, path: str):
        self.path = path

    def fields(self, box: tuple[int, int, int, int] | None = None) -> str | None:
        """JSON of `width` and `height` (upright), `taken` (ISO 8601, the camera's clock), `longitude`, `latitude`.

        Args:
            box: of a tile, in pixels (left, top, right, bottom); the place is that of its middle.
        """
        found = dict(self._photograph)
        if box is not None:
            found |= {"width": box[2] - box[0], "height": box[3] - box[1]}
        found |= self._place_of(box)
        return json.dumps(found) if found else None

    @cached_property
    def _photograph(self) -> dict[str, Any]:
        from PIL import Image

        try:
            kind = format_of(head_of(self.path), self.path)
            if kind == "HEIF":
                import pillow_heif

                pillow_heif.register_heif_opener()
            with Image.open(self.path, formats=[kind] if kind else []) as image:
                tags = _tags_of(image, self.path)
                details, gps = tags.get_ifd(DETAILS), tags.get_ifd(GPS)
                size = (tags[WIDTH], tags[HEIGHT]) if kind == "TIFF" else image.size  # Pillow turned that of a TIFF
                size = size[::-1] if tags.get(ORIENTATION) in (5, 6, 7, 8) else size
        except Exception:  # whatever a decoder raises: the picture is opened later, and then it is told
            return {}
        facts = {"width": size[0], "height": size[1], "taken": _moment(details.get(TAKEN))}
        facts["longitude"] = _degrees(gps.get(LONGITUDE), gps.get(WEST_EAST), "W", 180)
        facts["latitude"] = _degrees(gps.get(LATITUDE), gps.get(SOUTH_NORTH), "S", 90)
        if None in (facts["longitude"], facts["latitude"]):  # half of a place is none
            facts["longitude"] = facts["latitude"] = None
        return {name: value for name, value in facts.items() if value is not None}

    @cached_property
    def _scene(self) -> Place | None:
        try:
            return Place(self.path) if is_scene(self.path) else None
        except (BadImageError, NoPlaceError, ImportError, OSError):
            return None

    def _place_of(self, box: tuple[int, int, int, int] | None) -> dict[str, float]:
        """Longitude and latitude of the middle of a box, of all of the scene without one."""
        if self._scene is None:
            return {}
        left, top, right, bottom = box or (0, 0, self._scene.width, self._scene.height)
        x, y = (left + right) // 2, (top + bottom) // 2
        try:
            (longitude, latitude) = _first_corner(self._scene.geometry((x, y, x + 1, y + 1)))
        except (NoPlaceError, BadImageError):
            return {}
        return {"longitude": longitude, "latitude": latitude}


def _tags_of(image: Any, path: str) -> Any:
    """The EXIF of an opened picture."""
    from PIL import Image

    if image.format != "PNG":
        return image.getexif()
    if "exif" not in image.info:  # it may stand behind the pixels, and Pillow would decode all of them to look there
        image.info |= _chunk_of_exif(path)
    return Image.Image.getexif(image)


def _chunk_of_exif(path: str) -> dict[str, bytes]:
    """The first `eXIf` of a PNG as its `exif`; nothing where there is none."""
    with open(path, "rb") as file:
        file.seek(len(b"\x89PNG\r\n\x1a\n"))
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if name == b"eXIf":
                return {"exif": file.read(length)}
            file.seek(length + 4, os.SEEK_CUR)  # and its checksum
    return {}


def _first_corner(geometry: dict) -> tuple[float, float]:
    """A corner of a Polygon or a MultiPolygon."""
    corners = geometry["coordinates"]
    while not isinstance(corners[0], float | int):
        corners = corners[0]
    return float(corners[0]), float(corners[1])


def _moment(text: Any) -> str | None:
    """A moment of EXIF (`2024:06:01 12:30:00`) as ISO 8601; cameras without a clock write zeros."""
    try:
        return datetime.datetime.strptime(str(text).strip("\0 "), "%Y:%m:%d %H:%M:%S").isoformat()
    except ValueError:
        return None


def _degrees(parts: Any, letter: Any, negative: str, most: int) -> float | None:
    """Degrees of (degrees, minutes, seconds), with a letter that says which half of the earth it is."""
    try:
        degrees, minutes, seconds = (float(part) for part in parts)
        value = degrees + minutes / 60 + seconds / 3600
        value = -value if str(letter).strip("\0 ").upper() == negative else value
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return round(value, 7) if math.isfinite(value) and abs(value) <= most else None


__all__ = ["Facts"]
