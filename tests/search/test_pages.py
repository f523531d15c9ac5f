"""Hits as a page that runs nothing, and as GeoJSON."""

import datetime
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from markup import tags_of
from PIL import Image
from rasters import write_raster

from vsehub.files.text import CONTROLS
from vsehub.processing.pixels import BadImageError
from vsehub.processing.places import NoPlaceError
from vsehub.search.cutoff import Cutoff
from vsehub.search.pages import (
    THUMBNAIL,
    about_search,
    geojson,
    html_page,
    links_from,
    outline,
    picture_opener,
    place_finder,
    without_pictures,
)
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
        "a",
    }
    assert not any(attribute.startswith("on") for attribute, _ in tags.attributes)
    assert CONTROLS.search(page) is None
    nothing = html_page(name, [], gone, nothing=f"Nothing: {name}")
    assert "Nothing: " in nothing and tags_of(nothing).found <= tags.found


@pytest.mark.parametrize("name", [*HOSTILE[:5], "javascript:alert(1)", "a b#c?d%e.png", "//host/share", "..."])
def test_a_link_leads_to_the_file_and_to_no_address(tmp_path, name, tiny_pictures):
    path = tmp_path / "photos" / name.replace("/", "_")
    path.parent.mkdir()
    tiny_pictures[0].save(path, "PNG")
    hit = Hit(id=str(path), score=0.5, path=str(path))
    for page, expected in (
        (tmp_path / "page.html", f"photos/{path.name}"),
        (tmp_path / "photos" / "page.html", path.name),
    ):
        link_of = links_from(page, [str(tmp_path / "photos")])
        assert link_of(hit) == expected
        tags = tags_of(html_page("q", [hit], lambda hit: tiny_pictures[0], about="a model", link_of=link_of))
        links = [value for attribute, value in tags.attributes if attribute == "href"]
        assert len(links) == 2 and {unquote(link) for link in links} == {expected}
        parts = urlsplit(links[0])
        assert not (parts.scheme or parts.netloc or parts.query or parts.fragment)
        assert [value for attribute, value in tags.attributes if attribute == "alt"] == [expected]


def test_a_file_elsewhere_a_text_and_a_picture_that_is_gone_have_no_link(tmp_path):
    link_of = links_from(tmp_path / "page.html", [str(tmp_path / "photos")])
    assert link_of(Hit("a", 1.0, path=str(tmp_path / "private.png"))) is None and link_of(Hit("a", 1.0)) is None

    def gone(hit):
        raise BadImageError("no such file")

    page = html_page("q", [Hit("a", 1.0, path=str(tmp_path / "photos" / "a.png"))], gone, link_of=link_of)
    assert "href" not in page


def test_the_page_says_what_was_searched_and_when():
    index = VectorIndex({"id": "/home/me/hub", "digest": "0"})
    assert about_search(index, Cutoff(None)) == f"model hub, 0 items, {datetime.date.today()}"
    index.model["id"] = "org/name"
    assert about_search(index, Cutoff(0.25)).startswith("model org/name, 0 items, cut-off 0.250, ")
    page = html_page("q", [], None, about=about_search(index, Cutoff(None)))
    assert 'name="viewport"' in page and "model org/name" in page


@pytest.mark.parametrize("renamed", [False, True])
def test_of_files_of_one_name_the_one_of_the_folder_or_of_the_size_is_shown(tmp_path, renamed):
    """Cameras call the pictures of every folder alike."""
    index, now = VectorIndex({"id": "m", "digest": "0"}), [tmp_path / ("xy"[n] if renamed else "ab"[n]) for n in (0, 1)]
    index.sources = {f"/old/{name}": {"data": f"/old/{name}"} for name in "ab"}
    items = [{"id": f"/old/{name}/1.png", "path": f"/old/{name}/1.png", "size": 10 + n} for n, name in enumerate("ab")]
    index.add(np.eye(2), items)
    for number, folder in enumerate(now):
        folder.mkdir()
        (folder / "1.png").write_bytes(b"0" * (10 + number if renamed else 5))
    for folders in (now, now[::-1]):
        place_of = place_finder(index, list(map(str, folders)))
        assert [place_of(item["path"]) for item in items] == [str(folder / "1.png") for folder in now]
    assert place_finder(index, [str(now[1])])(items[0]["path"]) == items[0]["path"]  # its folder was not named


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
    assert page.index("1. 0.500") < page.index("<br>two boats") < page.index("2. 0.250")
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


def test_a_file_that_was_moved_is_linked_and_outlined_where_it_lies_now(scene, tmp_path):
    index, hit = VectorIndex(), Hit(id="x", score=0.9, path="/old/photos/scene.tif")
    index.sources = {"/old/photos": {"data": "/old/photos"}}
    place_of = place_finder(index, [str(tmp_path)])
    assert place_of(hit.path) == scene and place_of(None) is None
    assert place_of("/old/photos/other.tif") == "/old/photos/other.tif"  # it is nowhere
    assert place_of("/elsewhere/scene.tif") == "/elsewhere/scene.tif"
    link_of = links_from(tmp_path / "page.html", [str(tmp_path)], place_of)
    assert link_of(hit) == "scene.tif"
    feature = geojson([hit], [str(tmp_path)], place_of)["features"][0]
    assert feature["geometry"] is not None and feature["properties"]["path"] == scene


def test_pictures_are_opened_as_they_were_indexed(tmp_path, tiny_pictures):
    tiny_pictures[0].save(tmp_path / "a.png")
    picture_of = picture_opener(VectorIndex(), [str(tmp_path)])
    assert picture_of(Hit(id="a", score=1.0, path=str(tmp_path / "a.png"))).size == tiny_pictures[0].size
    assert picture_of(Hit(id="t", score=1.0, path="a", modality="text")) is None
    assert picture_of(Hit(id="memory", score=1.0)) is None


def test_a_named_folder_holds_pictures_where_they_lie_where_they_were_moved_or_in_a_table(tmp_path):
    names = ("here", "moved", "tables", "empty")
    for name in names:
        (tmp_path / name).mkdir()
    for path in ("here/a.png", "moved/b.png", "tables/c.parquet"):
        (tmp_path / path).touch()
    index = VectorIndex()
    paths = [f"{tmp_path}/here/a.png", f"{tmp_path}/old/b.png", None]
    index.add(np.eye(3), [{"id": str(number), "path": path} for number, path in enumerate(paths)])
    settings = {"tile": None, "overlap": None}
    for data in ("here", "old", "tables/c.parquet"):
        index.sources[data] = {"data": f"{tmp_path}/{data}", "split": None, **settings}
    assert without_pictures(index, [f"{tmp_path}/{name}" for name in names]) == [f"{tmp_path}/empty"]
    assert without_pictures(index, []) == []
