"""`vsehub search`: text, picture, both; JSON, a page that runs nothing, outlines of hits in scenes."""

import datetime
import json
import os
import shutil
import sys
from urllib.parse import unquote

import numpy as np
import pytest
from datasets import Dataset
from dual_encoders import FAMILIES, SENTENCE
from markup import tags_of
from rasters import write_raster

from vsehub.__main__ import main
from vsehub.search.retriever import Retriever

Affine = pytest.importorskip("affine", reason="the extra `geo` is not installed").Affine


@pytest.fixture(scope="module")
def index(tmp_path_factory, tiny_folder, tiny_pictures):
    folder = tmp_path_factory.mktemp("search")
    (folder / "photos").mkdir()
    for number, picture in enumerate(tiny_pictures):
        picture.save(folder / "photos" / f"{number} <b>'\"&.png")
    assert main(["index", str(folder / "photos"), "--model", str(tiny_folder), "--out", str(folder / "index")]) == 0
    return folder


def search(index, capsys, *words, expected=0):
    capsys.readouterr()
    assert main(["search", str(index / "index"), *words]) == expected
    said = capsys.readouterr()
    return said.out if expected == 0 else said.err


def test_text_picture_and_both(index, capsys, tiny_pictures):
    picture = str(index / "photos" / "2 <b>'\"&.png")
    assert len(search(index, capsys, "a dog", "--k", "4").splitlines()) == 4
    assert "  1.  1.000" in search(index, capsys, "--image", picture)
    found = json.loads(search(index, capsys, "--image", picture, "--text", "a boat", "--json", "--k", "2"))
    assert found["query"] == {"text": "a boat", "image": picture, "cutoff": None} and len(found["hits"]) == 2
    assert found["hits"][0]["score"] >= found["hits"][1]["score"]
    same = json.loads(search(index, capsys, "a boat", "--image", picture, "--json", "--k", "2"))
    assert same == found
    assert search(index, capsys, "a dog", "--cutoff", "1.5").startswith("nothing comes nearer")
    assert main(["search", str(index / "index"), "a dog", "--cutoff", "1.5", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["hits"] == [] and "--no_cutoff shows the nearest" in said.err


def test_the_cut_off_of_the_model_hides_and_says_so(index, capsys, tiny_folder, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    facts = {"cosine": 0.999, "rejected": 0.95, "kept": 0.8, "images": 300, "captions": 600, "queries": 140}
    config = json.loads((model / "config.json").read_text()) | {"text_cutoff": facts}
    (model / "config.json").write_text(json.dumps(config))
    words, page = ("a dog", "--model", str(model)), tmp_path / "page.html"
    said = search(index, capsys, *words, "--html", str(page))
    whose = "the cut-off 0.999 (the model's default, from its validation); --no_cutoff shows the nearest"
    assert said == f"nothing comes nearer than {whose}\n"
    assert "the nearest" in page.read_text() and "cut-off 0.999 (the model" in page.read_text()
    query = json.loads(search(index, capsys, *words, "--json"))["query"]
    assert (query["cutoff"], query["cutoff_from"]) == (0.999, "model")
    assert len(search(index, capsys, *words, "--no_cutoff").splitlines()) == 6
    assert len(search(index, capsys, *words, "--cutoff", "-1").splitlines()) == 6
    assert "meets the conditions" in search(index, capsys, *words, "--where", "size > 100000000")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "give a text, an image, or both"),
        (("a", "--text", "b"), "given twice"),
        (("--image", "absent.jpg"), "absent.jpg: no such file"),
        (("a", "--k", "0"), "must be a whole number of at least 1, not 0"),
        (("a", "--model", "./nowhere"), "no such folder"),
        (("   ",), "empty"),
        (("a", "--where", "depth > 3"), "no field 'depth'; it has id, path"),
        (("a", "--where", "size = 3"), "cannot be read: write it as in Python"),
        (("a", "--where", "size > 1", "--where", "size < 9"), "give it once, with `and` between the conditions"),
        (("a", "--path", "a/*", "--path", "b/*"), "--path is given twice"),
        (("--like", "absent"), "no item with the id 'absent'"),
        (("a", "--minus", "b:0"), "must be a number above 0"),
        (("a", "--plus_image", "absent.jpg:2"), "absent.jpg: no such file"),
    ],
)
def test_wrong_words_are_one_line(index, capsys, words, said):
    assert said in search(index, capsys, *words, expected=2)


def test_several_parts_conditions_and_an_item_as_the_query(index, capsys):
    retriever, photos = Retriever.open(index / "index"), index / "photos"
    names = [str(photos / f"{n} <b>'\"&.png") for n in range(6)]
    words = ["a dog", "--plus", "sunset:0.5", "--minus", "a boat", "--plus-image", f"{names[1]}:2", "--json"]
    told = json.loads(search(index, capsys, *words))
    expected = retriever.search("a dog", plus=[("sunset", 0.5), (photos / names[1], 2)], minus=["a boat"])
    assert [hit["id"] for hit in told["hits"]] == [hit.id for hit in expected]
    assert told["query"]["plus"] == ["sunset:0.5"] and told["query"]["minus"] == ["a boat"]
    like = json.loads(search(index, capsys, "--like", names[2], "--json"))["hits"]
    assert [hit["id"] for hit in like] == [hit.id for hit in retriever.search(image=photos / names[2])[1:]]
    some = json.loads(search(index, capsys, "a dog", "--path", "photos/[34]*", "--where", "size > 0", "--json"))["hits"]
    assert {hit["id"] for hit in some} == {names[3], names[4]}
    said = search(index, capsys, "a dog", "--path", "elsewhere/*")
    assert said.strip() == "no item of the index meets the conditions"


def test_the_columns_of_a_dataset_are_conditions(tmp_path, tiny_folder, tiny_pictures, vsehub, vsehub_json):
    (tmp_path / "photos").mkdir()
    for number, picture in enumerate(tiny_pictures):
        picture.save(tmp_path / "photos" / f"{number}.png")
    rows = [
        {
            "image": str(tmp_path / "photos" / f"{n}.png"),
            "image_id": str(n),
            "captions": ["a"],
            "width": n * 500,
            "notes": "x" * 300,
        }
        | {"taken": datetime.date(2020 + n, 1, 1), "label": None if n == 5 else "boat"}
        for n in range(6)
    ]
    Dataset.from_list(rows).to_parquet(str(tmp_path / "rows.parquet"))
    vsehub("index", tmp_path / "rows.parquet", "--model", tiny_folder, "--out", tmp_path / "index")
    for where, expected in [("width >= 1000 and label == 'boat'", "234"), ("taken < '2022-01-01'", "01")]:
        hits = vsehub_json("search", tmp_path / "index", "a dog", "--where", where)["hits"]
        assert sorted(hit["id"][-1] for hit in hits) == list(expected)
    said = vsehub("search", tmp_path / "index", "a dog", "--where", "notes == 'x'", status=2)
    assert "no field 'notes'; it has" in said and "image_id, width, taken, label" in said


def test_no_index_is_one_line(tmp_path, capsys):
    assert main(["search", str(tmp_path), "a"]) == 2
    assert "holds no index: make one with `vsehub index`" in capsys.readouterr().err


def test_the_page_is_self_contained(index, capsys, tmp_path):
    picture = str(index / "photos" / "0 <b>'\"&.png")
    search(index, capsys, "a <i>dog</i>", "--image", picture, "--html", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 7  # the query and six hits
    tags = tags_of(page)
    assert all(value.startswith("data:") for name, value in tags.attributes if name == "src")
    links = {unquote(value) for name, value in tags.attributes if name == "href"}
    places = {os.path.relpath(index / "photos" / f"{n} <b>'\"&.png", tmp_path) for n in range(6)}
    assert links == places and str(index) not in page  # of a folder that may be moved as a whole
    assert all(value for name, value in tags.attributes if name == "alt")
    assert "http:" not in page and "url(" not in page
    assert "default-src 'none'" in page and not tags.found & {"script", "i", "link", "iframe"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_picture_whose_name_is_no_text_is_a_query_with_a_page(index, capsys, tmp_path):
    picture = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    shutil.copy(index / "photos" / "0 <b>'\"&.png", picture)
    search(index, capsys, "--image", picture, "--plus_image", picture, "--html", str(tmp_path / "page.html"))
    assert r"<h1>\udcff.png + \udcff.png</h1>" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("epsg", [4326, 32631])
def test_hits_in_a_scene_are_outlines_where_it_lies(tmp_path, tiny_folder, capsys, epsg):
    scene = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    transform = Affine(0.5, 0, 10, 0, -0.25, 60) if epsg == 4326 else Affine(30, 0, 400000, 0, -30, 5000000)
    write_raster(tmp_path / "scene.tif", scene, crs=f"EPSG:{epsg}", transform=transform)
    words = ["--model", str(tiny_folder), "--out", str(tmp_path / "index"), "--tile", "64", "--overlap", "0"]
    assert main(["index", str(tmp_path / "scene.tif"), *words]) == 0
    out = tmp_path / "hits.geojson"
    search(tmp_path, capsys, "a bridge", "--geojson", str(out), "--html", str(tmp_path / "page.html"))
    found = json.loads(out.read_text())
    assert (tmp_path / "page.html").read_text().count("data:image/jpeg") == 4
    boxes = {tuple(feature["properties"]["pixel_box"]): feature["geometry"] for feature in found["features"]}
    assert set(boxes) == {(0, 0, 64, 64), (64, 0, 128, 64), (0, 32, 64, 96), (64, 32, 128, 96)}
    ring = boxes[64, 32, 128, 96]["coordinates"][0]
    if epsg == 4326:
        assert ring == [[42, 36], [74, 36], [74, 52], [42, 52], [42, 36]]  # counter-clockwise, closed
    else:  # in the system that RFC 7946 knows, whatever the scene's
        assert all(1.7 < lon < 1.8 and 45.1 < lat < 45.2 for lon, lat in ring) and len(ring) > 40
    assert "crs" not in found and not any("no_geometry" in feature["properties"] for feature in found["features"])
    (tmp_path / "scene.tif").unlink()
    search(tmp_path, capsys, "a bridge", "--geojson", str(out), "--html", str(tmp_path / "page.html"))
    assert all(feature["geometry"] is None for feature in json.loads(out.read_text())["features"])
    assert "no such file" in (tmp_path / "page.html").read_text()


def test_a_scene_without_a_coordinate_system_gives_its_pixel_box_and_a_message(tmp_path, tiny_folder, caplog):
    scene = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    write_raster(tmp_path / "scene.tif", scene, transform=Affine(30, 0, 400000, 0, -30, 5000000))
    words = ["--model", str(tiny_folder), "--out", str(tmp_path / "index"), "--tile", "0"]
    assert main(["index", str(tmp_path / "scene.tif"), *words]) == 0
    assert main(["search", str(tmp_path / "index"), "a bridge", "--geojson", str(tmp_path / "hits.geojson")]) == 0
    assert caplog.text.count("names no coordinate system; see pixel_box for the place of a hit") == 1
    (feature,) = json.loads((tmp_path / "hits.geojson").read_text())["features"]
    assert feature["geometry"] is None and "no coordinate system" in feature["properties"]["no_geometry"]


def test_an_empty_index_says_so(tmp_path, tiny_folder, capsys):
    Retriever.from_pretrained(tiny_folder).save(tmp_path / "empty")
    assert main(["search", str(tmp_path / "empty"), "a"]) == 0
    assert capsys.readouterr().out.strip() == "the index is empty"


def test_places_that_cannot_be_written_are_refused_before_the_search(index, capsys, tmp_path):
    for flag in ("--html", "--geojson"):
        assert "is a folder: name a file" in search(index, capsys, "a", flag, str(tmp_path), expected=2)
    assert "must be a number, not nan" in search(index, capsys, "a", "--cutoff", "nan", expected=2)


@pytest.mark.parametrize("family", [*FAMILIES, SENTENCE])
def test_any_dual_encoder_is_indexed_searched_and_updated(
    family, dual_folder, tiny_pictures, tmp_path, vsehub, vsehub_json
):
    (tmp_path / "photos").mkdir()
    for number, picture in enumerate(tiny_pictures[:4]):
        picture.save(tmp_path / "photos" / f"{number}.png")
    model, out, photos = dual_folder(family), tmp_path / "index", tmp_path / "photos"
    vsehub("index", photos, "--model", model, "--out", out, "--batch_size", "3", "--workers", "2")
    hits = vsehub_json("search", out, "a dog", "--k", "4")["hits"]
    retriever = Retriever.from_pretrained(model)
    cosines = retriever.encoder.encode_text(["a dog"]) @ retriever.encoder.encode_image(tiny_pictures[:4]).T
    assert [hit["score"] for hit in hits] == pytest.approx(cosines[0].sort(descending=True).values.tolist(), abs=1e-5)
    assert vsehub_json("search", out, "--image", photos / "2.png", "--k", "1")["hits"][0]["id"].endswith("2.png")
    tiny_pictures[4].save(photos / "4.png")
    done = vsehub_json("index", photos, "--out", out, "--update")
    assert (done["embedded"], done["unchanged"], done["rows"]) == (1, 4, 5)


def test_an_index_is_not_searched_with_another_model(dual_folder, tiny_pictures, tmp_path, vsehub):
    tiny_pictures[0].save(tmp_path / "a.png")
    vsehub("index", tmp_path / "a.png", "--model", dual_folder("clip"), "--out", tmp_path / "index")
    for other in ("siglip", SENTENCE):
        said = vsehub("search", tmp_path / "index", "a dog", "--model", dual_folder(other), status=2)
        assert "use that model, or make another index" in said


def test_an_index_of_pictures_and_texts_is_ranked_without_the_means(
    vsehub_json, make_tiny_model, tiny_processor, tiny_pictures, tiny_captions, tmp_path
):
    model = make_tiny_model()
    model.config.image_embeds_mean, model.config.text_embeds_mean = [0.1] * 16, [-0.1] * 16
    for part in (model, tiny_processor):
        part.save_pretrained(tmp_path / "model")
    retriever = Retriever.from_pretrained(tmp_path / "model")
    retriever.add_images(tiny_pictures)
    retriever.add_texts(tiny_captions)
    retriever.save(tmp_path / "both.index")
    for flags, means in (((), True), (("--no_means",), False)):
        hits = vsehub_json("search", tmp_path / "both.index", "a dog", *flags)["hits"]
        assert hits == [vars(hit) for hit in retriever.search("a dog", means=means)]
    assert retriever.search("a dog") != retriever.search("a dog", means=False)
