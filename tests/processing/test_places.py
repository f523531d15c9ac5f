"""Where scenes lie: RFC 7946 outlines, equal to what rasterio says of transforms, GCPs and RPCs."""

import numpy as np
import pytest
from PIL import Image
from rasters import ramp, write_raster

from vsehub.processing.pixels import BadImageError
from vsehub.processing.places import NoPlaceError, Place

rasterio = pytest.importorskip("rasterio", reason="the extra `geo` is not installed")
from rasterio.control import GroundControlPoint  # noqa: E402
from rasterio.rpc import RPC  # noqa: E402
from rasterio.transform import Affine, GCPTransformer, RPCTransformer  # noqa: E402
from rasterio.warp import transform  # noqa: E402

BOX = (16, 8, 48, 40)
CUSTOM = "+proj=laea +lat_0=48 +lon_0=11 +x_0=1000 +y_0=2000 +ellps=GRS80 +units=m"
SITE = 'LOCAL_CS["site",UNIT["metre",1]]'
DISK = "+proj=geos +h=35785831 +lon_0=-75 +ellps=GRS80"  # the earth from a satellite; the corners are sky
UTM = Affine(30, 0, 400000, 0, -30, 5000000)


def scene(path, **options):
    return write_raster(path, ramp(64, 96, 1, np.uint8, 255), **options)


def nearest(ring, point):
    return np.abs(np.array(ring) - np.array(point)).sum(1).min()


def area(ring):
    return sum(x * v - u * y for (x, y), (u, v) in zip(ring, ring[1:])) / 2


@pytest.mark.parametrize(
    ("crs", "affine"),
    [
        ("EPSG:32633", UTM),
        ("EPSG:4267", Affine(0.01, 0, -100, 0, -0.01, 40)),  # another datum
        ("EPSG:3857", Affine(500, 0, -8.8e6, 0, -500, 2.9e6)),
        ("ESRI:102039", Affine(500, 0, -14065, 0, -500, 2368525)),
        (CUSTOM, Affine(500, 0, 3000, 0, -500, 9000)),
        ("EPSG:32633", Affine.translation(400000, 5000000) * Affine.rotation(30) * Affine.scale(30, -30)),  # rotated
        ("EPSG:32633", Affine(30, 0, 400000, 0, 30, 5000000)),  # south-up
        ("EPSG:32633", Affine(-30, 0, 400000, 0, -30, 5000000)),  # east-left
        ("EPSG:2193", Affine(900, 0, 1.6e6, 0, -900, 5.4e6)),  # axes northing first
    ],
)
def test_outlines_are_longitude_and_latitude_as_rasterio_gives_them(tmp_path, crs, affine):
    place = Place(scene(tmp_path / "scene.tif", crs=crs, transform=affine))
    geometry = place.geometry(BOX)
    (ring,) = geometry["coordinates"]
    assert geometry["type"] == "Polygon" and ring[0] == ring[-1] and area(ring) > 0 and len(ring) > 40
    for x, y in [(16, 8), (48, 8), (48, 40), (16, 40), (32, 8), (48, 24)]:  # corners, and middles of edges
        lons, lats = transform(crs, "EPSG:4326", *[[value] for value in affine * (x, y)])
        distance = nearest(ring, (lons[0], lats[0]))
        assert distance < 1e-6
    assert place.geometry((0, 0, 96, 64))["type"] == "Polygon" and (place.width, place.height) == (96, 64)


def test_longitudes_and_latitudes_need_four_corners(tmp_path):
    place = Place(scene(tmp_path / "scene.tif", crs="EPSG:4326", transform=Affine(0.5, 0, 10, 0, -0.25, 60)))
    assert place.geometry(BOX)["coordinates"] == [[[18, 50], [34, 50], [34, 58], [18, 58], [18, 50]]]


@pytest.mark.parametrize("count", [4, 8])
def test_ground_control_points_are_followed(tmp_path, count):
    affine = Affine.translation(400000, 5000000) * Affine.rotation(12) * Affine.scale(30, -30)
    spots = [(0, 0), (0, 96), (64, 96), (64, 0), (10, 50), (40, 20), (30, 80), (50, 60)][:count]
    points = [GroundControlPoint(row, column, *(affine * (column, row))) for row, column in spots]
    path = scene(tmp_path / "gcps.tif", gcps=points, crs="EPSG:32633")
    (ring,) = Place(path).geometry(BOX)["coordinates"]
    with rasterio.open(path) as file, GCPTransformer(file.gcps[0]) as transformer:
        for x, y in [(16, 8), (48, 8), (48, 40), (16, 40)]:
            east, north = transformer.xy(y, x, offset="ul")
            lons, lats = transform("EPSG:32633", "EPSG:4326", [east], [north])
            distance = nearest(ring, (lons[0], lats[0]))
            assert distance < 1e-6


def test_rational_polynomials_are_followed(tmp_path):
    line = [0, 0, 1.0, 0.02] + [0.0] * 16
    sample = [0, 1.0, 0.0, 0.01] + [0.0] * 16
    one = [1.0] + [0.0] * 19
    rpcs = RPC(
        err_bias=0, err_rand=0, height_off=100, height_scale=500, lat_off=45.5, lat_scale=-0.1, long_off=7.25,
        long_scale=0.2, line_off=32, line_scale=32, samp_off=48, samp_scale=48, line_num_coeff=line,
        line_den_coeff=one, samp_num_coeff=sample, samp_den_coeff=one,
    )  # fmt: skip
    path = scene(tmp_path / "rpcs.tif", rpcs=rpcs)
    (ring,) = Place(path).geometry(BOX)["coordinates"]
    with rasterio.open(path) as file, RPCTransformer(file.rpcs) as transformer:
        for x, y in [(16, 8), (48, 8), (48, 40), (16, 40)]:
            distance = nearest(ring, transformer.xy(y, x, offset="ul"))
            assert distance < 1e-6


def test_a_scene_of_points_begins_half_a_pixel_before_the_first(tmp_path):
    path = scene(tmp_path / "scene.tif", crs="EPSG:4326", transform=Affine(1, 0, 10, 0, -1, 60))
    with rasterio.open(path, "r+") as file:
        file.update_tags(AREA_OR_POINT="Point")
    with rasterio.open(path) as file:
        west, north = file.transform.c, file.transform.f
    assert [west, north] in Place(path).geometry((0, 0, 5, 5))["coordinates"][0]


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_boxes_of_a_turned_scene_lie_where_their_pixels_do(tmp_path, orientation):
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    tags = ImageFileDirectory_v2()
    tags[274], tags[33550], tags[33922] = orientation, (1.0, 1.0, 0.0), (0.0, 0.0, 0.0, 10.0, 60.0, 0.0)
    tags.tagtype[33550] = tags.tagtype[33922] = 12
    tags[34735], tags.tagtype[34735] = (1, 1, 0, 2, 1024, 0, 1, 2, 2048, 0, 1, 4326), 3
    Image.new("L", (30, 20), 9).save(tmp_path / "turned.tif", tiffinfo=tags)
    place = Place(tmp_path / "turned.tif")
    ring = place.geometry((0, 0, 5, 2))["coordinates"][0]
    west, south, east, north = {1: (10, 58, 15, 60), 3: (35, 40, 40, 42), 6: (10, 40, 12, 45)}[orientation]
    assert {tuple(point) for point in ring} == {(west, south), (east, south), (east, north), (west, north)}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "does not say where it lies"),
        ({"transform": UTM}, "names no coordinate system"),
        ({"transform": UTM, "crs": SITE}, "no longitude and latitude|no coordinate"),
        ({"transform": Affine(2e7, 0, -1e9, 0, -2e7, 1e9), "crs": DISK}, "no longitude"),
        ({"transform": Affine(10, 0, 400000, 0, -10, 5000000), "crs": "EPSG:4326"}, "no longitude and latitude"),
        ({"transform": Affine(10, 0, 0, 0, -10, 60), "crs": "EPSG:4326"}, "no longitude and latitude"),  # 700 S
        ({"transform": Affine(1e8, 0, -5e9, 0, -0.1, 60), "crs": "EPSG:4326"}, "no longitude and latitude"),
        ({"transform": Affine(0.1, 0, 1e12, 0, -0.1, 60), "crs": "OGC:CRS84"}, "no longitude and latitude"),
        ({"transform": Affine(1, 0, np.inf, 0, -1, 60), "crs": "EPSG:4326"}, "no longitude and latitude"),
        ({"transform": Affine(1e4, 0, -5e5, 0, -1e4, 3e5), "crs": "EPSG:3413"}, "around a pole"),
    ],
)  # fmt: skip
def test_what_has_no_place_says_why(tmp_path, options, said):
    path = scene(tmp_path / "nowhere.tif", **options)
    with pytest.raises(NoPlaceError, match=said):
        Place(path).geometry((0, 0, 96, 64))


def test_a_tile_across_the_180th_meridian_is_two(tmp_path):
    utm = Place(scene(tmp_path / "fiji.tif", crs="EPSG:32760", transform=Affine(2000, 0, 750000, 0, -2000, 8100000)))
    wide = Place(scene(tmp_path / "grid.tif", crs="EPSG:4326", transform=Affine(1, 0, 150, 0, -1, 60)))
    for geometry in (utm.geometry((0, 0, 96, 64)), wide.geometry((0, 0, 60, 40))):
        assert geometry["type"] == "MultiPolygon" and len(geometry["coordinates"]) == 2
        (east,), (west,) = geometry["coordinates"]
        assert min(lon for lon, _ in east) > 100 and max(lon for lon, _ in east) == 180
        assert max(lon for lon, _ in west) < -100 and min(lon for lon, _ in west) == -180
        assert area(east) > 0 and area(west) > 0 and east[0] == east[-1] and west[0] == west[-1]
    pacific = wide.geometry((40, 0, 60, 40))  # all of it beyond 180
    assert pacific["type"] == "Polygon" and min(lon for lon, _ in pacific["coordinates"][0]) == -170


def test_the_whole_world_is_one_polygon(tmp_path):
    place = Place(scene(tmp_path / "world.tif", crs="EPSG:4326", transform=Affine(3.75, 0, -180, 0, -2.8125, 90)))
    ring = place.geometry((0, 0, 96, 64))["coordinates"][0]
    assert {tuple(point) for point in ring} == {(-180, 90), (-180, -90), (180, -90), (180, 90)}
    place = Place(scene(tmp_path / "centres.tif", crs="EPSG:4326", transform=Affine(1, 0, 0, 0, -1, 90.5)))
    assert max(lat for _, lat in place.geometry((0, 0, 5, 5))["coordinates"][0]) == 90


def test_a_box_of_a_scene_that_is_not_on_the_earth_has_no_place_either(tmp_path):
    place = Place(scene(tmp_path / "metres.tif", crs="EPSG:4326", transform=Affine(10, 0, 0, 0, -10, 60)))
    with pytest.raises(NoPlaceError, match="no longitude and latitude"):
        place.geometry((0, 0, 5, 5))  # alone, it would lie at 0 to 50 E
    place = Place(scene(tmp_path / "right.tif", crs="EPSG:4326", transform=Affine(1, 0, 0, 0, -1, 60)))
    with pytest.raises(NoPlaceError, match="no longitude and latitude"):
        place.geometry((0, 0, 1e12, 5))


def test_grids_of_pixel_centres_may_reach_a_little_beyond_the_world(tmp_path):
    centres = Affine(3.75, 0, -1.875, 0, -180 / 63, 90 + 90 / 63)
    place = Place(scene(tmp_path / "centres.tif", crs="EPSG:4326", transform=centres))
    lats = [lat for part in place.geometry((0, 0, 96, 64))["coordinates"] for lat in np.array(part)[..., 1].ravel()]
    assert min(lats) == -90 and max(lats) == 90


def test_what_is_no_scene_is_told_so(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg")
    for name, said in (("a.jpg", "not a scene"), ("absent.tif", "no such file")):
        with pytest.raises(BadImageError, match=said):
            Place(tmp_path / name)
