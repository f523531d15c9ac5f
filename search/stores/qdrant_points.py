"""Rows as points of Qdrant, and back; conditions on points."""

import uuid

import numpy as np
import pyarrow as pa

from ..index_segments import SCHEMA
from .row_tables import NUMBER, VECTOR, rows_schema

SPACE = uuid.UUID("6f1b9a52-3f0c-4c57-9d0e-5a3c1d2b7e48")  # of the ids of points
FACTS = str(uuid.uuid5(SPACE, ""))  # the point of what is known of the index: no row has an empty id


def points_of(rows: pa.Table) -> list:
    """Rows as points; what is null is left out of the payload."""
    from qdrant_client import models

    items = rows.select([*SCHEMA.names, NUMBER]).to_pylist()
    vectors = rows[VECTOR].to_pylist()
    return [
        models.PointStruct(
            id=point_id(item["id"]),
            vector=vector,
            payload={name: value for name, value in item.items() if value is not None},
        )
        for item, vector in zip(items, vectors)
    ]


def point_id(name: str) -> str:
    """The id of the point of a row."""
    return str(uuid.uuid5(SPACE, name))


def rows_of(points, dimension: int) -> pa.Table:
    """The rows of points, with vectors of a dimension; null where they were not read."""
    rows = [{**point.payload, VECTOR: point.vector or None} for point in points]
    return pa.Table.from_pylist(rows, schema=rows_schema(dimension))


def numbered(**bounds: int):
    """Condition: the number of a row lies in bounds, `gte` and `lt`."""
    from qdrant_client import models

    return models.FieldCondition(key=NUMBER, range=models.Range(**bounds))


def among(numbers: np.ndarray):
    """Condition: a row has one of these numbers."""
    from qdrant_client import models

    return models.FieldCondition(key=NUMBER, match=models.MatchAny(any=numbers.tolist()))


def equals(name: str, value: str):
    """Condition: a field has this value."""
    from qdrant_client import models

    return models.FieldCondition(key=name, match=models.MatchValue(value=value))


__all__ = ["FACTS", "among", "equals", "numbered", "point_id", "points_of", "rows_of"]
