"""The rows of a collection of Qdrant that were committed; see `table.View`."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from .qdrant_points import among, equals, numbered, point_id, rows_of
from .row_tables import BLOCK, NUMBER, VECTOR, pieces

PAGE = 2048  # points that are read at a time


class QdrantView:
    """Rows with numbers below `total`.

    Args:
        owner: the `QdrantTable`.
        total: of `table.View`.
        dimension: of the vectors.
    """

    def __init__(self, owner, total: int, dimension: int):
        self._owner, self._dimension, self.total = owner, dimension, total

    def _filter(self, *must, must_not=()):
        from qdrant_client import models

        return models.Filter(must=[numbered(gte=0, lt=self.total), *must], must_not=list(must_not))

    def count(self, modality: str | None = None) -> int:
        """See `View`."""
        must = [] if modality is None else [equals("modality", modality)]
        with self._owner.errors():
            return self._owner.client().count(self._owner.name, count_filter=self._filter(*must), exact=True).count

    def nearest(
        self,
        query: np.ndarray,
        count: int,
        within: np.ndarray | None = None,
        without: np.ndarray | None = None,
        exact: bool = True,
    ) -> pa.Table:
        """See `View`."""
        from qdrant_client import models

        must = [] if within is None else [among(within)]
        chosen = self._filter(*must, must_not=[] if without is None else [among(without)])
        with self._owner.errors():
            points = self._owner.client().query_points(
                self._owner.name,
                query=np.asarray(query, np.float32).tolist(),
                query_filter=chosen,
                search_params=models.SearchParams(exact=exact),
                limit=count,
                with_payload=True,
                with_vectors=True,
            )
        return self._rows(points.points)

    def rows(self, numbers: np.ndarray) -> pa.Table:
        """See `View`."""
        return self._read([among(numbers)]) if len(numbers) else self._rows([])

    def numbers_of(self, ids: list[str]) -> np.ndarray:
        """See `View`."""
        numbers = []
        with self._owner.errors():
            for part in pieces(ids, PAGE):
                names = [point_id(name) for name in part if name]  # no row has an empty id
                numbers += [point.payload[NUMBER] for point in self._owner.client().retrieve(self._owner.name, names)]
        return np.array([number for number in numbers if number < self.total], np.int64)

    def columns(self, names: set[str], limit: int | None = None) -> pa.Table:
        """See `View`: all columns, since points are read whole."""
        return self._read([], vectors=False, limit=limit).drop_columns(VECTOR)

    def blocks(self) -> Iterator[pa.Table]:
        """See `View`."""
        for start in range(0, self.total, BLOCK):
            rows = self._read([numbered(gte=start, lt=start + BLOCK)])
            if len(rows):
                yield rows.sort_by(NUMBER)

    def _read(self, must: list, vectors: bool = True, limit: int | None = None) -> pa.Table:
        """The rows that meet conditions, page by page."""
        parts, offset, left = [], None, self.total if limit is None else limit
        with self._owner.errors():
            while left > 0:
                points, offset = self._owner.client().scroll(
                    self._owner.name,
                    scroll_filter=self._filter(*must),
                    limit=min(PAGE, left),
                    offset=offset,
                    with_vectors=vectors,
                )
                parts.append(self._rows(points))
                left -= len(points)
                if offset is None:
                    break
        return pa.concat_tables(parts) if parts else self._rows([])

    def _rows(self, points) -> pa.Table:
        return rows_of(points, self._dimension)


__all__ = ["QdrantView"]
