"""An index from a stranger shows no picture of this machine, and asks no other machine for anything."""

import json
import shutil
import urllib.request

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from huggingface_hub import HfApi
from watch_network import watched_network

from vsehub.__main__ import main
from vsehub.processing.pixels import BadImageError
from vsehub.search.collection import Collection
from vsehub.search.index_segments import SCHEMA
from vsehub.search.index_store import IndexFolderError
from vsehub.search.pages import html_page, picture_opener
from vsehub.search.retriever import Hit, Retriever
from vsehub.search.vector_index import VectorIndex

UNNAMED = "--images FOLDER"


@pytest.fixture
def photos(tmp_path, tiny_pictures):
    """A folder of one picture, and one picture outside."""
    (tmp_path / "photos").mkdir()
    tiny_pictures[0].save(tmp_path / "photos" / "a.png")
    tiny_pictures[1].save(tmp_path / "private.png")
    return tmp_path / "photos"


@pytest.fixture
def crafted(tmp_path, tiny_model, tiny_processor, tiny_folder):
    """A function: items, sources -> the folder of an index that nobody made on this machine."""

    def make(items, sources=None, **facts):
        index = VectorIndex(Retriever(tiny_model, tiny_processor).made_by | {"id": str(tiny_folder)})
        index.add(np.eye(len(items), tiny_model.config.projection_dim, dtype=np.float32), items)
        index.sources = sources or {}
        index.save(folder := tmp_path / "received")
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | facts))
        return folder

    return make


def page_of(folder, *more):
    """The page of a search."""
    page = folder.parent / "page.html"
    assert main(["search", str(folder), "a dog", "--html", str(page), *map(str, more)]) == 0
    return page.read_text()


def item(path, collection=None, **more):
    return {"id": "a", "path": str(path), "modality": "image", "collection": collection} | more


# --- pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["a collection", "a file that is a collection", "by its path", "no such collection"])
def test_a_crafted_manifest_shows_no_picture_of_this_machine(how, crafted, photos):
    data = photos / "a.png" if how == "a file that is a collection" else photos
    sources = {} if how in ("by its path", "no such collection") else {"x": Collection(str(data)).settings}
    folder = crafted([item(photos / "a.png", None if how == "by its path" else "x")], sources)
    page = page_of(folder)
    assert "data:image" not in page and UNNAMED in page and "<small>a</small>" in page
    page = page_of(folder, "--images", photos)
    assert "data:image" in page and UNNAMED not in page


def test_a_crafted_table_shows_no_picture_of_this_machine(crafted, photos, tmp_path):
    rows = tmp_path / "mine.parquet"
    Dataset.from_list([{"image": {"path": None, "bytes": (photos / "a.png").read_bytes()}}]).to_parquet(str(rows))
    sources = {"x": {"data": str(rows), "split": "train", "tile": None, "overlap": None}}
    folder = crafted([item("", "x", row=0, id=f"{rows}:train:0")], sources)
    assert "data:image" not in page_of(folder)
    assert "data:image" in page_of(folder, "--images", rows)
    Dataset.from_list([{"image": str(tmp_path / "private.png")}]).to_parquet(str(rows))  # a table that names a file
    page = page_of(folder, "--images", rows)
    assert "data:image" not in page and UNNAMED in page
    assert "data:image" in page_of(folder, "--images", rows, "--images", tmp_path / "private.png")


def test_the_name_of_another_index_opens_the_folders_of_that_index_alone(crafted, photos, tmp_path):
    mine = VectorIndex()
    mine.allow([str(photos)])
    mine.save(tmp_path / "mine")
    for origin in ("0" * 32, "../" + mine.origin, [mine.origin], {"a": 1}, 3):
        folder = crafted([item(photos / "a.png")], origin=origin)
        assert "data:image" not in page_of(folder), origin
        shutil.rmtree(folder)
    folder = crafted([item(tmp_path / "private.png")], origin=mine.origin)  # somebody who saw mine
    assert "data:image" not in page_of(folder)


def test_an_index_that_was_made_here_needs_no_flag(photos, tiny_folder, tmp_path, caplog):
    words = ["index", str(photos), "--model", str(tiny_folder), "--out", str(tmp_path / "index")]
    assert main(words) == 0
    assert page_of(tmp_path / "index").count("data:image") == 1 and UNNAMED not in caplog.text
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    manifest.pop("origin")  # of an earlier version: one update and it is known
    (tmp_path / "index" / "manifest.json").write_text(json.dumps(manifest))
    assert "data:image" not in page_of(tmp_path / "index") and caplog.text.count(UNNAMED) == 1
    assert main([*words, "--update"]) == 0
    assert "data:image" in page_of(tmp_path / "index")


def test_one_that_is_made_in_python_needs_no_flag(photos, tiny_folder, tmp_path):
    retriever = Retriever.from_pretrained(tiny_folder)
    retriever.add_images([photos / "a.png"])
    assert picture_opener(retriever.index)(retriever.search("a dog")[0]).size
    retriever.save(tmp_path / "index")
    retriever.add_images([tmp_path / "private.png"])  # into the folder
    assert page_of(tmp_path / "index").count("data:image") == 2


def test_updating_a_received_index_names_what_the_user_named_alone(crafted, photos, tmp_path):
    folder = crafted([item(tmp_path / "private.png")])
    assert main(["index", str(photos), "--out", str(folder), "--update"]) == 0
    page = page_of(folder)
    assert page.count("data:image") == 1 and page.count(UNNAMED) == 1


def opened(photos, path, data=None, images=None):
    """Open a hit's picture as a page does."""
    index = VectorIndex()
    index.sources = {"here": {**Collection(str(photos)).settings, "data": str(data or photos)}}
    hit = Hit("id", 1.0, path=path and str(path), modality="image", collection="here")
    return picture_opener(index, [str(photos if images is None else images)])(hit)


def test_a_page_shows_what_lies_in_the_collection(photos):
    assert opened(photos, photos / "a.png").size
    assert opened(photos, photos / "a.png", data=photos / "a.png", images=photos / "a.png").size


@pytest.mark.parametrize("path", ["private.png", "photos/../private.png", "photos/link.png", "/etc/passwd", None])
def test_a_page_shows_nothing_else(path, photos, tmp_path):
    (photos / "link.png").symlink_to(tmp_path / "private.png")
    with pytest.raises(BadImageError, match=UNNAMED):
        opened(photos, path and tmp_path / path)


def test_a_picture_that_became_a_link_after_indexing_is_not_followed(photos, tmp_path):
    index = VectorIndex()
    index.allow([str(photos)])
    hit = Hit("id", 1.0, path=str(photos / "a.png"), modality="image")
    assert picture_opener(index)(hit).size
    (photos / "a.png").unlink()
    (photos / "a.png").symlink_to(tmp_path / "private.png")
    with pytest.raises(BadImageError, match=UNNAMED):
        picture_opener(index)(hit)


def test_the_page_says_why_a_picture_is_not_there(photos, tmp_path):
    hit = Hit("<b>id</b>", 1.0, path=str(tmp_path / "private.png"), modality="image", collection="here")
    page = html_page("q", [hit], picture_opener(VectorIndex(), [str(photos)]))
    assert UNNAMED in page and "data:image" not in page and "<b>id" not in page


def test_a_scene_elsewhere_tells_no_place(crafted, tmp_path):
    affine = pytest.importorskip("affine", reason="the extra `geo` is not installed")
    from rasters import write_raster

    scene, out = tmp_path / "scene.tif", tmp_path / "out"
    write_raster(
        scene, np.zeros((2, 4, 3), np.uint8), crs="EPSG:4326", transform=affine.Affine(0.5, 0, 10, 0, -0.5, 60)
    )
    folder = crafted([item(scene)])
    for images in ([], ["--images", str(tmp_path)]):
        assert main(["search", str(folder), "a dog", "--geojson", str(out), *images]) == 0
        assert (json.loads(out.read_text())["features"][0]["geometry"] is not None) == bool(images)
        assert main(["index", "export", str(folder), "--to", "geoparquet", "--out", str(out), *images]) == 0
        assert (pq.read_table(out)["geometry"].to_pylist()[0] is not None) == bool(images)


# --- network -----------------------------------------------------------------------------------------------------

ADDRESSES = [
    "http://{}/a.png", "https://{}/a.tif", "/vsicurl/http://{}/a.tif", "hf://datasets/org/x/a.png", "s3://bucket/a.png",
    "\\\\{}\\share\\a.png", "//{}/share/a.png", "file:///etc/passwd", "file://{}/a.png", "zip://a.png::http://{}/a.zip",
    "http://{}/x.parquet", "hf://datasets/org/x", "org/dataset", "simplecache::http://{}/x.jsonl", "ftp://{}/x.json",
]  # fmt: skip


def test_the_watch_sees(monkeypatch):
    with watched_network(monkeypatch) as watch:
        with pytest.raises(OSError):
            urllib.request.urlopen(f"http://{watch.address}/a")
        assert watch.requests == ["/a"] and watch.hosts
        with pytest.raises(Exception, match="no such host"):
            HfApi().dataset_info("org/dataset")
        assert any("huggingface" in str(host) for host in watch.hosts)


@pytest.mark.parametrize("where", ["item", "source", "table"])
def test_no_verb_fetches_what_an_index_names(where, crafted, photos, tmp_path, capsys, monkeypatch):
    with watched_network(monkeypatch) as watch:
        items, sources = [], {}
        for address in (address.replace("{}", watch.address) for address in ADDRESSES):
            path, data = (address, str(photos)) if where == "item" else (str(photos / "a.png"), address)
            items.append(item(path, address, id=address, row=0 if where == "table" else None))
            split = "train" if where == "table" else None
            sources[address] = {"data": data, "split": split, "tile": None, "overlap": None, "image_root": address}
        folder = crafted(items, sources)
        words = ["--html", tmp_path / "page.html", "--geojson", tmp_path / "out.json", "--images", photos]
        assert main(["search", str(folder), "a dog", "--k", "99", *map(str, words)]) == 0
        shown = len(ADDRESSES) if where == "source" else 0  # a picture that the user named, whatever its source
        assert (tmp_path / "page.html").read_text().count("data:image") == shown
        for kind in ("parquet", "geoparquet"):
            out = str(tmp_path / f"out.{kind}")
            images = ["--images", str(photos)] if kind == "geoparquet" else []
            assert main(["index", "export", str(folder), "--to", kind, "--out", out, *images]) == 0
        assert main(["index", str(photos), "--out", str(folder), "--update"]) == 0
        assert watch.seen == [], capsys.readouterr().err


@pytest.mark.parametrize("model", ["http://{}/model", "//{}/share", "\\\\{}\\share", "hf://org/model", "file://{}/m"])
@pytest.mark.parametrize("verb", ["search", "index --update", "calibrate"])
def test_no_verb_fetches_a_model_by_its_address(verb, model, crafted, photos, tmp_path, capsys, monkeypatch):
    with watched_network(monkeypatch) as watch:
        folder = crafted([item(photos / "a.png")])
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["model"]["id"] = model.replace("{}", watch.address)
        (folder / "manifest.json").write_text(json.dumps(manifest))
        (photos / "metadata.jsonl").write_text('{"file_name": "a.png", "captions": ["a dog"]}\n')
        words = {
            "search": ["search", folder, "a dog"],
            "index --update": ["index", photos, "--out", folder, "--update"],
            "calibrate": ["index", "calibrate", folder, "--data", photos, "--split", "train"],
        }
        assert main(list(map(str, words[verb]))) == 2
        assert "give --model" in capsys.readouterr().err and watch.seen == []


# --- tables ------------------------------------------------------------------------------------------------------

TABLES = {
    "another column": {"name": ["a"]},
    "numbers for texts": {name: [1] for name in SCHEMA.names},
    "lists for texts": {name: [["a"]] for name in SCHEMA.names},
    "more rows": {name: pa.nulls(3, SCHEMA.field(name).type) for name in SCHEMA.names},
    "no rows": {name: pa.nulls(0, SCHEMA.field(name).type) for name in SCHEMA.names},
}


@pytest.mark.parametrize("kind", [*TABLES, "text", "empty"])
def test_a_crafted_table_of_items_is_one_line(kind, crafted, photos, capsys):
    folder = crafted([item(photos / "a.png")])
    path = next(folder.glob("items-*.parquet"))
    if kind in TABLES:
        pq.write_table(pa.table(TABLES[kind]), path)
    else:
        path.write_bytes(b"" if kind == "empty" else b"PAR1 text")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][path.name] = path.stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert main(["search", str(folder), "a dog"]) == 2
    assert len([line for line in capsys.readouterr().err.splitlines() if line.startswith("vsehub search")]) == 1
    with pytest.raises(IndexFolderError):
        VectorIndex.open(folder).column("id")
