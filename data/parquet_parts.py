"""Parquet on this machine, read some rows at a time, whatever the groups of rows that it was written in.

`datasets` reads a group of rows as one table. pandas and polars write a file as one group, or as groups of hundreds of
thousands of rows: of a file of 0.8 GB, that took 2.5 GB, and a file of the size of the memory could not be read at all.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
from datasets import DatasetBuilder
from pyarrow import parquet

ROWS, BYTES = 1000, 64 * 2**20  # of a part: as many rows, or fewer that take about as many bytes
BUFFER = 2**20  # bytes of a column that are read at once
CHOICES = {"columns": None, "filters": None, "on_bad_files": "error"}  # what a dataset's card may set, and its default


def read_in_parts(builder: DatasetBuilder) -> DatasetBuilder:
    """Make a builder of local parquet files, as `load_dataset_builder` gives it, read them in parts.

    Another builder, one of a version of `datasets` that reads in another way, and one whose dataset's card chooses
    columns or rows, or passes over bad files, stays as it is.
    """
    if any(getattr(builder.config, name, usual) != usual for name, usual in CHOICES.items()):
        return builder
    if all(hasattr(builder, name) for name in ("_generate_tables", "_cast_table")):
        builder._generate_tables = partial(_tables, builder)
    return builder


def _tables(builder, files: Iterable, row_groups_list: Iterable | None = None) -> Iterator[tuple[str, pa.Table]]:
    """(key, table) of each part, in the order of the files: what `datasets` asks its builders for.

    Args:
        builder: knows the types of the columns.
        files: paths, or lists of them (`datasets` 4.0).
        row_groups_list: for each file, the groups to read; None reads all.

    Raises:
        ValueError: a file has no rows.
    """
    paths = [path for several in files for path in ([several] if isinstance(several, str) else several)]
    groups = list(row_groups_list or [None] * len(paths))
    for number, (path, chosen) in enumerate(zip(paths, groups)):
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER) as file:
            if not file.metadata.num_rows:
                raise ValueError(f"a file without rows: {Path(path).name}")
            for place, batch in enumerate(file.iter_batches(rows_of_a_part(file.metadata), row_groups=chosen)):
                yield f"{number}_{place}", builder._cast_table(pa.Table.from_batches([batch]))


def rows_of_a_part(metadata: parquet.FileMetaData) -> int:
    """How many rows of a file are read together."""
    size = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    return max(1, min(ROWS, BYTES * metadata.num_rows // max(size, 1)))


__all__ = ["ROWS", "read_in_parts", "rows_of_a_part"]
