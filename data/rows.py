"""Read a source into checked rows: columns renamed, captions cleaned, what cannot be used left out or refused.

A bad row (an image that does not decode, no caption, no dense text where it is needed) stops the run with its name and
the remedy, or is left out and listed in `bad_samples.jsonl`, as `on_bad_sample` says. Texts are checked at once,
pictures too unless training asks to look at each when it is met.
"""

import itertools
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset

from ..files.bad_samples import BAD_SAMPLES, BadSample, read_bad_samples, report_bad_samples
from ..processing.scenes import open_any
from .arguments import DataArguments
from .class_names import holds_classes, named_class
from .columns import (
    TEXTS,
    in_order,
    is_blank,
    is_list,
    is_text,
    lists_of,
    parts_of,
    repeats,
    spans,
    suspects,
    with_column,
)
from .dense_texts import dense_source, with_dense
from .grouping import join_pictures
from .picture_checks import bad_pictures, image_source
from .sources import path_of, paths_below, read_source
from .streams import read_stream
from .written_lists import refuse_written_lists

SOURCE_ROW = "source_row"  # a column: the number of each row in the source, where rows were joined or left out
logger = logging.getLogger(__name__)


def prepare_rows(
    args: DataArguments,
    split: str,
    report_dir: str | None,
    need_dense: bool,
    limit: int | None = None,
    need_label: bool = False,
    need_captions: bool = True,
    pictures_later: bool = False,
    keep_report: bool = False,
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
        pictures_later: whether pictures are left unchecked: who opens them deals with bad ones.
        keep_report: whether what an earlier run listed of this split stays: this run goes on with its rows.

    Returns:
        Rows of `image` (bytes or path), `captions` (list of str), `image_id` (str), `dense_text` if it is needed,
        `label` (str, a scene class, or None) if the source has any, `bands` if they were chosen, and, with
        `pictures_later`, `source_row` (int) where it is not the number of the row.

    Raises:
        ValueError: wrong column names, or a bad row under `on_bad_sample="error"`.
    """
    if not args.data:
        raise ValueError("say what to train on: --data PATH or Hub id")
    rows = _canonical(in_order(_source(args, split, limit)), args, split, need_captions)
    rows, numbers = _one_row_a_picture(_with_label(rows, args, need_label), args, split)
    if need_dense:
        args.dense_text = dense_source(rows, args.dense_text, told=report_dir is not None)
        rows = with_dense(rows, numbers, args.dense_text)
    if args.bands is not None:
        bands = (pa.array([args.bands] * (stop - start)) for start, stop in spans(rows))
        rows = with_column(rows, "bands", pa.list_(pa.int64()), bands)
    numbers = _first(numbers, limit, f"{args.data} [{split}]")
    problems = _text_problems(rows, numbers, need_dense, need_captions)
    problems |= {} if pictures_later else bad_pictures(rows, numbers, except_for=problems)
    samples = [BadSample(rows[row]["image_id"], problems[row], row) for row in sorted(problems)]
    if samples and args.on_bad_sample == "error":
        raise ValueError(
            f"{args.data} [{split}]: {len(samples)} bad rows; first: row {samples[0].row}, image_id "
            f"{samples[0].image_id}: {samples[0].problem}. Repair it, or leave bad rows out with "
            "--on_bad_sample quarantine"
        )
    if report_dir is not None:
        _report(samples, split, report_dir, keep_report)
    numbers = np.setdiff1d(numbers, list(problems), assume_unique=True)
    if len(numbers) == 0:
        raise ValueError(f"{args.data} [{split}]: no usable row is left")
    return _selected(rows, numbers, pictures_later)


def _source(args: DataArguments, split: str, limit: int | None) -> Dataset:
    if args.streaming:
        return read_stream(args, split, limit)
    return read_source(args.data, split, args.image_root, args.image_column, data_config=args.data_config)


def _selected(rows: Dataset, numbers: np.ndarray, numbered: bool) -> Dataset:
    """The rows `numbers`, with their numbers as a column if these would be lost."""
    if len(numbers) < len(rows):
        if numbered and numbers[-1] >= len(numbers):
            rows = with_column(rows, SOURCE_ROW, pa.int64(), (pa.array(np.arange(*span)) for span in spans(rows)))
        rows = rows.select(numbers)
    pa.default_memory_pool().release_unused()
    return rows


def _first(numbers: np.ndarray, limit: int | None, name: str) -> np.ndarray:
    if limit is not None and limit < 0:
        raise ValueError(f"{name}: the first {limit} rows were asked for; give a number above 0")
    return numbers[:limit] if limit else numbers


def _report(problems: list[BadSample], split: str, folder: str, keep: bool):
    source = f"split {split}"
    before = read_bad_samples(Path(folder) / BAD_SAMPLES) if keep else []
    kept = {sample.image_id for sample in before if sample.source == source} - {each.image_id for each in problems}
    path = report_bad_samples(folder, source, problems, unread=kept)
    if problems:
        logger.warning("%d bad rows left out, listed in %s", len(problems), path)


def _canonical(rows: Dataset, args: DataArguments, split: str, need_captions: bool) -> Dataset:
    """Rename the source's columns to ours and turn ids into strings; captions may be texts or lists of them."""
    if not need_captions and args.captions_column not in rows.column_names:
        nothing = (pa.array([[]] * (stop - start), TEXTS) for start, stop in spans(rows))
        rows = with_column(rows, args.captions_column, TEXTS, nothing)
    for flag in ("image_column", "captions_column", "id_column"):
        column = getattr(args, flag)
        if column not in rows.column_names and column != "image_id":  # ids may be absent under their usual name
            raise ValueError(f"{args.data} has no column {column!r}; it has {rows.column_names}. Name it with --{flag}")
    names = {args.image_column: "image", args.captions_column: "captions", args.id_column: "image_id"}
    names = {old: new for old, new in names.items() if old in rows.column_names and old != new}
    rows = rows.remove_columns([new for new in names.values() if new in rows.column_names]).rename_columns(names)
    rows = _with_captions(rows, args)
    return _with_ids(rows, path_of(args.data, split))


def _with_captions(rows: Dataset, args: DataArguments) -> Dataset:
    """Captions as texts or as lists, in Arrow's common types; ValueError where they are something else."""
    kind = rows.data.schema.field("captions").type
    inner = getattr(kind, "value_type", kind)
    if is_text(kind) or pa.types.is_string_view(kind):
        values = (text for part in parts_of(rows, "captions") for text in part.to_pylist())
        refuse_written_lists(values, f"{args.data}: column {args.captions_column!r}")
    if is_text(kind) or pa.types.is_null(kind) or (is_list(kind) and not pa.types.is_string_view(inner)):
        return rows
    if is_text(inner) or pa.types.is_string_view(inner):
        return with_column(rows, "captions", TEXTS if kind.num_fields else pa.string(), parts_of(rows, "captions"))
    kinds: dict[str, int] = {}
    for row, value in enumerate(rows["captions"]):
        if value is not None:
            kinds.setdefault(type(value).__name__, row)
    held = " and ".join(f"{name} (row {row})" for name, row in kinds.items())
    raise ValueError(
        f"{args.data}: column {args.captions_column!r} holds {held}, not captions (a text in each row, or a list of "
        "texts in each row). Repair it, or name the right one with --captions_column"
    )


def _with_ids(rows: Dataset, folder: Path) -> Dataset:
    """Make ids texts, and give ids where the source has none: paths below an image folder, else row numbers.

    Args:
        rows: with `image`.
        folder: where the source is, if it is a folder.
    """
    if "image_id" not in rows.column_names:
        ids = paths_below(rows, "image", folder) or (
            pa.array(map(str, range(*span)), pa.string()) for span in spans(rows)
        )
        return with_column(rows, "image_id", pa.string(), ids)
    kind = rows.data.schema.field("image_id").type
    if pa.types.is_string(kind) and not rows.data.column("image_id").null_count:
        return rows
    values = itertools.chain.from_iterable(_python_parts(rows, "image_id"))
    texts = (f"row {row}" if value is None else str(value) for row, value in enumerate(values))
    parts = (pa.array(itertools.islice(texts, stop - start), pa.string()) for start, stop in spans(rows))
    return with_column(rows, "image_id", pa.string(), parts)


def _python_parts(rows: Dataset, column: str):
    """A column as Python values, some rows at a time."""
    for start, stop in spans(rows):
        yield rows.select_columns([column])[start:stop][column]


def _one_row_a_picture(rows: Dataset, args: DataArguments, split: str) -> tuple[Dataset, np.ndarray]:
    """Make captions lists, and join the rows of each picture where the source has a caption a row or repeats ids.

    Lists of captions with different ids are left unchanged: the source says which captions belong together.

    Returns:
        The rows, and the numbers of the first row of each picture, which has what all of its rows had.
    """
    column = rows.data.column("captions")
    a_caption_a_row = is_text(column.type) and column.null_count < len(rows)
    if is_text(column.type) or pa.types.is_null(column.type) or column.null_count:
        kind = column.type if pa.types.is_list(column.type) else TEXTS
        rows = with_column(rows, "captions", kind, map(lists_of, parts_of(rows, "captions")))
    if "caption_ids" in rows.column_names and not is_list(kind := rows.data.schema.field("caption_ids").type):
        rows = with_column(rows, "caption_ids", pa.list_(kind), map(lists_of, parts_of(rows, "caption_ids")))
    if not a_caption_a_row and not repeats(rows, "image_id"):
        return rows, np.arange(len(rows))
    rows, numbers = join_pictures(rows, image_source, args.data, dense_column=args.dense_text)
    if len(numbers) < len(rows):
        counts = f"{len(rows)} rows show {len(numbers)} pictures"
        logger.warning("%s [%s]: %s; the captions of a picture are joined", args.data, split, counts)
    return rows, numbers


def _with_label(rows: Dataset, args: DataArguments, need_label: bool) -> Dataset:
    """Name each row's scene class: from a column of names or numbers, or (`prefix`) from the name of the image file.

    A row without a class (None) is a class of its own for the affiliation loss, and not used for the prior.
    """
    column = args.label_column
    if column == "prefix":
        names = (_prefixes(part) for part in _python_parts(rows, "image"))
    elif column in rows.column_names:
        feature = rows.features[column]
        if not holds_classes(column, feature, args.data, need_label):
            return rows.remove_columns(column)
        names = (
            pa.array([named_class(value, feature) for value in part], pa.string())
            for part in _python_parts(rows, column)
        )
    elif need_label:
        raise ValueError(
            f"{args.data} has no column {column!r} of scene classes; it has {rows.column_names}. Name it with "
            "--label_column (`prefix`: the file name up to the first _), or do without: --affiliation_weight 0"
        )
    else:
        return rows
    labelled = with_column(rows, "label", pa.string(), names)
    if labelled.data.column("label").null_count == len(rows):
        if need_label:
            raise ValueError(f"{args.data}: no row has a scene class ({column!r} is empty); see --label_column")
        return rows
    return labelled.remove_columns([name for name in {column} - {"label"} if name in rows.column_names])


def _prefixes(images: list) -> pa.Array:
    parts = [_file_name(image).partition("_") for image in images]
    return pa.array([name if underscore and name else None for name, underscore, _ in parts], pa.string())


def _file_name(image) -> str:
    path = image.get("path") if isinstance(image, dict) else image
    return Path(path).name if isinstance(path, str) else ""


def _text_problems(rows: Dataset, numbers: np.ndarray, need_dense: bool, need_captions: bool) -> dict[int, str]:
    """What is wrong with the texts of the rows `numbers`: row -> problem."""
    wanted, wrong, start = np.zeros(len(rows), bool), [], 0
    wanted[numbers] = True
    for part in parts_of(rows, "captions"):
        wrong += [start + row for row in suspects(part, may_be_empty=not need_captions)]
        start += len(part)
    start = 0
    for part in parts_of(rows, "dense_text") if need_dense else ():
        wrong += (start + np.flatnonzero(np.asarray(is_blank(part)))).tolist() if is_text(part.type) else []
        start += len(part)
    texts = rows.select_columns(["captions", *(["dense_text"] if need_dense else [])])
    problems = {int(row): _text_problem(texts[int(row)], need_dense, need_captions) for row in wrong if wanted[row]}
    return {row: problem for row, problem in problems.items() if problem}


def _text_problem(row: dict, need_dense: bool, need_captions: bool) -> str:
    if need_captions and not row["captions"]:
        return "no caption"
    for number, caption in enumerate(row["captions"]):
        if not isinstance(caption, (str, type(None))):
            return f"caption {number} is no text but {type(caption).__name__}"
        if not (caption or "").strip():
            return f"caption {number} is empty"
    if need_dense and not (row.get("dense_text") or "").strip():
        return "no dense text (make one with `vsehub caption`, or use --dense_text union)"
    return ""


def row_image(row: dict):
    """Open the picture of a prepared row: upright 8-bit RGB, or an error that names the row."""
    return open_any(image_source(row["image"]), name=f"image {row['image_id']}", bands=row.get("bands"))


__all__ = ["SOURCE_ROW", "image_source", "prepare_rows", "row_image"]
