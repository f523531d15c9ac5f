"""Decode every picture before a run, with all cores, and once for all processes of a machine."""

import hashlib
import json
import os
from collections.abc import Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from pathlib import Path

import datasets
import numpy as np
from datasets import Dataset
from tqdm.auto import tqdm

from ..files.whole import one_writer, write_text
from ..processing.pixels import BadImageError
from ..processing.scenes import open_any

FEW = 512  # pictures that are not worth further processes
CHUNK = 256  # pictures a process checks at a time
_MINE: list[Dataset] = []  # the rows of a process that checks pictures


def image_source(image) -> bytes | str | None:
    """Return what `open_image` takes from an undecoded image column: bytes or a path (None: the row has none)."""
    if isinstance(image, dict):
        return image["bytes"] if image.get("bytes") is not None else image["path"]
    return image


def bad_pictures(rows: Dataset, numbers: np.ndarray, except_for: Collection[int] = ()) -> dict[int, str]:
    """Decode the pictures of the rows `numbers`: what is wrong with those that fail, row -> problem.

    The result is kept in the cache of `datasets` under a digest of the pictures (of path, size and dates of files), so
    that the processes of a machine, and later runs, read it there.
    """
    left_out = set(except_for)
    wanted = [int(row) for row in numbers if int(row) not in left_out]
    columns = [name for name in ("image", "image_id", "bands") if name in rows.column_names]
    pictures = rows.select_columns(columns)
    if len(wanted) <= FEW:
        return dict(_checked(pictures, wanted))
    path = Path(datasets.config.HF_DATASETS_CACHE) / "vsehub-checked" / f"{_digest(pictures, wanted)}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = one_writer(f"{path}.lock", str(path), wait=-1)
    except OSError:  # nothing can be kept
        lock = nullcontext()
    with lock:
        if path.exists():
            return {int(row): problem for row, problem in json.loads(path.read_text(encoding="utf-8")).items()}
        problems = dict(_checked_by_all(pictures, wanted))
        if not isinstance(lock, nullcontext):
            write_text(path, json.dumps(problems))
    return problems


def _checked_by_all(rows: Dataset, numbers: list[int]) -> Iterator[tuple[int, str]]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    chunks = [numbers[start : start + CHUNK] for start in range(0, len(numbers), CHUNK)]
    try:
        with ProcessPoolExecutor(min(cores, len(chunks)), initializer=_take, initargs=(rows,)) as pool:
            for problems in tqdm(pool.map(_checked_mine, chunks), total=len(chunks), desc="checking pictures"):
                yield from problems
    except BrokenProcessPool:
        raise ValueError(
            "a process that checks pictures ended by itself (out of memory, perhaps); start again"
        ) from None


def _take(rows: Dataset):
    _MINE.append(rows)


def _checked_mine(numbers: list[int]) -> list[tuple[int, str]]:
    return _checked(_MINE[-1], numbers)


def _checked(rows: Dataset, numbers: list[int]) -> list[tuple[int, str]]:
    problems = ((number, picture_problem(rows[number])) for number in numbers)
    return [(number, problem) for number, problem in problems if problem]


def picture_problem(row: dict) -> str:
    """What is wrong with a row's picture; nothing if it decodes."""
    source, name = image_source(row["image"]), f"image {row['image_id']}"
    if source is None:
        return f"{name}: there is none in this row"
    try:
        open_any(source, name=f"{name} ({source})" if isinstance(source, str) else name, bands=row.get("bands"))
    except BadImageError as error:
        return str(error)
    return ""


def _digest(rows: Dataset, numbers: list[int]) -> str:
    digest = hashlib.sha256()
    for number in numbers:
        row = rows[number]
        source = image_source(row["image"])
        facts = hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else [source, *_date(source)]
        digest.update(json.dumps([number, facts, row["image_id"], row.get("bands")]).encode())
    return digest.hexdigest()


def _date(path: str | None) -> tuple[int, ...]:
    """Size and dates of a file; that of the change, too, since copying may keep the other."""
    try:
        status = os.stat(path)
    except (OSError, TypeError, ValueError):
        return (0, 0)
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns)


__all__ = ["bad_pictures", "image_source", "picture_problem"]
