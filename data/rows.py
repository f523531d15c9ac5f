"""Read a source into checked rows: columns renamed, captions cleaned, every image decoded once.

A bad row (an image that does not decode, no caption, no dense text where it is needed) stops the run with its name and
the remedy, or is left out and listed in `bad_samples.jsonl`, as `on_bad_sample` says.
"""

import logging
import os
import sys
from pathlib import Path

from datasets import ClassLabel, Dataset, load_dataset

from ..files.bad_samples import BadSample, report_bad_samples
from ..processing.pixels import BadImageError
from ..processing.scenes import open_any
from .arguments import DataArguments
from .grouping import join_pictures
from .sources import dense_lines, read_source

logger = logging.getLogger(__name__)


def prepare_rows(
    args: DataArguments,
    split: str,
    report_dir: str | None,
    need_dense: bool,
    limit: int | None = None,
    need_label: bool = False,
    need_captions: bool = True,
) -> Dataset:
    """Read and check one split.

    Args:
        args: which source and columns.
        split: its name.
        report_dir: where `bad_samples.jsonl` goes; None writes none (another process does).
        need_dense: whether every row must have a dense text; if not, none is looked for. Where the column of the
            default is missing, `args.dense_text` becomes `union`.
        limit: keep the first so many rows.
        need_label: whether every row must have a scene class.
        need_captions: whether every row must have captions; a scene classifier learns without.

    Returns:
        Rows of `image` (bytes or path), `captions` (list of str), `image_id` (str), `dense_text` if it is needed,
        `label` (str, a scene class, or None) if the source has any, and `bands` if they were chosen.

    Raises:
        ValueError: wrong column names, or a bad row under `on_bad_sample="error"`.
    """
    if not args.data:
        raise ValueError("say what to train on: --data PATH or Hub id")
    rows = _canonical(
        read_source(args.data, split, args.image_root, args.image_column, data_config=args.data_config),
        args,
        need_captions,
    )
    rows, numbers = _one_row_a_picture(_with_label(rows, args, need_label), args, split)
    if need_dense:
        rows = _with_dense(rows, args, told=report_dir is not None)
    if args.bands is not None:
        rows = rows.add_column("bands", [list(args.bands)] * len(rows))
    rows = _first(rows, limit, f"{args.data} [{split}]")
    problems = [
        BadSample(image_id, problem, numbers[row])
        for row, (image_id, problem) in enumerate(zip(rows["image_id"], _problems(rows, need_dense, need_captions)))
        if problem
    ]
    if problems and args.on_bad_sample == "error":
        raise ValueError(
            f"{args.data} [{split}]: {len(problems)} bad rows; first: row {problems[0].row}, image_id "
            f"{problems[0].image_id}: {problems[0].problem}. Repair it, or leave bad rows out with "
            "--on_bad_sample quarantine"
        )
    if report_dir is not None:
        _report(problems, split, report_dir)
    if problems:
        bad = {problem.row for problem in problems}
        rows = rows.select([row for row in range(len(rows)) if numbers[row] not in bad])
    if len(rows) == 0:
        raise ValueError(f"{args.data} [{split}]: no usable row is left")
    return rows


def _first(rows: Dataset, limit: int | None, name: str) -> Dataset:
    if limit is not None and limit < 0:
        raise ValueError(f"{name}: the first {limit} rows were asked for; give a number above 0")
    return rows.select(range(min(limit, len(rows)))) if limit else rows


def _report(problems: list[BadSample], split: str, folder: str):
    path = report_bad_samples(folder, f"split {split}", problems)
    if problems:
        logger.warning("%d bad rows left out, listed in %s", len(problems), path)


def _canonical(rows: Dataset, args: DataArguments, need_captions: bool = True) -> Dataset:
    """Rename the source's columns to ours and turn ids into strings; captions may be texts or lists of them."""
    if not need_captions and args.captions_column not in rows.column_names:
        rows = rows.add_column(args.captions_column, [[]] * len(rows))
    for flag in ("image_column", "captions_column", "id_column"):
        column = getattr(args, flag)
        if column not in rows.column_names and column != "image_id":  # ids may be absent under their usual name
            raise ValueError(f"{args.data} has no column {column!r}; it has {rows.column_names}. Name it with --{flag}")
    names = {args.image_column: "image", args.captions_column: "captions", args.id_column: "image_id"}
    names = {old: new for old, new in names.items() if old in rows.column_names and old != new}
    rows = rows.remove_columns([new for new in names.values() if new in rows.column_names]).rename_columns(names)
    captions = list(rows["captions"])
    wrong = next((c for c in captions if not isinstance(c, (str, list, type(None)))), None)
    if wrong is not None:
        raise ValueError(
            f"{args.data}: column {args.captions_column!r} holds {type(wrong).__name__}, not captions (a text or "
            "a list of texts). Name the right one with --captions_column"
        )
    ids = [str(i) for i in rows["image_id"]] if "image_id" in rows.column_names else _made_ids(rows, args.data)
    return rows.remove_columns([name for name in ["image_id"] if name in rows.column_names]).add_column("image_id", ids)


def _one_row_a_picture(rows: Dataset, args: DataArguments, split: str) -> tuple[Dataset, list[int]]:
    """Make captions lists, and join the rows of each picture where the source has a caption a row or repeats ids.

    Lists of captions with different ids are left unchanged: the source says which captions belong together.

    Returns:
        The rows, and for each the number of its (first) row in the source.
    """
    captions = list(rows["captions"])
    a_caption_a_row = any(isinstance(texts, str) for texts in captions)
    captions = [[texts] if isinstance(texts, str) else texts or [] for texts in captions]
    rows = rows.remove_columns("captions").add_column("captions", captions)
    if not a_caption_a_row and len(set(rows["image_id"])) == len(rows):
        return rows, list(range(len(rows)))
    joined, numbers = join_pictures(rows, image_source, args.data, dense_column=args.dense_text)
    if len(joined) < len(rows):
        counts = f"{len(rows)} rows show {len(joined)} pictures"
        logger.warning("%s [%s]: %s; the captions of a picture are joined", args.data, split, counts)
    return joined, numbers


def _made_ids(rows: Dataset, data: str) -> list[str]:
    """Ids where the source has none: paths below an image folder, as `vsehub caption` names them, else row numbers."""
    paths = [image.get("path") for image in rows["image"] if isinstance(image, dict)] if Path(data).is_dir() else []
    if len(paths) == len(rows) and all(path and Path(path).is_relative_to(Path(data).resolve()) for path in paths):
        return [Path(path).relative_to(Path(data).resolve()).as_posix() for path in paths]
    return [str(row) for row in range(len(rows))]


def _dense_source(rows: Dataset, dense_text: str, told: bool) -> str:
    """`union` in place of the default column, where it is missing and pictures have several captions."""
    default = DataArguments.__dataclass_fields__["dense_text"].default
    if dense_text != default or default in rows.column_names:
        return dense_text
    if not any(len(captions) > 1 for captions in rows["captions"]):
        return dense_text
    if told:
        print(
            "no column dense_text: all captions of a picture in one text stand for it (--dense_text union); "
            "`vsehub caption` makes dense ones",
            file=sys.stderr,
        )
    return "union"


def _with_dense(rows: Dataset, args: DataArguments, told: bool) -> Dataset:
    """Attach the dense text that `args.dense_text` names: a column, a file, or the union of the captions."""
    args.dense_text = dense_text = _dense_source(rows, args.dense_text, told)
    if dense_text == "union":
        dense_texts = [
            " ".join(text.strip() for text in captions if isinstance(text, str)) for captions in rows["captions"]
        ]
    elif dense_text.endswith(".jsonl"):
        dense_texts = dense_lines(dense_text, len(rows))
    elif dense_text.endswith(".parquet"):
        table = load_dataset("parquet", data_files=dense_text, split="train")
        if not {"image_id", "dense_text"} <= set(table.column_names):
            raise ValueError(f"{dense_text} needs columns image_id and dense_text; it has {table.column_names}")
        by_id = dict(zip(map(str, table["image_id"]), table["dense_text"]))
        dense_texts = [by_id.get(image_id) for image_id in rows["image_id"]]
    elif dense_text in rows.column_names:
        dense_texts = list(rows[dense_text])
    else:
        raise ValueError(
            f"no column {dense_text!r} among {rows.column_names}: dense text comes from --dense_text COLUMN, "
            "FILE.jsonl, FILE.parquet (made by `vsehub caption`), or `union` (all captions of an image in one text)"
        )
    if "dense_text" in rows.column_names:
        rows = rows.remove_columns("dense_text")
    return rows.add_column("dense_text", dense_texts)


def _with_label(rows: Dataset, args: DataArguments, need_label: bool) -> Dataset:
    """Name each row's scene class: from a column of names or numbers, or (`prefix`) from the name of the image file.

    A row without a class (None) is a class of its own for the affiliation loss, and not used for the prior.
    """
    column = args.label_column
    if column == "prefix":
        parts = [_file_name(image).partition("_") for image in rows["image"]]
        names = [name if underscore and name else None for name, underscore, _ in parts]  # RSICD has numbers, too
    elif column in rows.column_names:
        feature, names = rows.features[column], rows[column]
        known = isinstance(feature, ClassLabel)
        names = [None if name is None else feature.int2str(name) if known else str(name) for name in names]
    elif need_label:
        raise ValueError(
            f"{args.data} has no column {column!r} of scene classes; it has {rows.column_names}. Name it with "
            "--label_column (`prefix`: the file name up to the first _), or do without: --affiliation_weight 0"
        )
    else:
        return rows
    if not any(names):
        if need_label:
            raise ValueError(f"{args.data}: no row has a scene class ({column!r} is empty); see --label_column")
        return rows
    rows = rows.remove_columns([name for name in {column, "label"} if name in rows.column_names])
    return rows.add_column("label", names)


def _file_name(image) -> str:
    path = image.get("path") if isinstance(image, dict) else image
    return Path(path).name if isinstance(path, str) else ""


def _problems(rows: Dataset, need_dense: bool, need_captions: bool) -> list[str]:
    """Find what is wrong with each row ('' if nothing). Decoding every image is the slow part; `datasets` caches it.

    Images outside the table enter the cache's key by their size and date: a repaired file is checked again.
    """
    files = [image_source(image) for image in rows["image"]] if _names_files(rows) else []
    checked = rows.map(
        lambda row, dates: {"problem": _problem(row, need_dense, need_captions)},
        fn_kwargs={"dates": [_date(path) for path in files]},
        remove_columns=rows.column_names,
        desc="checking images and captions",
    )
    return checked["problem"]


def _problem(row: dict, need_dense: bool, need_captions: bool) -> str:
    if need_captions and not row["captions"]:
        return "no caption"
    for number, caption in enumerate(row["captions"]):
        if not isinstance(caption, (str, type(None))):
            return f"caption {number} is no text but {type(caption).__name__}"
        if not (caption or "").strip():
            return f"caption {number} is empty"
    if need_dense and not (row.get("dense_text") or "").strip():
        return "no dense text (make one with `vsehub caption`, or use --dense_text union)"
    source, name = image_source(row["image"]), f"image {row['image_id']}"
    if source is None:
        return f"{name}: there is none in this row"
    try:
        open_any(source, name=f"{name} ({source})" if isinstance(source, str) else name, bands=row.get("bands"))
    except BadImageError as error:
        return str(error)
    return ""


def _names_files(rows: Dataset) -> bool:
    return len(rows) > 0 and not isinstance(image_source(rows[0]["image"]), bytes)


def _date(path: str | bytes | None) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except (OSError, TypeError, ValueError):
        return (0, 0)
    return (status.st_size, status.st_mtime_ns)


def row_image(row: dict):
    """Open the picture of a prepared row: upright 8-bit RGB, or an error that names the row."""
    return open_any(image_source(row["image"]), name=f"image {row['image_id']}", bands=row.get("bands"))


def image_source(image) -> bytes | str | None:
    """Return what `open_image` takes from an undecoded image column: bytes or a path (None: the row has none)."""
    if isinstance(image, dict):
        return image["bytes"] if image.get("bytes") is not None else image["path"]
    return image
