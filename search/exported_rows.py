"""The rows of an index as other engines read them: its items, and `vector`, a list of fixed size."""

from collections.abc import Iterator

import pyarrow as pa

from .index import Index
from .index_segments import SCHEMA


def export_schema(index: Index) -> pa.Schema:
    """The columns of an export."""
    return SCHEMA.append(pa.field("vector", pa.list_(pa.float32(), index.dimension)))


def vector_batches(index: Index) -> Iterator[pa.RecordBatch]:
    """Yield the rows of an index in the columns of `export_schema`."""
    schema = export_schema(index)
    for vectors, items in index.batches():
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), index.dimension)
        yield from items.append_column(schema.field("vector"), column).combine_chunks().to_batches()


__all__ = ["export_schema", "vector_batches"]
