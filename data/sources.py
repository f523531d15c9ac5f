"""Datasets as people have them, read into rows of `image`, `captions`, `image_id` and, where known, `dense_text`.

- a folder of pictures: all of them, or those below the subfolder of the split, if all lie in such ones;
- a Hub id, a folder of parquet files, a folder of pictures with metadata: through `datasets.load_dataset`;
- one table: parquet, Arrow, JSON lines (also as `.json`), CSV, TSV; or a webdataset tar;
- a json with an image root: Karpathy's (`dataset_flickr30k.json`, `dataset_rsicd.json`), COCO's annotations
  (`captions_{split}2017.json`), PIR's annotations of RSICD and RSITMD (`rsitmd_{split}.json`);
- the official layout of D2S-VSE: `SPLIT_caps.txt`, `SPLIT_ids.txt`, `id_mapping.json`, `NAME_SPLIT.jsonl`.

Images stay undecoded (bytes or a path) until they are used.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Image, ReadInstruction
from transformers.utils import logging

from ..files.text import is_unicode, printable
from .class_names import with_class_names
from .columns import in_order, parts_of, with_column
from .folders import holds_pictures, list_folder
from .loading import ending_of, literal, load_split
from .manifests import has_splits, holds_lines, read_json, read_official, resolve_image
from .text_tables import SEPARATORS, read_json_lines, read_text_table

SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
BINARY = {".parquet": "parquet", ".arrow": "arrow", ".tar": "webdataset"}  # tables, by the names that `datasets` has
TABLES = (*BINARY, ".jsonl", *SEPARATORS)
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
logger = logging.get_logger(__name__)


def read_source(
    data: str,
    split: str,
    image_root: str | None = None,
    image_column: str = "image",
    any_split: bool = False,
    data_config: str | None = None,
) -> Dataset:
    """Read one split of `data`; columns keep the names that the source gives them, and numbered classes become texts.

    A single table, or a json of COCO or PIR, holds one split, whatever it is called; `{split}` in the path, or in the
    image root, stands for the split's name. Names of files in `image_column` are names under `image_root`, if that is
    given; without one, a table's names are those of files beside the table, or else count from the working directory.

    Args:
        data, split: which source, and which part of it: a split, or a slice of one (`train[:10%]`).
        image_root: folder of the files that `image_column` names.
        image_column: where the images are.
        any_split: a folder of pictures that has no splits stands for every split, not for `train` alone.
        data_config: which configuration, of a dataset that has several.

    Raises:
        FileNotFoundError, ValueError: the source, split or image root is not there; the message says what is.
    """
    path, name = path_of(data, split), split.partition("[")[0]
    if data_config is not None and (path.is_file() or (path.is_dir() and is_folder_of_pictures(path))):
        raise ValueError(f"--data_config {data_config}: {data} has no configurations; leave it out")
    if ending_of(path) in (*TABLES, ".json"):
        if not path.exists():
            raise FileNotFoundError(f"{data}: no such file")
    elif data.startswith((".", "/", "~")) and not path.exists():
        raise FileNotFoundError(f"{data}: no such file or folder")
    elif path.is_file():
        raise ValueError(f"{data}: a source is a folder, a file ({', '.join(TABLES)}, .json), or a Hub id")
    rows = _whole(data, path, name, image_root, image_column, any_split or "{split}" in data)
    if rows is None:
        rows = load_split(data, split, data_config)
    elif data_config is not None:
        raise ValueError(f"--data_config {data_config}: {data} has no configurations; leave it out")
    elif name != split:
        rows = _sliced(rows, data, split)
    rows = with_class_names(rows, data)
    feature = rows.features.get(image_column)
    if getattr(feature, "dtype", None) in ("string", "large_string", "string_view"):
        root = None if image_root is None else _root(image_root, data, split)
        return _with_files(rows, image_column, data, path, root)
    if image_root is not None and feature is not None and not _names_files(path, name):
        text = "%s: --image_root is not used, since column %r holds no names of files: leave it out"
        logger.warning(text, printable(data), image_column)
    if isinstance(feature, Image):
        return rows.cast_column(image_column, Image(decode=False))
    return rows


def _whole(
    data: str, path: Path, split: str, image_root: str | None, image_column: str, any_split: bool
) -> Dataset | None:
    """A whole split of a source whose splits `datasets` does not know; None for one that it reads by itself."""
    kind = _kind(path)
    if kind == ".json":
        return read_json(path, split, _root(image_root, data, split))
    if _names_files(path, split):
        return read_official(path, split, _root(image_root, data, split))
    if kind in TABLES:
        return read_table(path, data)
    if not path.is_dir():
        return None
    if is_folder_of_pictures(path):
        return _pictures(path, split_folder(path, split, any_split), image_column)
    if _has_metadata(path):  # read all files: names that look like splits would hide the others
        folder = split_folder(path, split, any_split) or path
        return load_split(data, "train", path="imagefolder", data_files=f"{literal(folder.resolve())}/**")
    return None


def read_table(path: Path, data: str) -> Dataset:
    """Read one table, of `TABLES`; `data` is how the user named it.

    Raises:
        ValueError: it cannot be read.
    """
    kind = _kind(path)
    if kind in BINARY:
        return load_split(data, "train", path=BINARY[kind], data_files=literal(path))
    return read_json_lines(path, data) if kind == ".jsonl" else read_text_table(path, data)


def _kind(path: Path) -> str:
    """The ending of a name, in small letters; `.jsonl` also of a `.json` that holds an object in each line."""
    ending = ending_of(path)
    return ".jsonl" if ending == ".json" and path.is_file() and holds_lines(path) else ending


def _names_files(path: Path, split: str) -> bool:
    """Whether a source is a list of pictures below an image root: annotations in a json, or the official layout."""
    return _kind(path) == ".json" or (path / f"{split}_caps.txt").exists() or (path / "id_mapping.json").exists()


def is_one_table(data: str, *splits: str) -> bool:
    """Whether these splits, or slices of them, are all read from one file that has no splits of its own."""
    path = path_of(data, splits[0])
    if any(path_of(data, split) != path for split in splits) or not path.is_file():
        return False
    kind = _kind(path)
    return kind in TABLES or (kind == ".json" and not has_splits(path))


def _sliced(rows: Dataset, data: str, split: str) -> Dataset:
    """The rows of a slice, cut as `datasets` cuts it.

    Raises:
        ValueError: it is written in another way.
    """
    try:
        parts = ReadInstruction.from_spec(f"rows[{split.partition('[')[2]}").to_absolute({"rows": len(rows)})
    except ValueError as error:
        raise ValueError(f"{data}: {split!r} is no slice such as train[:100] or train[90%:] ({error})") from None
    return rows.select([row for part in parts for row in range(part.from_, part.to)])


def paths_below(rows: Dataset, image_column: str, folder: Path) -> list[pa.Array] | None:
    """The paths of the pictures below a folder, which are their ids; None where they do not all lie there.

    Args:
        rows: in order (`in_order`).
    """
    if not folder.is_dir():
        return None
    for root in dict.fromkeys((Path(os.path.abspath(folder)), folder.resolve())):
        parts = [_relative(part, root) for part in rows.data.column(image_column).chunks]
        if None not in parts:
            return parts
    return None


def _relative(images: pa.Array, root: Path) -> pa.Array | None:
    if not pa.types.is_struct(images.type):
        return None
    paths = [path and Path(path) for path in pc.struct_field(images, "path").to_pylist()]
    if not all(path and path.is_relative_to(root) for path in paths):
        return None
    return pa.array([path.relative_to(root).as_posix() for path in paths], pa.string())


def _with_files(rows: Dataset, image_column: str, data: str, path: Path, root: Path | None) -> Dataset:
    """Turn names of files into paths: below the root, or in the folder of the table if the first one lies there.

    Raises:
        ValueError: addresses, which are not fetched, or a name that leads out of the root.
    """
    if root is not None:
        return _with_paths(rows, image_column, lambda name: resolve_image(root, name))
    first = next((name for name in rows.select_columns([image_column])[:1000][image_column] if name), "")
    if re.match(r"[a-z][a-z0-9+.-]+://", first, re.IGNORECASE):
        raise ValueError(
            f"{data}: column {image_column!r} holds addresses ({first[:60]!r}), and nothing is fetched: download "
            "the pictures first, as with img2dataset, or name another --image_column"
        )
    folder = os.path.abspath(path if path.is_dir() else path.parent)
    if path.exists() and first and os.path.exists(os.path.join(folder, first)):
        return _with_paths(rows, image_column, lambda name: os.path.join(folder, name))
    return rows


def _with_paths(rows: Dataset, image_column: str, path_of_name: Callable[[str], str]) -> Dataset:
    """Turn names of files into paths."""
    rows = in_order(rows)
    paths = (
        pa.array([path_of_name(name) if name else None for name in part.to_pylist()], pa.string())
        for part in parts_of(rows, image_column)
    )
    names = f"{image_column} as named"  # removed when the paths are there: without columns there are no rows
    named = rows.rename_column(image_column, names)
    return with_column(named, image_column, pa.string(), paths).remove_columns(names)


def is_folder_of_pictures(path: Path, except_for: Path | None = None) -> bool:
    """Whether a folder holds pictures and no other data; the table `except_for` (resolved) does not count."""
    tables = any(
        ending_of(child) in (".parquet", ".arrow") and child.resolve() != except_for for child in path.rglob("*")
    )
    return not tables and not _has_metadata(path) and not (path / "README.md").exists() and holds_pictures(path)


def _has_metadata(path: Path) -> bool:
    return any((folder / name).exists() for folder in (path, *_subfolders(path)) for name in METADATA)


def _subfolders(path: Path) -> list[Path]:
    return [child for child in sorted(path.iterdir()) if child.is_dir() and not child.name.startswith(".")]


def split_folder(path: Path, split: str, any_split: bool = False) -> Path | None:
    """The subfolder of a split, where the folders below `path` are named like splits and nothing else is there.

    Without such folders all pictures are the split `train`, or with `any_split` of every name: None.

    Raises:
        ValueError: there is none of this split.
    """
    folder = _among_splits(path, split)
    if folder is None and not any_split and split != "train":
        raise ValueError(
            f"{path} is a folder of pictures without splits: there is no split {split!r}. Put pictures into folders "
            f"train/ and {split}/, write {{split}} where the path differs, or cut the split train in two: "
            "train[:90%] and train[90%:]"
        )
    return folder


def _among_splits(path: Path, split: str) -> Path | None:
    names = {name: split_name for split_name, several in SPLIT_FOLDERS.items() for name in several}
    folders = _subfolders(path)
    if not folders or not all(folder.name.lower() in names for folder in folders):
        return None
    if any(child.is_file() and not child.name.startswith(".") for child in path.iterdir()):
        return None
    chosen = [folder for folder in folders if split in (folder.name, names[folder.name.lower()])]
    if not chosen:
        raise ValueError(f"{path} has no split {split!r}; its folders are {', '.join(f.name for f in folders)}")
    return chosen[0]


def other_splits(path: Path) -> list[str]:
    """Names of the folders of `path` that are called like splits, but for those of `train`."""
    others = {name for split, several in SPLIT_FOLDERS.items() if split != "train" for name in several}
    return [folder.name for folder in _subfolders(path) if folder.name.lower() in others]


def _pictures(path: Path, root: Path | None, image_column: str) -> Dataset:
    """The pictures below a folder; `label` is the name of their folder, if each lies in a folder of the first level."""
    folder = list_folder(root or path)
    for problem in (f"{bad}: {why}" for bad, why in folder.refused.items()):
        logger.warning("left out: %s", printable(problem))
    if folder.others:
        tables = {".csv", ".tsv", ".jsonl", ".json"} & set(folder.others)
        remedy = f"; where captions stand in a table, name that as the data: {path}/NAME{min(tables)}" if tables else ""
        logger.warning("left out: %s", printable(f"{root or path}: no pictures ({folder.told}){remedy}"))
    paths = [os.path.abspath(name) for name in folder.pictures if is_unicode(name)]
    if len(paths) < len(folder.pictures):
        logger.warning("left out: %d files whose names are not Unicode: rename them", len(folder.pictures) - len(paths))
    rows = [{image_column: {"bytes": None, "path": name}} for name in paths]
    labels = [Path(name).relative_to(os.path.abspath(root or path)).parts[:-1] for name in paths]
    if len(set(labels)) > 1 and all(len(parts) == 1 for parts in labels):
        rows = [{**row, "label": parts[0]} for row, parts in zip(rows, labels)]
    return Dataset.from_list(rows)


def _root(image_root: str | None, data: str, split: str) -> Path:
    if image_root is None:
        raise ValueError(f"{data} names image files: say where they lie with --image_root FOLDER")
    root = path_of(str(image_root), split)
    if not root.is_dir():
        raise FileNotFoundError(f"image root {root}: no such folder")
    return root


def path_of(data: str, split: str) -> Path:
    """Fill in `{split}`, the name without a slice; files of a validation split are often named `val`."""
    split = split.partition("[")[0]
    path = Path(data.replace("{split}", split))
    short = Path(data.replace("{split}", "val"))
    return short if split == "validation" and not path.exists() and short.exists() else path
