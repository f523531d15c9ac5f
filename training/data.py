"""From a source to rows one can train on: columns found, captions cleaned, every image decoded once, nothing silent.

A bad row (an image that does not decode, no caption, no dense text where it is needed) stops the run with its name and
the remedy, or is left out and listed in `bad_samples.jsonl`, as `on_bad_sample` says.
"""

import json
from pathlib import Path

from datasets import Dataset, Image, load_dataset

from ..processing.pixels import BadImageError, open_image
from .arguments import DataArguments
from .sources import read_source


def prepare_rows(
    args: DataArguments, split: str, report_dir: str, need_dense: bool, limit: int | None = None
) -> Dataset:
    """Read and check one split.

    Args:
        args: which source and columns.
        split: its name.
        report_dir: where `bad_samples.jsonl` goes.
        need_dense: whether every row must have a dense text.
        limit: keep the first so many rows.

    Returns:
        Rows of `image` (bytes or path), `captions` (list of str), `image_id` (str) and, if known, `dense_text`.

    Raises:
        ValueError: wrong column names, or a bad row under `on_bad_sample="error"`.
    """
    if not args.data:
        raise ValueError("say what to train on: --data PATH or Hub id")
    rows = _canonical(read_source(args.data, split, args.image_root), args)
    if limit:
        rows = rows.select(range(min(limit, len(rows))))
    rows = _with_dense(rows, args.dense_text, need_dense)
    problems = [
        {"split": split, "row": row, "image_id": image_id, "problem": problem}
        for row, (image_id, problem) in enumerate(zip(rows["image_id"], _problems(rows, need_dense)))
        if problem
    ]
    if problems and args.on_bad_sample == "error":
        first = problems[0]
        raise ValueError(
            f"{args.data} [{split}]: {len(problems)} bad rows; first: row {first['row']}, "
            f"image_id {first['image_id']}: {first['problem']}. Repair it, or leave bad rows out with "
            "--on_bad_sample quarantine"
        )
    if problems:
        report(problems, report_dir)
        bad = {problem["row"] for problem in problems}
        rows = rows.select([row for row in range(len(rows)) if row not in bad])
    if len(rows) == 0:
        raise ValueError(f"{args.data} [{split}]: no usable row is left")
    return rows


def report(problems: list[dict], folder: str):
    """Append bad samples to `bad_samples.jsonl` and say so."""
    path = Path(folder) / "bad_samples.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(problem, ensure_ascii=False) + "\n" for problem in problems)
    print(f"{len(problems)} bad rows left out, listed in {path}")


def _canonical(rows: Dataset, args: DataArguments) -> Dataset:
    """Rename the source's columns to ours; one caption becomes a list of one; ids become strings."""
    for flag, column in (("image_column", args.image_column), ("captions_column", args.captions_column)):
        if column not in rows.column_names:
            raise ValueError(f"{args.data} has no column {column!r}; it has {rows.column_names}. Name it with --{flag}")
    names = {args.image_column: "image", args.captions_column: "captions", args.id_column: "image_id"}
    names = {old: new for old, new in names.items() if old in rows.column_names and old != new}
    rows = rows.rename_columns(names)
    if isinstance(rows.features["image"], Image):
        rows = rows.cast_column("image", Image(decode=False))
    captions = [[c] if isinstance(c, str) else list(c or []) for c in rows["captions"]]
    ids = [str(i) for i in rows["image_id"]] if "image_id" in rows.column_names else _made_ids(rows, args.data)
    if len(set(ids)) != len(ids):
        raise ValueError(
            f"{args.data}: column {args.id_column!r} repeats ids; give one row per image with all its captions"
        )
    rows = rows.remove_columns([name for name in ("captions", "image_id") if name in rows.column_names])
    return rows.add_column("captions", captions).add_column("image_id", ids)


def _made_ids(rows: Dataset, data: str) -> list[str]:
    """Ids where the source has none: paths below an image folder, as `vsehub caption` names them, else row numbers."""
    paths = [(image or {}).get("path") for image in rows["image"]] if Path(data).is_dir() else []
    if paths and all(path and Path(path).is_relative_to(Path(data).resolve()) for path in paths):
        return [Path(path).relative_to(Path(data).resolve()).as_posix() for path in paths]
    return [str(row) for row in range(len(rows))]


def _with_dense(rows: Dataset, dense_text: str, needed: bool) -> Dataset:
    """Attach the dense text that `dense_text` names: a column, a file, or the union of the captions."""
    if dense_text == "union":
        found = [" ".join(text.strip() for text in captions) for captions in rows["captions"]]
    elif dense_text.endswith(".jsonl"):
        found = [json.loads(line)["text"] for line in Path(dense_text).read_text(encoding="utf-8").splitlines()]
        if len(found) != len(rows):
            raise ValueError(f"{dense_text} has {len(found)} lines for {len(rows)} images")
    elif dense_text.endswith(".parquet"):
        table = load_dataset("parquet", data_files=dense_text, split="train")
        by_id = dict(zip(map(str, table["image_id"]), table["dense_text"]))
        found = [by_id.get(image_id) for image_id in rows["image_id"]]
    elif dense_text in rows.column_names:
        found = list(rows[dense_text])
    elif needed:
        raise ValueError(
            f"no column {dense_text!r} among {rows.column_names}: dense text comes from --dense_text COLUMN, "
            "FILE.jsonl, FILE.parquet (made by `vsehub caption`), or `union` (all captions of an image in one text)"
        )
    else:
        return rows
    if "dense_text" in rows.column_names:
        rows = rows.remove_columns("dense_text")
    return rows.add_column("dense_text", found)


def _problems(rows: Dataset, need_dense: bool) -> list[str]:
    """Find what is wrong with each row ('' if nothing). Decoding every image is the slow part; `datasets` caches it."""
    checked = rows.map(
        lambda row: {"problem": _problem(row, need_dense)},
        remove_columns=rows.column_names,
        desc="checking images and captions",
    )
    return checked["problem"]


def _problem(row: dict, need_dense: bool) -> str:
    if not row["captions"]:
        return "no caption"
    for number, caption in enumerate(row["captions"]):
        if not isinstance(caption, str) or not caption.strip():
            return f"caption {number} is empty"
    if need_dense and not (row.get("dense_text") or "").strip():
        return "no dense text (make one with `vsehub caption`, or use --dense_text union)"
    try:
        open_image(image_source(row["image"]), name=f"image {row['image_id']}")
    except BadImageError as error:
        return str(error)
    return ""


def image_source(image) -> bytes | str:
    """Return what `open_image` takes from an undecoded image column: bytes or a path."""
    if isinstance(image, dict):
        return image["bytes"] if image.get("bytes") is not None else image["path"]
    return image
