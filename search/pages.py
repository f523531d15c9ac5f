"""Hits as a page that needs no server and no network, and as GeoJSON."""

import base64
import html
import io

from ..processing.pixels import BadImageError
from ..processing.scenes import box_to_coordinates, geo_transform, open_any
from .collection import Collection

THUMBNAIL = 224  # pixels
STYLE = """body{font:15px/1.4 system-ui,sans-serif;margin:2rem;color:#222;background:#fff}
ol{display:flex;flex-wrap:wrap;gap:1rem;padding:0;list-style:none}
li{width:226px}img{max-width:224px;max-height:224px;display:block;border:1px solid #ccc}
small{color:#666;overflow-wrap:anywhere}"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # whatever a name holds, nothing runs


def html_page(query: str, hits: list, picture_of, query_image=None) -> str:
    """A self-contained page: the query, and the hits with thumbnails, cosines, ids and captions.

    Args:
        query: what was asked, in words.
        hits: of `Retriever.search`.
        picture_of: a function of a hit that opens its picture; BadImageError or None where there is none.
        query_image: the picture that was asked with, if any.
    """
    cells = []
    for place, hit in enumerate(hits, 1):
        try:
            image = picture_of(hit)
            picture = "" if image is None else _thumbnail(image)
        except (BadImageError, OSError) as error:  # moved or damaged since it was indexed
            picture = f"<p>{html.escape(str(error))}</p>"
        caption = f"<br>{html.escape(hit.caption)}" if hit.caption else ""
        cells.append(f"<li>{picture}<b>{place}. {hit.score:.3f}</b>{caption}<br><small>{html.escape(hit.id)}</small>")
    title = html.escape(query)
    asked = _thumbnail(query_image) if query_image is not None else ""
    body = f"<ol>\n{chr(10).join(cells)}\n</ol>" if cells else "<p>Nothing here comes near enough.</p>"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><style>{STYLE}</style></head>\n'
        f"<body><h1>{title}</h1>{asked}\n{body}\n</body></html>\n"
    )


def picture_opener(index):
    """A function that opens the picture of a hit of this `VectorIndex` as it was indexed; None for a text."""
    collections = {}

    def picture_of(hit):
        if hit.modality == "text" or (hit.path is None and hit.collection is None):
            return None
        settings = index.sources.get(hit.collection)
        if settings is None:  # added from Python, by its path
            return open_any(hit.path, name=hit.id, least_side=THUMBNAIL)
        if hit.collection not in collections:
            collections[hit.collection] = Collection(**settings)
        return collections[hit.collection].picture(vars(hit), THUMBNAIL)

    return picture_of


def _thumbnail(image) -> str:
    image = image.convert("RGB")
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def geojson(hits: list) -> dict:
    """Hits in scenes as a FeatureCollection: outlines where the file says where it lies, else no geometry.

    Every feature has `pixel_box` (left, top, right, bottom). Coordinates are the scene's own; where these are not
    longitude and latitude (EPSG:4326), `crs` names the system, which QGIS and GDAL read.

    Raises:
        ValueError: hits in several coordinate systems, which one file cannot hold.
    """
    features, systems, places = [], set(), {}
    for place, hit in enumerate(hits, 1):
        if hit.path not in places:
            places[hit.path] = _place(hit.path) if hit.box else (None, None)
        transform, system = places[hit.path]
        geometry = None
        if transform is not None and hit.box:
            west, south, east, north = box_to_coordinates(hit.box, transform)
            ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
            geometry = {"type": "Polygon", "coordinates": [ring]}
            systems.add(system)
        facts = {"rank": place, "score": hit.score, "id": hit.id, "path": hit.path, "pixel_box": hit.box}
        features.append({"type": "Feature", "geometry": geometry, "properties": facts})
    if len(systems) > 1:
        named = ", ".join(sorted(str(system) for system in systems))
        raise ValueError(f"the hits lie in several coordinate systems ({named}): search scenes of one at a time")
    found = {"type": "FeatureCollection", "features": features}
    system = next(iter(systems), None)
    if system not in (None, "EPSG:4326"):
        name = f"urn:ogc:def:crs:{system.replace(':', '::')}"
        found["crs"] = {"type": "name", "properties": {"name": name}}
    return found


def _place(path):
    try:
        return geo_transform(path)
    except (BadImageError, OSError):  # the scene is gone: its pixel boxes are still known
        return None, None


__all__ = ["geojson", "html_page", "picture_opener"]
