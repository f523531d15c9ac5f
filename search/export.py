"""Write an index for another engine: parquet, GeoParquet, or a table of LanceDB."""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from ..files.outputs import output_file, output_folder
from ..files.whole import whole_file
from .exported_rows import export_schema, vector_batches
from .geoparquet import to_geoparquet
from .index import Index
from .index_store import IndexFolderError
from .stores.address import is_address
from .stores.copies import kept_in
from .stores.lance import LanceTable
from .stores.places import open_index

FORMATS = ("parquet", "geoparquet", "lance")


def to_parquet(index: Index, out):
    """Write the index as one parquet file; after an error there is none."""
    with whole_file(out) as file, pq.ParquetWriter(file, export_schema(index)) as writer:
        for batch in vector_batches(index):
            writer.write_batch(batch)


def to_lance(index: Index, out, table: str):
    """Write the index as a table of an embedded LanceDB database.

    A table of that name is replaced, unless it is an index of vsehub.

    Raises:
        ImportError: without lancedb; the message names the extra. IndexFolderError: the table is an index, or
            LanceDB cannot write.
    """
    try:
        import lancedb
    except ImportError:
        raise ImportError('--to lance needs lancedb: pip install "vsehub[lance]"') from None
    there = LanceTable(f"lance://{out}/{table}", str(out), table)
    if there.is_index():
        raise IndexFolderError(f"the table {table} of {out} is an index of vsehub and is not replaced: name another")
    reader = pa.RecordBatchReader.from_batches(export_schema(index), vector_batches(index))
    with there.errors():
        lancedb.connect(str(out)).create_table(table, data=reader, mode="overwrite")


def export_index(folder, out, to: str = "parquet", table: str = "images", images: Iterable[str] = ()) -> Index:
    """Write the index of a folder for another engine, and return it.

    Args:
        folder: of the index, or its address.
        out: a parquet file, or the folder of a LanceDB database; at an address (`stores.address`) the copy is an index
            of its own.
        to: of `FORMATS`.
        table: name in the database.
        images: folders of scenes that may be opened, of an index that was not made here.

    Raises:
        ValueError: an empty index, no such format, or GeoParquet at an address.
        OSError: `out` cannot be written.
        ImportError: without lancedb.
    """
    if to not in FORMATS:
        raise ValueError(f"no format {to!r}; there are {', '.join(FORMATS)}")
    if is_address(out) and to == "geoparquet":
        raise ValueError("geoparquet is a file, and --out names a database: leave out --to, or name a file")
    index = open_index(folder)
    if not is_address(out):
        (output_folder if to == "lance" else output_file)(out)
    if not len(index):
        raise ValueError(f"{folder} is empty: there is nothing to export")
    if is_address(out):
        return kept_in(index, out)
    if to == "parquet":
        to_parquet(index, out)
    elif to == "geoparquet":
        to_geoparquet(index, out, images)
    else:
        to_lance(index, out, table)
    return index


__all__ = ["FORMATS", "export_index", "to_lance", "to_parquet"]
