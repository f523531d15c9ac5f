"""What there is to index: a folder of pictures, one picture or scene, or the rows of a dataset; and what of it is new.

A unit is what changes as a whole: a file (all tiles of a scene) or a row. It is known by its size and a stamp: the time
of a file, the CRC-32 of bytes inside a table.
"""

import os
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..data.rows import image_source
from ..data.sources import path_of, read_source
from ..processing.pixels import BadImageError
from ..processing.scenes import open_any, read_box, read_tiles

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jp2"}
TABLES = {".parquet", ".arrow", ".json", ".jsonl", ".csv", ".txt"}
SCENES = {".tif", ".tiff"}


@dataclass(frozen=True)
class Unit:
    """One file or row: its key in the index, where it is, how to tell that it changed, its caption."""

    key: str
    path: str | None
    row: int | None
    size: int
    stamp: int
    caption: str | None = None


class Collection:
    """A source and how it is read.

    Args:
        data: folder, picture, scene, parquet, json or Hub id.
        split: of a dataset; None takes a folder's pictures one by one.
        tile, overlap: pixels; TIFF files are cut into tiles where `tile` is given, one TIFF named alone by default.
        **settings: `image_root`, `image_column`, `captions_column`, `bands`, `fast`.
    """

    def __init__(self, data: str, split: str | None = None, tile: int | None = None, overlap: int = 64, **settings):
        path = Path(data).expanduser()
        folder = path.is_dir() and (any(_files(path, PICTURES)) or not any(_files(path, TABLES)))
        self.files = split is None and (folder or (path.is_file() and path.suffix.lower() in PICTURES))
        split = None if self.files else split or "train"
        if self.files or path_of(str(path), split).exists():  # one name from wherever, however it is spelt
            data = os.path.abspath(path)
        if settings.get("image_root") is not None:
            settings["image_root"] = os.path.abspath(Path(settings["image_root"]).expanduser())
        self.name = data if self.files else f"{data}:{split}"
        if tile is None and path.suffix.lower() in SCENES:
            tile = 512
        cut = {"tile": tile, "overlap": overlap} if tile else {"tile": None, "overlap": None}
        self.settings = {"data": data, "split": split, **cut, **settings}
        self._rows = None

    @property
    def rows(self):
        """The dataset's rows, images undecoded."""
        if self._rows is None:
            names = {name: self.settings.get(name) for name in ("image_root", "image_column")}
            names = {name: value for name, value in names.items() if value is not None}
            self._rows = read_source(self.settings["data"], self.settings["split"], **names)
            column = self.settings.get("image_column") or "image"
            if column not in self._rows.column_names:
                raise ValueError(
                    f"{self.name} has no column {column!r}; it has {self._rows.column_names}. Name it with "
                    "--image_column"
                )
        return self._rows

    def check(self, may_be_empty: bool = False):
        """Refuse, before anything is changed, what can never be read as it was asked for.

        Args:
            may_be_empty: whether a folder may have lost its last picture.

        Raises:
            ValueError, OSError: tiles or bands that make no sense; no such source, split, column or picture.
        """
        tile, overlap, bands = self.settings["tile"], self.settings["overlap"], self._bands
        if tile is not None and not 0 <= overlap < tile:
            raise ValueError(f"--tile {tile} --overlap {overlap}: the overlap is at least 0 and smaller than the tile")
        if bands is not None and min(bands) < 1:
            raise ValueError(f"--bands {' '.join(map(str, bands))}: bands are counted from 1")
        if self.files:
            if os.path.isdir(self.name) and not list(_files(Path(self.name), PICTURES)) and not may_be_empty:
                raise ValueError(f"{self.name}: no picture in it ({', '.join(sorted(PICTURES))})")
            return
        rows, column = self.rows, self.settings.get("captions_column")
        if column is not None and column not in rows.column_names:
            raise ValueError(f"{self.name} has no column {column!r} of captions; it has {rows.column_names}")
        if column is not None and len(rows) and isinstance(rows[0][column], (dict, bytes)):
            raise ValueError(f"{self.name}: column {column!r} holds no texts; name another with --captions_column")
        ids = Counter(map(str, self.rows["image_id"])) if "image_id" in self.rows.column_names else {}
        if len(ids) and max(ids.values()) > 1:  # rows of one id would replace each other in the index
            raise ValueError(f"{self.name}: image_id {max(ids, key=ids.get)!r} names two rows; give one row per image")

    def units(self) -> list[Unit]:
        """List what there is now."""
        if not self.files:
            return [self._row_unit(number, row) for number, row in enumerate(self.rows)]
        root, units = Path(self.name), []
        for path in sorted(map(str, _files(root, PICTURES, True))) if root.is_dir() else [str(root)]:
            try:
                found = os.stat(path)
            except OSError:  # gone since it was listed
                continue
            units.append(Unit(path, path, None, found.st_size, found.st_mtime_ns))
        return units

    def entries(self, unit: Unit):
        """Yield (item, source) of a unit, as `embed_stream` takes them."""
        item = {"id": unit.key, "path": unit.path, "row": unit.row, "size": unit.size, "stamp": unit.stamp}
        item |= {"caption": unit.caption, "modality": "image", "collection": self.name}
        if not self.tiled(unit.path):
            yield item, unit.path if unit.row is None else image_source(self._image(unit.row))
            return
        try:
            for box, tile in read_tiles(unit.path, self.settings["tile"], self.settings["overlap"], self._bands):
                yield {**item, "id": f"{unit.key}#{','.join(map(str, box))}", "box": list(box)}, tile
        except BadImageError as error:
            yield item, error

    def tiled(self, path: str | None) -> bool:
        """Whether a file is cut into tiles."""
        return bool(self.settings["tile"] and path and self.files and Path(path).suffix.lower() in SCENES)

    def picture(self, item: dict, least_side: int | None = None):
        """Open the picture of an item again; BadImageError where it is gone."""
        if item.get("box"):
            return read_box(item["path"], item["box"], self._bands)
        source = item["path"] if item.get("row") is None else image_source(self._image(item["row"]))
        return open_any(source, name=item["id"], bands=self._bands, least_side=least_side)

    @property
    def _bands(self):
        return self.settings.get("bands")

    def _image(self, row: int):
        return self.rows[row][self.settings.get("image_column") or "image"]

    def _row_unit(self, number: int, row: dict) -> Unit:
        image = image_source(row[self.settings.get("image_column") or "image"])
        captions = row.get(self.settings.get("captions_column") or "captions")
        captions = captions if isinstance(captions, list) else [captions]
        caption = " / ".join(str(text) for text in captions if text is not None and text != "") or None
        key = f"{self.name}:{row.get('image_id', number)}"
        if isinstance(image, bytes):
            return Unit(key, None, number, len(image), zlib.crc32(image), caption)
        try:
            found = os.stat(os.fspath(image))  # the system takes a number for an open file
        except (OSError, TypeError, ValueError):  # opening it says what is wrong
            return Unit(key, image if isinstance(image, str) else None, number, 0, 0, caption)
        return Unit(key, image, number, found.st_size, found.st_mtime_ns, caption)


def _files(root: Path, suffixes: set[str], links: bool = False):
    """Files below a folder by suffix; with `links` also symbolic links to folders, which are not followed."""
    for folder, folders, names in os.walk(root, onerror=_raise):  # or the pictures of a folder would pass for gone
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found = [n for n in names if Path(n).suffix.lower() in suffixes and not n.startswith(".")]
        found += [n for n in folders if links and os.path.islink(os.path.join(folder, n))]
        yield from (Path(folder) / n for n in found)


def _raise(error):
    raise error


__all__ = ["Collection", "Unit"]
