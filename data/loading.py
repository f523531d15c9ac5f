"""Load a split through the `datasets` library; errors use the names of our flags."""

import glob
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from datasets import (
    ClassLabel,
    Dataset,
    Features,
    get_dataset_config_names,
    get_dataset_split_names,
    load_dataset_builder,
)
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from datasets.packaged_modules.parquet.parquet import Parquet
from pyarrow import parquet
from pyarrow.dataset import ParquetFragmentScanOptions

from .columns import is_list, is_text
from .parquet_parts import ROWS, read_in_parts

SPLIT_FLAGS = "--train_split, --eval_split or --split"
READERS = ("csv", "json", "parquet")  # of `datasets`, that log what they raise
FAILURES = (ValueError, RuntimeError, OSError, TypeError, KeyError, AttributeError)


def ending_of(path: Path) -> str:
    """The ending of a file's name, in small letters: `.csv` of `PAIRS.CSV`."""
    return path.suffix.lower()


def literal(path: str | Path) -> str:
    """Return the pattern that names this file or folder alone: `datasets` takes `?`, `*` and brackets for others.

    Raises:
        ValueError: a path with `::`, which no pattern can name.
    """
    name = os.path.abspath(path)
    if "::" in name:
        raise ValueError(f"{name}: a path with `::` is read as an address inside an archive: rename it")
    return glob.escape(name)


def load_split(data: str, split: str, data_config: str | None = None, **options) -> Dataset:
    """Load one split of a Hub repository or of a folder of tables.

    Args:
        data: Hub id or folder; it is named in errors, too.
        split: name of the split, or a slice of one (`train[:10%]`).
        data_config: which configuration, where the dataset has several.
        **options: of `datasets.load_dataset`; `path` is what to load, if that is not `data`.

    Raises:
        ValueError: a configuration or split that is not there, a dataset that needs code to be run, tables that cannot
            be read, or that name their classes in another order.
        OSError: no such dataset, one that asks for access, or no network.
    """
    path = options.pop("path", data)
    if path == data and os.path.isdir(data) and literal(folder := Path(data).resolve()) != str(folder):
        raise ValueError(f"{folder}: its files cannot be found, for ?, * and [ in a path stand for others: rename it")
    try:
        with told_once():
            rows = _loaded(path, split, data_config, **options)
    except DatasetGenerationError as error:
        if unlike := _unlike_columns(path, data_config, options):
            raise ValueError(f"{data}: {unlike}") from None
        reason = str(error.__cause__ or error)
        reason = "a file without rows" if "BatchSize must be greater than 0" in reason else reason
        raise ValueError(f"{data}: split {split!r} cannot be read ({reason})") from None
    except (DatasetNotFoundError, OSError) as error:
        raise _not_to_be_had(data, error) from None
    except FAILURES as error:
        if "script" in str(error) or "trust_remote_code" in str(error):
            raise ValueError(
                f"{data}: this dataset is a script, and no code of a dataset is run here; take its version in parquet "
                "(many have a branch refs/convert/parquet), or load it yourself and give `--data FILE.parquet`"
            ) from None
        raise ValueError(
            _what_there_is(data, split, data_config, options, path) or _plain(data, split, error)
        ) from None
    _check_classes(rows, path, data_config)
    return rows


def _loaded(path: str, split: str, data_config: str | None, streaming: bool = False, **options):
    """What `datasets.load_dataset` gives, but for parquet on this machine in the memory of a few rows.

    Of parquet elsewhere pyarrow would keep all bytes of a file until it has read the last; that saves requests where
    only some of them are read.
    """
    builder = load_dataset_builder(path, data_config, **options)
    here = not any("://" in str(file) for files in (builder.config.data_files or {}).values() for file in files)
    if isinstance(builder, Parquet) and here:
        builder = read_in_parts(load_dataset_builder(path, data_config, writer_batch_size=ROWS, **options))
    elif isinstance(builder, Parquet) and not streaming and hasattr(builder.config, "fragment_scan_options"):
        builder.config.fragment_scan_options = ParquetFragmentScanOptions(pre_buffer=False)  # since datasets 4.2
    if streaming:
        return builder.as_streaming_dataset(split=split)
    builder.download_and_prepare()
    return builder.as_dataset(split=split)


@contextmanager
def told_once() -> Iterator[None]:
    """Keep the readers of `datasets` from logging, over several lines, what they raise as well."""
    readers = [logging.getLogger(f"datasets.packaged_modules.{kind}.{kind}") for kind in READERS]
    levels = [reader.level for reader in readers]
    for reader in readers:
        reader.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for reader, level in zip(readers, levels):
            reader.setLevel(level)


@contextmanager
def told_of_columns(data: str, split: str, data_config: str | None = None) -> Iterator[None]:
    """Turn what is raised where files that are read as they come differ in a column into one line.

    Args:
        data, split, data_config: what is read, as for `load_split`.

    Raises:
        ValueError: instead of `TypeError` and `ValueError`.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        reason = _unlike_columns(data, data_config, {}) if os.path.isdir(data) else ""
        reason = reason or f"split {split!r} has a file without rows, or one that cannot be read ({error})"
        raise ValueError(f"{data}: {' '.join(reason.split())}") from None


def _schemas(path: str, data_config: str | None, options: dict) -> list[tuple[str, pa.Schema]]:
    """The columns of the parquet files that lie here, with `split 'train' (NAME)`; none where some are no parquet."""
    try:
        builder = load_dataset_builder(path, data_config, data_files=options.get("data_files"))
        files = [(split, Path(file)) for split, names in (builder.config.data_files or {}).items() for file in names]
        return [(f"split {str(split)!r} ({file.name})", parquet.read_schema(file)) for split, file in files]
    except Exception:  # files elsewhere, or damaged: the first error says more
        return []


def _unlike_columns(path: str, data_config: str | None, options: dict) -> str:
    """Where parquet files here differ in a column from the first, whose columns all must have; '' if they do not."""
    schemas = _schemas(path, data_config, options)
    for where, schema in schemas[1:]:
        first, wanted = schemas[0]
        for field in schema:
            if field.name not in wanted.names:
                return f"column {field.name!r} is in {where} and not in {first}: write it in all of them, or in none"
            kind = wanted.field(field.name).type
            if not _alike(kind, field.type):
                return f"column {field.name!r} is {kind} in {first} and {field.type} in {where}: write it with one type"
    return ""


def _check_classes(rows: Dataset, path: str, data_config: str | None):
    """Refuse files that number their classes otherwise than the first: all would be named as that one names them.

    Raises:
        ValueError: names the column, both files and the remedy.
    """
    columns = [name for name, feature in (rows.features or {}).items() if isinstance(feature, ClassLabel)]
    first: dict[str, tuple[str, list[str]]] = {}
    for where, schema in _schemas(path, data_config, {}) if columns and os.path.isdir(path) else ():
        features = Features.from_arrow_schema(schema)
        for name in columns:
            names = getattr(features.get(name), "names", None)
            if names and first.setdefault(name, (where, names))[1] != names:
                raise ValueError(
                    f"{path}: column {name!r} numbers its classes otherwise in {first[name][0]} than in {where}, and "
                    "both would be read as in the first: write them with one list of classes, or as texts"
                )


def _alike(wanted: pa.DataType, kind: pa.DataType) -> bool:
    """Whether values of a type are read as those of another."""
    if is_list(wanted) and is_list(kind):
        return _alike(wanted.value_type, kind.value_type)
    families = (pa.types.is_integer, pa.types.is_floating)
    same = wanted.equals(kind) or any(family(wanted) and family(kind) for family in families)
    return same or pa.types.is_null(kind) or (is_text(wanted) and not pa.types.is_nested(kind))


def _not_to_be_had(data: str, error: Exception) -> OSError | ValueError:
    if "gated" in str(error):
        return OSError(
            f"{data} is a gated dataset: ask for access at https://huggingface.co/datasets/{data}, then log in with "
            "`hf auth login` (or set HF_TOKEN)"
        )
    if Path(data).exists():
        return ValueError(f"{data}: cannot be read as a dataset ({error})")
    private = "; a private one needs `hf auth login`" if isinstance(error, DatasetNotFoundError) else ""
    return OSError(f"{data}: no such file or folder here, nor to be had from the Hub ({error}){private}")


def _what_there_is(data: str, split: str, data_config: str | None, options: dict, path: str) -> str:
    """The error message for a missing configuration or split; '' if both exist, or if that is not known."""
    if path != data:
        return ""
    try:
        names = get_dataset_config_names(path)
        if data_config is not None and data_config not in names:
            return f"{data} has no configuration {data_config!r}: --data_config is one of {', '.join(names)}"
        if data_config is None and len(names) > 1 and "default" not in names:
            return f"{data} has several configurations: choose one with --data_config; there are {', '.join(names)}"
        splits = get_dataset_split_names(path, data_config)
    except Exception:  # a broken dataset raises many types; the first error says more
        return ""
    if split.partition("[")[0] in splits:
        return ""
    return f"{data} has no split {split!r}: choose one with {SPLIT_FLAGS}; there are {', '.join(splits)}"


def _plain(data: str, split: str, error: Exception) -> str:
    reason = error.__cause__ or error
    if "corresponds to no data" in str(reason):
        return f"{data}: split {split!r} has no rows"
    return f"{data}: split {split!r} cannot be read ({type(reason).__name__}: {reason})"


__all__ = ["ending_of", "literal", "load_split", "told_of_columns", "told_once"]
