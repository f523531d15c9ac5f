"""Sources that do not fit a disk: read as they come, in shares, each of which can be gone on with at any sample.

`datasets` opens parquet, webdataset tars and Hub repositories file by file. Its own division among processes and
workers goes by files, so that few files leave workers without data, and what its shuffling holds is lost when a run
stops. Here, every share has a part of every file where files are few, and sample n of a share follows from the seed.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from math import gcd
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Image, IterableDataset

from ..files.whole import write_text
from .arguments import DataArguments
from .class_names import class_name, holds_classes, named_class
from .columns import table_of
from .loading import ending_of, literal, load_split, told_of_columns, told_once
from .sources import BINARY, path_of
from .written_lists import refuse_written_lists

MANY = 16  # files for each share, from which on shares have whole files
AT_ONCE = 32  # rows that are read together
SPREAD = 8  # files that a sample of the rows is taken from
KINDS = {ending: BINARY[ending] for ending in (".parquet", ".tar")}


@dataclass
class Stream:
    """One split of a source, read as it comes.

    Args:
        table: with the columns `image` (undecoded), `captions` and, where the source has them, `image_id`, `label`,
            `dense_text`.
        bands: of scenes.
        count: of its rows, where that is known.
        files: where the number of rows of each file is kept once it is known; None keeps it in memory.
        reading: makes a context that turns errors of the files into one line (`told_of_columns`).
    """

    table: IterableDataset
    bands: list[int] | None = None
    count: int | None = None
    files: Path | None = None
    lengths: dict[int, int] = field(default_factory=dict)
    reading: Callable[[], AbstractContextManager] = nullcontext

    @property
    def column_names(self) -> list[str]:
        """The columns of a row."""
        return self.table.column_names

    def rows_of(self, file: int, start: int) -> Iterator[tuple[int, dict]]:
        """The rows of a file from `start` on, with their numbers."""
        part = self.table.shard(num_shards=self.table.num_shards, index=file)
        part, number = part.skip(start) if start else part, start
        label = (self.table.features or {}).get("label")
        labelled = "label" in self.table.column_names
        with self.reading():
            for columns in part.iter(AT_ONCE):  # unlike `iter(part)`, it leaves nothing to other workers
                if number == start:
                    refuse_written_lists(
                        itertools.chain.from_iterable(map(listed, columns["captions"])), "the column of captions"
                    )
                for values in zip(*columns.values()):
                    row = dict(zip(columns, values))
                    given = row.get("image_id")
                    row["image_id"] = f"{file}:{number}" if given in (None, "") else str(given)
                    row |= {"label": named_class(row["label"], label)} if labelled else {}
                    yield number, row if self.bands is None else {**row, "bands": self.bands}
                    number += 1
        self._keep(file, number)

    def some(self, count: int) -> Dataset:
        """Up to `count` rows that have captions, in a mapped file: the first ones of up to `SPREAD` files."""
        files = self.table.num_shards
        taken = range(0, files, -(-files // SPREAD))
        quota, rows = -(-count // len(taken)), []
        for file in taken:
            for _, row in itertools.islice(self.rows_of(file, 0), quota):
                captions = [text for text in listed(row["captions"]) if text and text.strip()]
                if captions:
                    rows.append({**{name: row[name] for name in ("image", "image_id")}, "captions": captions})
                    rows[-1] |= {} if self.bands is None else {"bands": self.bands}
        return table_of([pa.Table.from_pylist(rows[:count])])

    def length_of(self, file: int) -> int | None:
        """Rows of a file, if it has been read to its end."""
        if file not in self.lengths and self.files is not None and (path := self.files / f"{file}.rows").exists():
            self.lengths[file] = int(path.read_text())
        return self.lengths.get(file)

    def _keep(self, file: int, rows: int):
        before = self.length_of(file)
        if before is not None and before != rows:
            now = "more" if rows > before else "fewer"
            raise ValueError(
                f"file {file} of the stream had {before} rows when it was first read, and has {now} by "
                "now: put the data back as they were, or leave --resume_from_checkpoint out"
            )
        if before is None and self.files is not None:
            self.files.mkdir(parents=True, exist_ok=True)
            write_text(self.files / f"{file}.rows", str(rows))
        self.lengths[file] = rows


class Share:
    """The endless samples of one worker of one process: pass after pass over its part, in blocks that are mixed.

    Args:
        stream: what is read.
        number, shares: which share, of how many.
        block: samples that are mixed with each other, and are in memory together.
        seed: of the order of files and of the mixing.
    """

    def __init__(self, stream: Stream, number: int, shares: int, block: int, seed: int):
        files = stream.table.num_shards
        self.stream, self.number, self.seed, self.block = stream, number, seed, block
        self.stride = 1 if files >= MANY * shares else shares // gcd(files, shares)
        units = range(number, files * self.stride, shares)
        self.units = [divmod(unit, self.stride) for unit in units]  # (file, which of `stride` rows)
        self.held: tuple[int, list[dict]] = (-1, [])
        self.rows: Iterator[dict] | None = None
        self.next = 0  # sample that `rows` gives

    def __getitem__(self, sample: int) -> dict:
        """Sample n; asking in ascending order reads each file once."""
        block, place = divmod(sample, self.block)
        if self.held[0] != block:
            if self.rows is None or self.next != block * self.block:
                self.rows, self.next = self._rows(block * self.block), block * self.block
            self.held = block, list(itertools.islice(self.rows, self.block))
            self.next += self.block
        mixed = np.random.default_rng((self.seed, self.number, block)).permutation(self.block)
        return self.held[1][mixed[place]]

    def others(self, sample: int) -> Iterator[int]:
        """Samples that may take the place of one: those of its block."""
        block, place = divmod(sample, self.block)
        return (block * self.block + (place + step) % self.block for step in itertools.count(1))

    def _rows(self, skip: int) -> Iterator[dict]:
        """The samples from `skip` on, before they are mixed; a file of known length is not opened to be skipped."""
        for number in itertools.count():
            before = skip
            order = np.random.default_rng((self.seed, self.number, number, 1)).permutation(len(self.units))
            given = 0
            for file, phase in (self.units[place] for place in order):
                length = self.stream.length_of(file)
                if length is not None:
                    mine = max(0, -(-(length - phase) // self.stride))
                    if skip >= mine:
                        skip -= mine
                        continue
                first = phase + self.stride * skip if length is not None else 0
                wanted, skip = (0, 0) if length is not None else (skip, skip)
                for row, values in self.stream.rows_of(file, first):
                    if row % self.stride != phase:
                        continue
                    if wanted:
                        wanted, skip = wanted - 1, skip - 1
                        continue
                    given += 1
                    yield values
            if not given and skip == before:
                raise ValueError(
                    f"share {self.number} of the stream has no rows: take fewer processes or --dataloader_num_workers"
                )


def open_stream(
    args: DataArguments, split: str, need_dense: bool = False, need_label: bool = False, files: Path | None = None
) -> Stream:
    """Open one split of a source to be read as it comes.

    Args:
        args: which source and columns.
        split: its name.
        need_dense: whether rows need a dense text (a column, or `union`).
        need_label: whether rows need a scene class.
        files: see `Stream`.

    Raises:
        ValueError: no such column, a column of captions that holds no text, or a source that is no parquet, webdataset
            or Hub id.
    """
    columns = {args.image_column: "image", args.captions_column: "captions", args.id_column: "image_id"}
    columns[args.label_column] = "label"
    if need_dense and args.dense_text != "union":
        columns[args.dense_text] = "dense_text"
    table = _table(args, split)
    for flag in ("image_column", "captions_column", "dense_text", *(["label_column"] if need_label else [])):
        column = getattr(args, flag)
        if column in columns and column not in table.column_names:
            raise ValueError(
                f"{args.data} has no column {column!r}; it has {table.column_names}. Name it with --{flag}"
            )
    for flag in ("captions_column", "dense_text"):
        column = getattr(args, flag)
        if column in columns and not _is_text(table.features[column], or_list=flag == "captions_column"):
            raise ValueError(f"{args.data}: column {column!r} holds no text but {table.features[column]}; see --{flag}")
    label = args.label_column
    if label in table.column_names and not holds_classes(label, table.features[label], args.data, need_label):
        del columns[label]
    table = table.select_columns([name for name in columns if name in table.column_names])
    info = (table.info.splits or {}).get(split)
    table = table.rename_columns({old: new for old, new in columns.items() if old in table.column_names and old != new})
    reading = partial(told_of_columns, args.data, split, args.data_config)
    return Stream(table, args.bands, info.num_examples if info else None, files, reading=reading)


def _is_text(feature, or_list: bool) -> bool:
    """Whether a column holds a text in each row, or perhaps a list of texts."""
    kind = getattr(getattr(feature, "feature", feature) if or_list else feature, "dtype", None)
    return kind in ("string", "large_string", "string_view", "null")


def _table(args: DataArguments, split: str) -> IterableDataset:
    """A split as `datasets` streams it; pictures are not decoded, and the key of a webdataset is the id."""
    path = path_of(args.data, split)
    if "[" in split:
        raise ValueError(f"--streaming reads whole splits, not {split!r}: see --max_train_images, --max_eval_images")
    if path.is_file() and ending_of(path) in KINDS:
        table = load_split(args.data, "train", path=KINDS[ending_of(path)], data_files=literal(path), streaming=True)
    elif path.exists() and not any(ending_of(each) in KINDS for each in path.rglob("*")):
        raise ValueError(f"--streaming reads parquet, webdataset (.tar) and Hub ids; {args.data} is none: leave it out")
    else:
        table = load_split(args.data, split, args.data_config, streaming=True)
    if table.features is None:
        table = table._resolve_features()
    if isinstance(table.features.get(args.image_column), Image):  # first: what comes before it decodes and encodes
        table = table.cast_column(args.image_column, Image(decode=False))
    if "__key__" in table.column_names and args.id_column not in table.column_names:
        table = table.rename_column("__key__", args.id_column)
    return table


def read_stream(args: DataArguments, split: str, limit: int | None) -> Dataset:
    """All rows of a split, or the first ones, in a mapped file, under the names that the source gives its columns."""
    table = _table(args, split)
    names = [args.image_column, args.captions_column, args.id_column, args.label_column]
    table = table.select_columns([name for name in names if name in table.column_names])
    label = table.features.get(args.label_column)
    kinds = {field.name: field.type for field in table.features.arrow_schema}  # what the first rows hold may be null
    classes = label.names if isinstance(label, ClassLabel) else None
    kinds |= {args.label_column: pa.string()} if classes else {}
    schema = pa.schema(list(kinds.items()))
    table = table.take(limit) if limit else table

    def tables() -> Iterator[pa.Table]:
        yield schema.empty_table()
        for columns in table.iter(AT_ONCE):
            if classes:
                named = [class_name(number, classes) for number in columns[args.label_column]]
                columns = {**columns, args.label_column: named}
            yield pa.table(columns, schema=schema)

    with told_once(), told_of_columns(args.data, split, args.data_config):
        return table_of(tables())


def listed(captions: str | list[str] | None) -> list[str]:
    """The captions of a row, which may be one."""
    return [captions] if isinstance(captions, str) else captions or []


def picture_number(source: bytes | str | None) -> int:
    """A number that is equal for equal pictures, in 63 bits."""
    data = source if isinstance(source, bytes) else str(source).encode()
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") >> 1


__all__ = ["Share", "Stream", "listed", "open_stream", "picture_number", "read_stream"]
