"""An index as GeoParquet 1.1 (https://geoparquet.org), for QGIS, GeoPandas, torchgeo and STAC: outlines and vectors.

Geometries are well-known binary, polygons in longitude and latitude. Rows without coordinates have none.
"""

import json
import struct
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq
from transformers.utils import logging

from ..files.whole import whole_file
from ..processing.pixels import BadImageError
from ..processing.places import NoPlaceError
from .exported_rows import export_schema, vector_batches
from .index import Index
from .pages import outline, place_finder

MODEL = ("id", "revision", "digest")  # what made the vectors, columns `model_id`, ...
CODES = {"Polygon": 3, "MultiPolygon": 6}  # of well-known binary
UNKNOWN = "; this index was not made here: name the folders of its scenes with --images FOLDER"
logger = logging.get_logger(__name__)


def to_geoparquet(index: Index, out, images: Iterable[str] = ()):
    """Write items, `vector`, `model_id`, `model_revision`, `model_digest` and `geometry` of an index.

    After an error there is no file. Every scene is opened once to read its coordinates; a scene that no longer exists,
    or is outside the folders that the user named for this index or in `images`, gives rows without geometry.
    """
    places, kinds, bounds, missing, images = {}, set(), [], 0, list(images)
    named, place_of = {*index.named, *images}, place_finder(index, images)
    for _, items in index.batches():  # kinds and bounds of all geometries go into the header, before the first row
        for shape in _shapes(items, places, named, place_of):
            missing += shape is None
            if shape is not None:
                kinds.add(shape["type"])
                bounds = _widened(bounds, shape)
    column = {"encoding": "WKB", "geometry_types": sorted(kinds), **({"bbox": bounds} if bounds else {})}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    model = [pa.field(f"model_{name}", pa.string()) for name in MODEL]
    schema = pa.schema([*export_schema(index), *model, pa.field("geometry", pa.binary())], {"geo": json.dumps(geo)})
    with whole_file(out) as file, pq.ParquetWriter(file, schema) as writer:
        for batch in vector_batches(index):
            made_by = [pa.array([(index.model or {}).get(name)] * len(batch), pa.string()) for name in MODEL]
            shapes = [shape and well_known_binary(shape) for shape in _shapes(batch, places, named, place_of)]
            columns = [*batch.columns, *made_by, pa.array(shapes, pa.binary())]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
    if missing:
        logger.warning("%s: %d of %d rows have no geometry%s", out, missing, len(index), "" if named else UNKNOWN)


def _shapes(items, places: dict, named: set[str], place_of) -> list[dict | None]:
    rows = zip(items["path"].to_pylist(), items["box"].to_pylist())
    return [_shape(place_of(path), box, places, named) for path, box in rows]


def _shape(path, box, places: dict, named: set[str]) -> dict | None:
    try:
        return outline(path, box, places, named)[0]
    except (BadImageError, NoPlaceError):
        return None


def _polygons(geometry: dict) -> list:
    return [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]


def _widened(bounds: list[float], geometry: dict) -> list[float]:
    """Extend bounds (west, south, east, north; empty at first) to include a geometry."""
    points = [point for rings in _polygons(geometry) for ring in rings for point in ring]
    lons, lats = zip(*points, *([bounds[:2], bounds[2:]] if bounds else []))
    return [min(lons), min(lats), max(lons), max(lats)]


def well_known_binary(geometry: dict) -> bytes:
    """A GeoJSON Polygon or MultiPolygon as little-endian well-known binary (OGC 06-103r4, 8.2)."""
    code, parts = CODES[geometry["type"]], geometry["coordinates"]
    head = struct.pack("<BII", 1, code, len(parts))
    if geometry["type"] == "MultiPolygon":
        polygons = ({"type": "Polygon", "coordinates": rings} for rings in parts)
        return head + b"".join(map(well_known_binary, polygons))
    return head + b"".join(
        struct.pack(f"<I{2 * len(ring)}d", len(ring), *(number for point in ring for number in point)) for ring in parts
    )


__all__ = ["to_geoparquet", "well_known_binary"]
