"""List what is to be indexed (a folder, a picture, a scene, a dataset) and which of it is new or changed.

A unit is a file (with all tiles of a scene) or a row. It has changed if its size or its stamp has: the time of a file,
the CRC-32 of bytes inside a table.
"""

import datetime
import decimal
import json
import math
import os
import zlib
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..data.folders import SUFFIXES, Folder, holds_pictures, holds_tables, list_folder
from ..data.rows import image_source
from ..data.sources import path_of, read_source
from ..processing.pixels import BadImageError, format_of
from ..processing.scenes import is_scene, pages_of, read_tiles
from .facts import Facts
from .index_segments import SCHEMA

LONGEST_FIELD = 200  # characters of a text that `--where` can compare


@dataclass(frozen=True)
class Unit:
    """One file or row: its key in the index, its place, size and stamp (which tell a change), and its caption."""

    key: str
    path: str | None
    row: int | None
    size: int
    stamp: int
    caption: str | None = None
    fields: str | None = None  # JSON of the other columns of the row


class Collection:
    """A source and how it is read.

    Args:
        data: folder, picture, scene, parquet, json or Hub id.
        split: of a dataset; None takes a folder's pictures one by one.
        tile, overlap: pixels; scenes (TIFF, JPEG 2000) are cut into tiles where `tile` is given. A source that is one
            scene is cut by default, and tiles share 64 pixels.
        known: names of the sources of an index that is updated: a folder among them is read as it was, as pictures or
            as a dataset, whatever was put beside its files or removed since then.
        **settings: `data_config`, `image_root`, `image_column`, `captions_column`, `bands`, `fast`, `dtype`
            (bfloat16; None and float32 are the same).

    Attributes:
        notes: remarks on files that were read: pages and tiles that are not in the index.
        blank: number of empty tiles, which were not yielded.
    """

    def __init__(
        self,
        data: str,
        split: str | None = None,
        tile: int | None = None,
        overlap: int | None = None,
        known: Container[str] = (),
        **settings,
    ):
        path = Path(os.path.expanduser(data))  # `Path.expanduser` raises where there is no such user
        folder = path.is_dir() and _is_of_pictures(path, settings.get("data_config"), known)
        self.files = split is None and (folder or _is_picture(path))
        split = None if self.files else split or "train"
        if self.files or path_of(str(path), split).exists():  # the same name from every working directory
            data = os.path.abspath(path)
        if settings.get("image_root") is not None:
            settings["image_root"] = os.path.abspath(os.path.expanduser(settings["image_root"]))
        if settings.get("dtype") in (None, "float32"):  # as in indexes made before there was such a setting
            settings.pop("dtype", None)
        if settings.get("data_config") is None:  # as in indexes made before there was such a setting
            settings.pop("data_config", None)
        elif self.files:
            raise ValueError(f"--data_config {settings['data_config']}: {data} has no configurations; leave it out")
        parts = (data, settings.get("data_config"), split)
        self.name = data if self.files else ":".join(part for part in parts if part is not None)
        if tile is None and self.files and is_scene(data):
            tile = 512
        cut = {"tile": tile, "overlap": 64 if overlap is None else overlap} if tile else {"tile": None, "overlap": None}
        self.settings = {"data": data, "split": split, **cut, **settings}
        self._rows: Any = None
        self._scenes = {}
        self.notes: list[dict] = []
        self.blank = 0

    @property
    def named(self) -> list[str]:
        """The folders and files of this machine that it names; none where it is a dataset on the Hub."""
        names = [path_of(self.settings["data"], self.settings["split"] or ""), self.settings.get("image_root")]
        return [str(name) for name in names if name is not None and Path(name).exists()]

    @cached_property
    def folder(self) -> Folder:
        """The files, where the source is a folder or a picture."""
        return list_folder(self.name) if os.path.isdir(self.name) else Folder([self.name])

    def left_out(self) -> list[dict]:
        """Rasters that are not read: `id`, `path` and `problem` of each."""
        refused = self.folder.refused if self.files else {}
        return [{"id": path, "path": path, "problem": f"{path}: {why}"} for path, why in refused.items()]

    @property
    def rows(self):
        """The dataset's rows, images undecoded."""
        if self._rows is None:
            names = {name: self.settings.get(name) for name in ("image_root", "image_column", "data_config")}
            names = {name: value for name, value in names.items() if value is not None}
            rows = read_source(self.settings["data"], self.settings["split"], **names)
            column = self.settings.get("image_column") or "image"
            if column not in rows.column_names:
                raise ValueError(
                    f"{self.name} has no column {column!r}; it has {rows.column_names}. Name it with --image_column"
                )
            self._rows = rows
        return self._rows

    @property
    def hidden(self) -> list[str]:
        """Columns that are called as fields of the index, so that a condition names them in another way."""
        shown = (self.settings.get("image_column") or "image", self.settings.get("captions_column") or "captions")
        names = [] if self.files else self.rows.column_names
        return [name for name in names if name in SCHEMA.names and name != "fields" and name not in shown]

    def check(self, may_be_empty: bool = False):
        """Check the source and its settings before anything is changed.

        Args:
            may_be_empty: whether a folder may have lost its last picture.

        Raises:
            ValueError, OSError: impossible tiles or bands; no such source, split, column or picture.
        """
        tile, overlap, bands = self.settings["tile"], self.settings["overlap"], self._bands
        if "dtype" in self.settings and self.settings["dtype"] != "bfloat16":
            raise ValueError(f"dtype {self.settings['dtype']!r}: pictures are embedded in float32 or bfloat16")
        if tile is not None and not 0 <= overlap < tile:
            raise ValueError(
                f"--tile {tile} --overlap {overlap}: the overlap must be at least 0 and smaller than the tile"
            )
        if bands is not None and min(bands) < 1:
            raise ValueError(f"--bands {' '.join(map(str, bands))}: bands are counted from 1")
        if self.files:
            if not self.folder.pictures and not may_be_empty:
                reasons = [self.folder.told] if self.folder.others else []
                reasons += [f"{os.path.basename(path)}: {why}" for path, why in list(self.folder.refused.items())[:1]]
                raise ValueError(f"{self.name}: no picture in it ({'; '.join(reasons) or 'it is empty'})")
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
        units = []
        for path in self.folder.pictures:
            try:
                status = os.stat(path)
            except OSError:  # deleted since it was listed, or a broken link: opening it reports that
                if os.path.lexists(path):
                    units.append(Unit(path, path, None, 0, 0))
                continue
            units.append(Unit(path, path, None, status.st_size, status.st_mtime_ns))
        return units

    def entries(self, unit: Unit) -> Iterator[tuple[dict, object]]:
        """Yield (item, source) of a unit, as `embed_stream` takes them; `notes` and `blank` record what is left out."""
        item = {"id": unit.key, "path": unit.path, "row": unit.row, "size": unit.size, "stamp": unit.stamp}
        item |= {"caption": unit.caption, "modality": "image", "collection": self.name, "fields": unit.fields}
        facts = Facts(unit.path) if self.files and unit.path else None
        source = self.source_of(item)
        if isinstance(source, (str, bytes)) and (pages := pages_of(source)) > 1:
            self._note(unit, f"page 1 of {pages} is read, the others are not")
        if facts is not None and self.tiled(unit.path):
            yield from self._tiles(unit, item, facts)
        else:
            yield item if facts is None else {**item, "fields": facts.fields()}, source

    def _tiles(self, unit: Unit, item: dict, facts: Facts) -> Iterator[tuple[dict, object]]:
        blank = total = 0
        try:
            for box, tile in read_tiles(unit.path, self.settings["tile"], self.settings["overlap"], self._bands):
                total += 1
                if tile.info["blank"]:
                    blank += 1
                else:
                    own = {"id": f"{unit.key}#{','.join(map(str, box))}", "box": list(box)}
                    yield {**item, **own, "fields": facts.fields(box)}, tile
        except BadImageError as error:
            yield item, error
            return
        if blank == total:
            yield item, BadImageError(f"{unit.path}: all of its {total} tiles are empty (nodata, or one colour)")
        elif blank:
            self.blank += blank
            self._note(unit, f"{blank} of {total} tiles are empty (nodata, or one colour) and are not indexed")

    def _note(self, unit: Unit, text: str):
        self.notes.append({"id": unit.key, "path": unit.path, "problem": text})

    def tiled(self, path: str | None) -> bool:
        """Whether a file is cut into tiles."""
        if not (self.settings["tile"] and path and self.files):
            return False
        if path not in self._scenes:
            self._scenes[path] = is_scene(path)
        return self._scenes[path]

    def source_of(self, item: dict) -> str | bytes | None:
        """What the picture of an item is opened from: its file, or what its row holds.

        Args:
            item: with `id`, `path` and `row`, and `size` and `stamp` where its row may hold another picture by now.

        Raises:
            BadImageError: its row is another's by now, or holds another picture.
        """
        number = item.get("row")
        if number is None:
            return item["path"]
        row = self.rows[number] if number < len(self.rows) else {}
        source = image_source(row[self.settings.get("image_column") or "image"]) if row else None
        same = bool(row) and self._key(number, row) == item["id"]
        if isinstance(source, bytes) and item.get("stamp") is not None:
            same = same and (len(source), zlib.crc32(source)) == (item["size"], item["stamp"])
        elif isinstance(source, str) and item.get("path"):
            same = same and source == item["path"]
        elif source is None and item.get("stamp"):  # there was a picture
            same = False
        if not same:
            raise BadImageError(f"{item['id']}: {self.name} has changed: bring the index up to date with --update")
        return source

    @property
    def _bands(self):
        return self.settings.get("bands")

    def _key(self, number: int, row: dict) -> str:
        return f"{self.name}:{row.get('image_id', number)}"

    def _row_unit(self, number: int, row: dict) -> Unit:
        names = (self.settings.get("image_column") or "image", self.settings.get("captions_column") or "captions")
        image, captions = image_source(row[names[0]]), row.get(names[1])
        fields = fields_of(row, names)
        captions = captions if isinstance(captions, list) else [captions]
        caption = " / ".join(str(text) for text in captions if text is not None and text != "") or None
        key = self._key(number, row)
        if isinstance(image, bytes):
            return Unit(key, None, number, len(image), zlib.crc32(image), caption, fields)
        try:
            status = os.stat(os.fspath(image))  # os.stat would take a number for an open file
        except (OSError, TypeError, ValueError):  # opening it reports what is wrong
            return Unit(key, image if isinstance(image, str) else None, number, 0, 0, caption, fields)
        return Unit(key, image, number, status.st_size, status.st_mtime_ns, caption, fields)


def fields_of(row: dict, left_out: Iterable[str]) -> str | None:
    """JSON of the columns of a row that `--where` can compare: numbers, short texts, dates as ISO texts."""
    fields = {name: _comparable(value) for name, value in row.items() if name not in left_out}
    fields = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(fields) if fields else None


def _comparable(value):
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):  # as columns of money are
        value = float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value if len(value) <= LONGEST_FIELD else None
    return value if isinstance(value, (bool, int)) and -(2**63) <= value < 2**63 else None


def _is_of_pictures(folder: Path, data_config: str | None, known: Container[str]) -> bool:
    """Whether a folder is read as pictures, and not as a dataset: as it was before, else by what is in it."""
    place = os.path.abspath(folder)
    dataset = ":".join(part for part in (place, data_config, "train") if part is not None)
    if (place in known) != (dataset in known):
        return place in known
    return holds_pictures(folder) or not holds_tables(folder)


def _is_picture(path: Path) -> bool:
    """Whether a source that is one file is a picture: by its suffix, else by its content."""
    if path.suffix.lower() in SUFFIXES:
        return path.is_file()
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return format_of(file.read(256)) is not None


__all__ = ["Collection", "Unit"]
