"""Hits as a page that runs nothing, and as GeoJSON."""

import numpy as np
import pytest
from markup import tags_of
from PIL import Image
from rasters import write_raster

from vsehub.processing.pixels import BadImageError
from vsehub.processing.places import NoPlaceError
from vsehub.search.pages import THUMBNAIL, geojson, html_page, outline, picture_opener
from vsehub.search.retriever import Hit
from vsehub.search.vector_index import VectorIndex

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title><script>1</script>",
    "</style>{{7*7}}&lt;b&gt;",
    "a\u202eb\U0001f600\0",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_in_a_name_or_caption_becomes_markup(name):
    def gone(hit):
        raise BadImageError(f"{hit.path}: no such file")

    hits = [Hit(id=name, score=0.5, path=name, caption=name)]
    page = html_page(name, hits, gone, Image.new("RGBA", (900, 10)))
    tags = tags_of(page)
    assert tags.found <= {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "img",
        "ol",
        "li",
        "p",
        "b",
        "br",
        "small",
    }
    assert not any(attribute.startswith("on") for attribute, _ in tags.attributes)
    assert "No hit reaches" in html_page(name, [], gone)


def test_a_photograph_has_no_place():
    found = geojson([Hit(id="a.jpg", score=0.1, path="a.jpg")], [])
    assert found["features"][0]["geometry"] is None and found["features"][0]["properties"]["pixel_box"] is None


def test_hits_stand_in_their_order_with_cosine_caption_and_small_picture():
    hits = [Hit(id="b", score=0.5, path="b", caption="two boats"), Hit(id="a", score=0.25, path="a")]
    seen = []

    def picture_of(hit):
        seen.append(hit.id)
        return Image.new("RGB", (3 * THUMBNAIL, 10)) if hit.id == "b" else None

    page = html_page("boats", hits, picture_of)
    assert seen == ["b", "a"] and page.count("data:image/jpeg") == 1
    assert page.index("1. 0.500") < page.index("two boats") < page.index("2. 0.250")
    assert "<title>boats</title>" in page and tags_of(page).found >= {"ol", "li", "img"}


@pytest.fixture
def scene(tmp_path):
    """A raster of 4 x 2 pixels, half a degree each, from 10 east, 60 north."""
    affine = pytest.importorskip("affine", reason="the extra `geo` is not installed")
    pixels = np.zeros((2, 4, 3), np.uint8)
    write_raster(tmp_path / "scene.tif", pixels, crs="EPSG:4326", transform=affine.Affine(0.5, 0, 10, 0, -0.5, 60))
    return str(tmp_path / "scene.tif")


def test_an_outline_is_a_ring_in_longitude_and_latitude(scene):
    places = {}
    geometry, box = outline(scene, [0, 0, 2, 1], places, [scene])
    assert geometry["type"] == "Polygon" and box == [0, 0, 2, 1]
    assert geometry["coordinates"][0] == [[10, 59.5], [11, 59.5], [11, 60], [10, 60], [10, 59.5]]
    whole, box = outline(scene, None, places, [scene])
    assert box == [0, 0, 4, 2] and whole["coordinates"][0][2] == [12, 60] and list(places) == [scene]


def test_what_has_no_place_says_why_each_time_it_is_asked(tmp_path):
    places, missing = {}, str(tmp_path / "none.tif")
    for _ in range(2):
        with pytest.raises(BadImageError, match="none.tif"):
            outline(missing, None, places, [str(tmp_path)])
    assert list(places) == [missing]
    with pytest.raises(NoPlaceError, match="it is no file"):
        outline(None, None, places, [])


def test_hits_of_one_scene_become_features_in_their_order(scene):
    hits = [Hit(id="x", score=0.9, path=scene, box=[2, 0, 4, 2]), Hit(id="y", score=0.1, path=None)]
    first, second = geojson(hits, [scene])["features"]
    assert first["properties"] == {"rank": 1, "score": 0.9, "id": "x", "path": scene, "pixel_box": [2, 0, 4, 2]}
    assert first["geometry"]["coordinates"][0][0] == [11, 59]
    assert second["geometry"] is None and second["properties"]["no_geometry"] == "it is no file"


def test_pictures_are_opened_as_they_were_indexed(tmp_path, tiny_pictures):
    tiny_pictures[0].save(tmp_path / "a.png")
    picture_of = picture_opener(VectorIndex(), [str(tmp_path)])
    assert picture_of(Hit(id="a", score=1.0, path=str(tmp_path / "a.png"))).size == tiny_pictures[0].size
    assert picture_of(Hit(id="t", score=1.0, path="a", modality="text")) is None
    assert picture_of(Hit(id="memory", score=1.0)) is None
