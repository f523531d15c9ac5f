"""What the files of a folder are. Each is a picture, a raster that is not read (with the reason), or counted by suffix.

Content decides, not the name: a suffix of a picture only saves a look inside, for opening the file tells. A picture of
another suffix, or of none, is one all the same.
"""

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..processing.pixels import HEAD, UNSIGNED, format_of

SUFFIXES = {
    *".jpg .jpeg .jpe .jfif .png .apng .gif .bmp .dib .webp .tif .tiff .btf .jp2 .j2k .j2c .jpc .jpf .jpx".split(),
    *".avif .avifs .heic .heif .hif .pbm .pgm .ppm .pnm .pfm .psd .qoi".split(),
    *UNSIGNED,
}
TABLES = {".parquet", ".arrow", ".json", ".jsonl", ".csv", ".tsv", ".txt"}
RAW = set(".dng .nef .nrw .cr2 .cr3 .arw .orf .pef .raf .rw2 .srw".split())  # TIFF files with sensor data
REFUSED = {  # first bytes of rasters that GDAL could read and that are not opened here
    rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(VRTDataset|GDALTileIndexDataset|GDAL_WMS|GDAL_WMTS|WM[ST]_|WMTS|Capabilities|"
    rb"TileMap|MRF_META|WCS_GDAL|Dimap_Document|GDALWarpOptions|PamDataset\b.*SourceFilename)": (
        "names other files or addresses, which are not opened: write its pixels to a file of their own (rio convert, "
        "gdal_translate)"
    ),
    rb"\x89HDF|CDF[\x01\x02\x05]": "HDF5 and netCDF hold several arrays and may name files: write one to a GeoTIFF",
    rb"GRIB|NITF|NSIF": "GRIB and NITF are not read: write it to a GeoTIFF (rio convert, gdal_translate)",
    rb"\xff\x0a|\0\0\0\x0cJXL ": "JPEG XL is not read: write it to PNG or JPEG",
}
SIDECARS = {".ovr": "the overviews", ".msk": "the mask"}


@dataclass
class Folder:
    """The files below a folder."""

    pictures: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)  # path -> why it is not read
    others: Counter = field(default_factory=Counter)  # suffix or kind -> number of files

    @property
    def told(self) -> str:
        """How many files are no pictures, by suffix; empty where there are none."""
        return ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.others.items()))


def list_folder(root) -> Folder:
    """Look at every file below a folder, in order of their names; links to folders are not followed.

    Raises:
        OSError: a folder below it cannot be listed (or its pictures would pass for gone).
    """
    folder = Folder()
    for path, is_link in _walk(root):
        if is_link:
            folder.refused[path] = "a link to a folder, which is not followed"
            continue
        judgement = _judged(path)
        if judgement is None:
            folder.others[_kind(path)] += 1
        elif judgement:
            folder.refused[path] = judgement
        else:
            folder.pictures.append(path)
    return folder


def holds_pictures(root) -> bool:
    """Whether there is a picture below a folder; names are checked before contents."""
    paths = [path for path, is_link in _walk(root) if not is_link]
    return any(_suffix(path) in SUFFIXES for path in paths) or any(
        _judged(path) == "" for path in paths if _suffix(path) not in TABLES
    )


def holds_tables(root) -> bool:
    """Whether a folder holds a file that a dataset may be read from."""
    return any(_suffix(path) in TABLES for path, _ in _walk(root))


def _walk(root) -> Iterator[tuple[str, bool]]:
    """Paths of files and of links to folders; the second value says which. Hidden folders are skipped."""
    for folder, folders, names in os.walk(root, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from ((os.path.join(folder, name), False) for name in sorted(names))
        yield from ((path, True) for path in (os.path.join(folder, name) for name in folders) if os.path.islink(path))


def _judged(path: str) -> str | None:
    """Empty for a picture, a reason for a raster that is not read, None for other files."""
    suffix, name = _suffix(path), os.path.basename(path)
    if name.startswith("."):
        return None
    if suffix in SIDECARS and os.path.exists(os.path.splitext(path)[0]):
        return f"holds {SIDECARS[suffix]} of {os.path.splitext(name)[0]}; no picture of its own"
    if suffix in RAW:
        return "a camera's raw file is not read: write it to TIFF or JPEG"
    if suffix in SUFFIXES:
        return ""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait
            return None
        with open(path, "rb") as file:
            head = file.read(2 * HEAD)
    except OSError as error:
        return f"cannot be read ({(error.strerror or str(error)).lower()})"
    if format_of(head):
        return ""
    return next((why for begins, why in REFUSED.items() if re.match(begins, head, re.DOTALL)), None)


def _kind(path: str) -> str:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return "(no regular file)"
    except OSError:
        return "(gone)"
    return "(hidden)" if os.path.basename(path).startswith(".") else _suffix(path) or "(no suffix)"


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _raise(error):
    raise error


__all__ = ["SUFFIXES", "Folder", "holds_pictures", "holds_tables", "list_folder"]
