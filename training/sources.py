"""Datasets as people have them, read into rows of `image`, `captions`, `image_id` and, where known, `dense_text`.

- a Hub id, a folder of parquet files or an imagefolder: through `datasets.load_dataset`;
- one parquet or jsonl file;
- a Karpathy json (`dataset_flickr30k.json`) with an image root;
- the official layout of D2S-VSE: `SPLIT_caps.txt`, `SPLIT_ids.txt`, `id_mapping.json`, `NAME_SPLIT.jsonl`.

Images stay undecoded (bytes or a path) until they are used.
"""

import json
from pathlib import Path

from datasets import Dataset, Image, load_dataset


def read_source(data: str, split: str, image_root: str | None = None) -> Dataset:
    """Read one split of `data`; columns keep the names that the source gives them.

    Raises:
        FileNotFoundError, ValueError: the source, split or image root is not there; the message says what is.
    """
    path = Path(data)
    if path.suffix == ".json":
        return _karpathy(path, split, _root(image_root, data))
    if (path / f"{split}_caps.txt").exists() or (path / "id_mapping.json").exists():
        return _official(path, split, _root(image_root, data))
    if path.suffix in (".parquet", ".jsonl"):
        if not path.exists():
            raise FileNotFoundError(f"{data}: no such file")
        kind = "parquet" if path.suffix == ".parquet" else "json"
        rows = load_dataset(kind, data_files=str(path), split="train")
    else:
        if data.startswith((".", "/", "~")) and not path.exists():
            raise FileNotFoundError(f"{data}: no such file or folder")
        try:
            rows = load_dataset(data, split=split)
        except ValueError as error:
            raise ValueError(f"{data}: split {split!r} cannot be read ({error})") from None
    return rows.cast_column("image", Image(decode=False)) if _is_image(rows, "image") else rows


def resolve_image(root: Path, name: str) -> str:
    """Return the path of `name` under `root`.

    Raises:
        ValueError: the name leads out of the root (absolute, `..`, or through a symbolic link).
    """
    path = (root / name).resolve()
    if "\0" in name or not path.is_relative_to(root.resolve()):
        raise ValueError(f"{name!r} leads out of the image root {root}: fix the manifest")
    return str(path)


def _is_image(rows: Dataset, column: str) -> bool:
    return isinstance(rows.features.get(column), Image)


def _root(image_root: str | None, data: str) -> Path:
    if image_root is None:
        raise ValueError(f"{data} names image files: say where they lie with --image_root FOLDER")
    if not Path(image_root).is_dir():
        raise FileNotFoundError(f"image root {image_root}: no such folder")
    return Path(image_root)


def _karpathy(path: Path, split: str, root: Path) -> Dataset:
    """Karpathy's json; `train` includes COCO's `restval`."""
    wanted = {split, "restval"} if split == "train" else {"val"} if split == "validation" else {split}
    images = json.loads(path.read_text(encoding="utf-8"))["images"]
    rows = []
    for entry in images:
        if entry["split"] in wanted:
            name = str(Path(entry.get("filepath", "")) / entry["filename"])
            rows.append(
                {
                    "image": {"bytes": None, "path": resolve_image(root, name)},
                    "captions": [sentence["raw"] for sentence in entry["sentences"]],
                    "image_id": str(entry.get("cocoid", entry["filename"])),
                }
            )
    if not rows:
        raise ValueError(f"{path}: no image of split {split!r}; there are {sorted({e['split'] for e in images})}")
    return Dataset.from_list(rows)


def _official(folder: Path, split: str, root: Path) -> Dataset:
    """The official text files: ids are one per image or one per caption; captions of an image are consecutive."""
    names = json.loads((folder / "id_mapping.json").read_text(encoding="utf-8"))
    captions = _lines(folder / f"{split}_caps.txt")
    ids = _lines(folder / f"{split}_ids.txt")
    if len(captions) % len(ids):
        raise ValueError(f"{folder}: {len(captions)} captions do not divide among {len(ids)} ids of {split}")
    per_id = len(captions) // len(ids)
    grouped: dict[str, list[str]] = {}
    for line, caption in enumerate(captions):
        grouped.setdefault(ids[line // per_id], []).append(caption)
    unknown = [image_id for image_id in grouped if image_id not in names]
    if unknown:
        raise ValueError(f"{folder}/id_mapping.json lacks {len(unknown)} ids of {split}, first {unknown[0]!r}")
    dense = _dense_lines(folder, split, len(grouped))
    return Dataset.from_list(
        [
            {
                "image": {"bytes": None, "path": resolve_image(root, names[image_id])},
                "captions": texts,
                "image_id": image_id,
                **({"dense_text": dense[row]} if dense else {}),
            }
            for row, (image_id, texts) in enumerate(grouped.items())
        ]
    )


def _dense_lines(folder: Path, split: str, count: int) -> list[str] | None:
    """Dense captions, line k for image k. A torn or missing line would shift all later captions: it is an error."""
    found = sorted(folder.glob(f"*_{split}.jsonl"))
    if not found:
        return None
    texts = []
    for number, line in enumerate(_lines(found[0]), 1):
        try:
            texts.append(json.loads(line)["text"])
        except (json.JSONDecodeError, KeyError) as error:
            raise ValueError(
                f"{found[0]}:{number}: not a dense caption ({error}); later captions would shift"
            ) from None
    if len(texts) != count:
        raise ValueError(f"{found[0]}: {len(texts)} dense captions for {count} images of {split}")
    return texts


def _lines(path: Path) -> list[str]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file (the official layout has one per split)")
    return path.read_text(encoding="utf-8").splitlines()
