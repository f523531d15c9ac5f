"""Files that name pictures and say their captions: Karpathy's json, COCO's and PIR's annotations, the official layout.

Names are those of files below an image root; a name that leads out of it is refused.
"""

import glob
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..files.text import text_of

LONGEST_LINE = 1_000_000  # bytes; a longer one is no row of a table


def read_json(path: Path, split: str, root: Path) -> Dataset:
    """Read a split of a json in one of the three ways; rows of `image`, `captions`, `image_id`, perhaps `label`.

    Args:
        path: of the file.
        split: which images of a Karpathy json; the others hold one split, whatever it is called.
        root: folder of the pictures.

    Raises:
        ValueError: none of the three, no image of this split, or a name that leads out of the root.
    """
    content = _json(path)
    if isinstance(content, list):
        return _annotations(path, content, root)
    if isinstance(content, dict) and all(isinstance(content.get(kind), list) for kind in ("images", "annotations")):
        return _coco(path, content, root)
    return _karpathy(path, content, split, root)


def holds_lines(path: Path) -> bool:
    """Whether a file holds an object in each line, as `Dataset.to_json` writes it."""
    with path.open("rb") as file:
        first, second = file.readline(LONGEST_LINE), file.readline(LONGEST_LINE)
    try:
        return isinstance(json.loads(first.decode("utf-8-sig")), dict) and second.lstrip().startswith(b"{")
    except ValueError:
        return False


def has_splits(path: Path) -> bool:
    """Whether a json has splits of its own, as Karpathy's; the whole file is not parsed for that."""
    content = path.read_bytes()
    return not content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[") and not re.search(rb'"annotations"\s*:', content)


def _annotations(path: Path, content: list, root: Path) -> Dataset:
    """PIR's lists: a row is a caption (training) or an image with all its captions; rows of one image are joined."""
    rows: dict[str, dict] = {}
    for number, entry in enumerate(content):
        try:
            several = "captions" in entry and "caption" not in entry  # as a table of ours that was written as records
            caption = _field(entry, "captions" if several else "caption", str, list)
            name, captions = _field(entry, "image", str), [caption] if isinstance(caption, str) else _texts(caption)
        except ValueError as error:
            raise ValueError(f"{path}: row {number} is not as in PIR's annotations ({error})") from None
        row = rows.setdefault(name, {"captions": [], "image_id": name})
        row["captions"] += captions
        if "label_name" in entry:
            row["label"] = str(entry["label_name"])
    if not rows:
        raise ValueError(f"{path}: no rows")
    labelled = all("label" in row for row in rows.values())
    if not labelled:
        rows = {name: {k: v for k, v in row.items() if k != "label"} for name, row in rows.items()}
    return _placed([{**row, "image": name} for name, row in rows.items()], root)


def _placed(rows: Collection[dict], root: Path) -> Dataset:
    """The table of rows whose `image` is the name of a file below the root."""
    images = ({"bytes": None, "path": resolve_image(root, row["image"])} for row in rows)
    return Dataset.from_list([{**row, "image": image} for row, image in zip(rows, images)])


def _coco(path: Path, content: dict, root: Path) -> Dataset:
    """COCO's own annotations (`captions_train2017.json`): images, and annotations that refer to them by id."""
    rows: dict[Any, dict] = {}

    def add_image(entry):
        name, number = _field(entry, "file_name", str), _field(entry, "id", int, str)
        rows[number] = {"image": name, "captions": [], "image_id": str(number)}

    def add_caption(entry):
        number = _field(entry, "image_id", int, str)
        if number not in rows:
            raise ValueError(f"no image has the id {number!r}")
        rows[number]["captions"].append(_field(entry, "caption", str))

    for kind, add in (("images", add_image), ("annotations", add_caption)):
        for number, entry in enumerate(content[kind]):
            try:
                add(entry)
            except ValueError as error:
                raise ValueError(f"{path}: number {number} of {kind} is not as in COCO's captions ({error})") from None
    if not rows:
        raise ValueError(f"{path}: no images")
    return _placed(rows.values(), root)


def _karpathy(path: Path, content, split: str, root: Path) -> Dataset:
    """Karpathy's json; `train` includes COCO's `restval`."""
    wanted = {split, "restval"} if split == "train" else {"val"} if split == "validation" else {split}
    rows: list[dict[str, Any]] = []
    images = content.get("images") if isinstance(content, dict) else None
    if not images or not isinstance(images, list):
        raise ValueError(f"{path}: not a Karpathy json: it has no 'images'")
    for number, entry in enumerate(images):
        try:
            if _field(entry, "split", str) in wanted:
                file = _field(entry, "filename", str)
                name = str(Path(_field({"filepath": "", **entry}, "filepath", str)) / file)
                captions = [_field(each, "raw", str, type(None)) for each in _field(entry, "sentences", list)]
                rows.append({"image": name, "captions": captions, "image_id": str(entry.get("cocoid", file))})
        except ValueError as error:
            raise ValueError(f"{path}: image {number} is not as in a Karpathy json ({error})") from None
    if not rows:
        raise ValueError(f"{path}: no image of split {split!r}; there are {sorted({e['split'] for e in images})}")
    return _placed(rows, root)


def read_official(folder: Path, split: str, root: Path) -> Dataset:
    """The official text files: ids are one per image or one per caption; captions of an image are consecutive."""
    names = _json(folder / "id_mapping.json")
    if not isinstance(names, dict):
        raise ValueError(f"{folder}/id_mapping.json: no object whose keys are ids and whose values names of files")
    captions = _lines(folder / f"{split}_caps.txt")
    ids = _lines(folder / f"{split}_ids.txt")
    if not ids or len(captions) % len(ids):
        raise ValueError(f"{folder}: {len(captions)} captions do not divide among {len(ids)} ids of {split}")
    per_id = len(captions) // len(ids)
    grouped: dict[str, list[str]] = {}
    for line, caption in enumerate(captions):
        grouped.setdefault(ids[line // per_id], []).append(caption)
    unknown = [image_id for image_id in grouped if image_id not in names]
    if unknown:
        raise ValueError(f"{folder}/id_mapping.json lacks {len(unknown)} ids of {split}, first {unknown[0]!r}")
    if wrong := next((image_id for image_id in grouped if not isinstance(names[image_id], str)), None):
        raise ValueError(f"{folder}/id_mapping.json: id {wrong!r} has {names[wrong]!r} in place of the name of a file")
    dense_files = sorted(folder.glob(f"*_{glob.escape(split)}.jsonl"))
    dense = dense_lines(dense_files[0], len(grouped)) if dense_files else None
    rows = [{"image": names[image_id], "captions": texts, "image_id": image_id} for image_id, texts in grouped.items()]
    if dense:
        rows = [{**row, "dense_text": text} for row, text in zip(rows, dense)]
    return _placed(rows, root)


def dense_lines(path: str | Path, count: int) -> list[str | None]:
    """Read dense captions, line k for image k of `count`; None (`null`) where an image has none.

    Raises:
        ValueError: a torn or missing line, after which all captions would shift; the message names it.
    """
    texts: list[str | None] = []
    for number, line in enumerate(_lines(Path(path)), 1):
        try:
            texts.append(_field(json.loads(line), "text", str, type(None)))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: not a dense caption ({error}); later captions would shift") from None
    if len(texts) != count:
        raise ValueError(f"{path}: {len(texts)} dense captions for {count} images")
    return texts


def resolve_image(root: Path, name: str) -> str:
    """Return the path of `name` under `root`.

    Raises:
        ValueError: the name leads out of the root (absolute, `..`, or through a symbolic link).
    """
    if "\0" in name or not (root / name).resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{name!r} leads out of the image root {root}: fix the manifest")
    return str((root / name).resolve())


def _lines(path: Path) -> list[str]:
    """Lines of a file. `splitlines` would also split at U+2028 and U+0085, and shift all that follows."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file (the official layout has one per split)")
    lines = text_of(path).split("\n")
    return lines[:-1] if not lines[-1] else lines


def _json(path: Path):
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not JSON, or half of a file ({error})") from None


def _field(entry, name: str, *kinds: type):
    """A field of an object of a JSON file; ValueError if the entry is none, lacks it, or holds another kind there."""
    if not isinstance(entry, dict):
        raise ValueError(f"{entry!r:.80} is no object with fields")
    if name not in entry:
        raise ValueError(f"it has no {name!r}")
    if not isinstance(entry[name], kinds):
        raise ValueError(f"{name!r} is {entry[name]!r:.80}, not {'a text' if str in kinds else 'a list'}")
    return entry[name]


def _texts(captions: list) -> list[str | None]:
    """The captions of a list; an empty place (`null`) is for the check of the rows."""
    wrong = next((text for text in captions if not isinstance(text, (str, type(None)))), None)
    if wrong is not None:
        raise ValueError(f"a caption is {wrong!r:.80}, not a text")
    return captions


__all__ = ["dense_lines", "has_splits", "holds_lines", "read_json", "read_official", "resolve_image"]
