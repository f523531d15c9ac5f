"""The place of a scene's pixels on the earth as GeoJSON: RFC 7946, longitude and latitude in WGS 84.

From the affine transform and the coordinate system, from ground control points, or from rational polynomials (RPCs, at
height 0 above the ellipsoid), as rasterio computes them. What lies in a sidecar file is not looked at.
"""

import math

import numpy as np

from .pixels import BadImageError, format_of, head_of, opening
from .raster import ORIENTATION, TiffHeader, opened
from .scenes import SCENES, stored_box

MOST_BEYOND = 10  # degrees by which a grid of pixel centres may reach beyond the world
POINTS_ON_AN_EDGE = 21  # an edge that is straight in pixels may be curved on a map
EARTH = "OGC:CRS84"  # WGS 84, longitude first


class NoPlaceError(ValueError):
    """A scene or a part of it that has no place on the earth; the message says why."""


class Place:
    """The place of one scene.

    Args:
        path: of the scene.

    Attributes:
        width, height: in pixels of the upright picture.

    Raises:
        BadImageError: it cannot be opened.
        NoPlaceError: it does not say where it lies, or in which coordinate system.
    """

    def __init__(self, path):
        with opening(path):
            kind = format_of(head_of(path, path), path)
            if kind not in SCENES:
                raise BadImageError(f"{path}: not a scene (TIFF or JPEG 2000)")
            tags = TiffHeader(path).tags if kind == "TIFF" else {}
            with opened(path, kind, path) as dataset:
                self._size = dataset.width, dataset.height
                self._transform, self._crs, self._rpcs = dataset.transform, dataset.crs, dataset.rpcs
                self._gcps, gcp_crs = dataset.gcps
        self._orientation = tags.get(ORIENTATION, 1) if tags.get(ORIENTATION, 1) in range(1, 9) else 1
        self.width, self.height = self._size if self._orientation < 5 else self._size[::-1]
        if not self._transform.is_identity:
            self._from = "transform"
        elif self._gcps:
            self._from, self._crs = "gcps", gcp_crs
        elif self._rpcs:
            self._from, self._crs = "rpcs", EARTH
        else:
            raise NoPlaceError("the file does not say where it lies")
        if not self._crs:
            raise NoPlaceError("the file names no coordinate system")

    def geometry(self, box) -> dict:
        """The outline of a pixel box (left, top, right, bottom): a Polygon, a MultiPolygon across the 180th meridian.

        Raises:
            NoPlaceError: the box lies outside of what the coordinate system covers, or around a pole; or the scene
                has other numbers than longitudes and latitudes where it says that it has these.
        """
        straight = self._is_straight
        lons, lats = self._on_earth(*_edges(stored_box(box, self._orientation, *self._size), straight))
        if straight:
            self._check_degrees(lons, lats)
            self._check_degrees(*self._on_earth(*_edges((0, 0, *self._size), True)))
            lats = lats.clip(-90, 90)  # grids of pixel centres begin half a pixel beyond the pole
        elif not (np.isfinite(lons).all() and np.isfinite(lats).all() and (np.abs(lats) <= 90).all()):
            raise NoPlaceError("its coordinate system gives no longitude and latitude here")
        else:
            lons = np.unwrap(lons, period=360)
            if abs(lons[-1] - lons[0]) > 180:
                raise NoPlaceError("it lies around a pole, as no outline in longitude and latitude can")
        rings = [_ring(part) for part in _cut_at_180(list(zip(lons.tolist(), lats.tolist()))[:-1])]
        if len(rings) == 1:
            return {"type": "Polygon", "coordinates": rings}
        return {"type": "MultiPolygon", "coordinates": [[ring] for ring in rings]}

    def _check_degrees(self, lons: np.ndarray, lats: np.ndarray):
        """Refuse metres, say, that a file calls degrees; a grid may begin a pixel before the world's edge."""
        a, b, _, d, e, _ = self._transform[:6]
        wide, high = (min(abs(x) + abs(y), MOST_BEYOND) for x, y in ((a, b), (d, e)))
        fits = np.abs(lats).max() <= 90 + high and np.abs(lons).max() <= 540 + wide and np.ptp(lons) <= 360 + wide
        if not fits:  # nor do numbers that are not finite
            raise NoPlaceError("its numbers are no longitude and latitude: the file names a wrong coordinate system")

    @property
    def _is_straight(self) -> bool:
        """Whether pixel edges are straight in longitude and latitude."""
        from rasterio.crs import CRS

        return self._from == "transform" and self._crs in (CRS.from_epsg(4326), CRS.from_string(EARTH))

    def _on_earth(self, xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Longitudes and latitudes of pixel coordinates; infinite where there are none."""
        import rasterio
        from rasterio.transform import GCPTransformer, RPCTransformer
        from rasterio.warp import transform

        with rasterio.Env(PROJ_NETWORK="OFF"):
            if self._from == "transform":
                a, b, c, d, e, f = self._transform[:6]
                east, north = a * xs + b * ys + c, d * xs + e * ys + f
            else:
                by_points = self._from == "gcps"
                with GCPTransformer(self._gcps) if by_points else RPCTransformer(self._rpcs) as transformer:
                    east, north = map(np.asarray, transformer.xy(ys, xs, offset="ul"))
            if self._is_straight or self._from == "rpcs":
                return east, north
            try:
                lons, lats = transform(self._crs, EARTH, east.tolist(), north.tolist())
            except Exception:  # a local system, which has no place on the earth
                return np.full_like(east, math.inf), np.full_like(east, math.inf)
        return np.asarray(lons), np.asarray(lats)


def _edges(box, corners_only: bool) -> tuple[np.ndarray, np.ndarray]:
    """Points along the four edges of a pixel box, closed."""
    left, top, right, bottom = map(float, box)
    steps = np.linspace(0, 1, 2 if corners_only else POINTS_ON_AN_EDGE)[:-1]
    corners = [(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)]
    points = [(x + (u - x) * t, y + (v - y) * t) for (x, y), (u, v) in zip(corners, corners[1:]) for t in steps]
    xs, ys = zip(*points, corners[0])
    return np.array(xs), np.array(ys)


def _cut_at_180(ring: list[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Cut a ring (open, its longitudes without jumps) into parts between -180 and 180."""
    least, most = min(lon for lon, _ in ring), max(lon for lon, _ in ring)
    parts = []
    for turn in range(math.floor((least + 180) / 360), math.floor((most + 180 - 1e-12) / 360) + 1):
        part = _clip(_clip(ring, 360 * turn - 180, 1), 360 * turn + 180, -1)
        parts += [[(lon - 360 * turn, lat) for lon, lat in part]] if len(part) > 2 else []
    return parts


def _clip(ring, bound: float, side: int):
    """The part of a ring on one side of a meridian (Sutherland and Hodgman, 1974)."""
    kept = []
    for (lon, lat), (lon2, lat2) in zip(ring, ring[1:] + ring[:1]):
        inside, inside2 = side * (lon - bound) >= 0, side * (lon2 - bound) >= 0
        kept += [(lon, lat)] if inside else []
        if inside != inside2:
            kept.append((bound, lat + (lat2 - lat) * (bound - lon) / (lon2 - lon)))
    return kept


def _ring(points) -> list[list[float]]:
    """Close a ring and make it counter-clockwise, as RFC 7946 asks."""
    area = sum(x * v - u * y for (x, y), (u, v) in zip(points, points[1:] + points[:1]))
    points = points if area >= 0 else points[::-1]
    return [[lon, lat] for lon, lat in points + points[:1]]


__all__ = ["NoPlaceError", "Place"]
