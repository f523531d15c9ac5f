"""Other engines take an index over and find what it finds: parquet, datasets with faiss, LanceDB, Qdrant."""

import json
import struct
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, load_dataset
from PIL import Image
from rasters import write_raster

from vsehub.__main__ import main
from vsehub.processing.places import Place
from vsehub.search.vector_index import VectorIndex


@pytest.fixture
def index(tmp_path):
    vectors = np.random.default_rng(0).standard_normal((300, 16))
    items = [{"id": f"photo {n}", "path": f"{n}.jpg", "box": [0, 0, n, n], "size": n} for n in range(300)]
    index = VectorIndex.create(tmp_path / "index", {"id": "org/model", "revision": None, "digest": "a" * 64})
    index.add(vectors, items)
    index.delete([f"photo {n}" for n in range(0, 300, 7)])
    return index


@pytest.fixture
def query():
    found = np.random.default_rng(1).standard_normal(16).astype(np.float32)
    return found / np.linalg.norm(found)


@pytest.fixture
def expected(index, query):
    return [item["id"] for item in index.items(index.search(query[None], 10)[0][0])]


@pytest.fixture
def parquet(index, tmp_path, capsys):
    out = tmp_path / "vectors.parquet"
    assert main(["index", "export", str(index.folder), "--to", "parquet", "--out", str(out)]) == 0
    assert f"{len(index)} rows of 16" in capsys.readouterr().out
    return str(out)


def test_parquet_holds_every_row_and_vector(index, parquet):
    table = pq.read_table(parquet)
    assert len(table) == len(index) == 257
    vectors, items = next(index.batches())
    assert table["id"].to_pylist() == items["id"].to_pylist()
    assert np.array_equal(np.stack(table["vector"].to_numpy()), vectors)


def test_datasets_own_faiss_column_finds_the_same(parquet, query, expected, tmp_path):
    faiss = pytest.importorskip("faiss")
    rows = load_dataset("parquet", data_files=parquet, split="train")
    rows.add_faiss_index("vector", metric_type=faiss.METRIC_INNER_PRODUCT)
    assert rows.get_nearest_examples("vector", query, 10).examples["id"] == expected
    rows.save_faiss_index("vector", tmp_path / "column.faiss")


def test_datasets_takes_the_mapped_vectors_as_external_arrays(index, query, expected):
    faiss = pytest.importorskip("faiss")
    index.compact()
    vectors, items = next(index.batches())
    rows = Dataset(items)
    rows.add_faiss_index_from_external_arrays(
        np.asarray(vectors), index_name="vector", metric_type=faiss.METRIC_INNER_PRODUCT
    )
    assert rows.get_nearest_examples("vector", query, 10).examples["id"] == expected


def test_lancedb_finds_the_same(index, query, expected, tmp_path, capsys):
    lancedb = pytest.importorskip("lancedb")
    for _ in range(2):  # the second time in place of the first
        assert main(["index", "export", str(index.folder), "--to", "lance", "--out", str(tmp_path / "lance")]) == 0
    table = lancedb.connect(str(tmp_path / "lance")).open_table("images")
    assert table.count_rows() == 257
    found = table.search(query).distance_type("cosine").limit(10).to_list()
    assert [row["id"] for row in found] == expected and found[0]["box"][0] == 0


def test_qdrant_finds_the_same(parquet, query, expected):
    qdrant = pytest.importorskip("qdrant_client")
    models, client = qdrant.models, qdrant.QdrantClient(":memory:")
    table = pq.read_table(parquet)
    size = table.schema.field("vector").type.list_size
    client.create_collection("images", models.VectorParams(size=size, distance=models.Distance.COSINE))
    rows = table.drop_columns("vector").to_pylist()
    client.upload_collection("images", vectors=np.stack(table["vector"].to_numpy()), payload=rows)
    found = client.query_points("images", query=query.tolist(), limit=10).points
    assert [point.payload["id"] for point in found] == expected


def test_an_empty_index_is_not_exported(tmp_path, capsys):
    VectorIndex.create(tmp_path / "index")
    assert main(["index", "export", str(tmp_path / "index"), "--out", str(tmp_path / "x")]) == 2
    assert "is empty" in capsys.readouterr().err


def test_a_missing_engine_is_named_with_its_extra(index, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert main(["index", "export", str(index.folder), "--to", "lance", "--out", str(tmp_path / "db")]) == 2
    assert 'pip install "vsehub[lance]"' in capsys.readouterr().err
    assert main(["index", str(tmp_path), "--model", "m", "--out", str(tmp_path / "x"), "--kind", "hnsw"]) == 2
    assert 'pip install "vsehub[index]"' in capsys.readouterr().err
    assert len(VectorIndex.open(index.folder).search(np.eye(16)[:1], 3)[0][0]) == 3  # numpy searches


def test_a_place_that_cannot_be_written_is_one_line(index, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    for words, said in [
        (["index", "export", str(index.folder), "--out", str(tmp_path)], "is a folder: name a file"),
        (["index", "export", str(index.folder), "--to", "lance", "--out", str(tmp_path / "file")], "not a folder"),
    ]:
        assert main(words) == 2
        said_line = capsys.readouterr().err
        assert said in said_line and len(said_line.splitlines()) == 1
    assert not list(tmp_path.parent.glob("*.tmp"))


def test_geoparquet_holds_outlines_vectors_and_the_model(tmp_path, tiny_folder, capsys):
    affine = pytest.importorskip("affine", reason="the extra `geo` is not installed")
    folder, out = tmp_path / "scenes", tmp_path / "hits.parquet"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, place in {"here.tif": {"crs": "EPSG:32631", "transform": affine.Affine(30, 0, 4e5, 0, -30, 5e6)},
                        "fiji.tif": {"crs": "EPSG:4326", "transform": affine.Affine(0.1, 0, 177, 0, -0.1, -16)},
                        "nowhere.tif": {}}.items():  # fmt: skip
        write_raster(folder / name, random.integers(0, 255, (32, 64, 3), dtype=np.uint8), **place)
    Image.new("RGB", (20, 20), "red").save(folder / "photo.jpg")
    words = ["--model", str(tiny_folder), "--out", str(tmp_path / "index"), "--tile", "32", "--overlap", "0"]
    assert main(["index", str(folder), *words]) == 0
    assert main(["index", "export", str(tmp_path / "index"), "--to", "geoparquet", "--out", str(out)]) == 0
    table, index = pq.read_table(out), VectorIndex.open(tmp_path / "index")
    rows = {row["id"].rsplit("/", 1)[1]: row for row in table.to_pylist()}
    assert len(rows) == len(index) and rows["photo.jpg"]["geometry"] is None
    assert {row["model_id"] for row in rows.values()} == {str(tiny_folder)} and {
        len(row["vector"]) for row in rows.values()
    } == {16}
    assert {row["model_digest"] for row in rows.values()} == {index.model["digest"]}
    geo = json.loads(table.schema.metadata[b"geo"])
    column = geo["columns"]["geometry"]
    assert geo["version"] == "1.1.0" and geo["primary_column"] == "geometry" and column["encoding"] == "WKB"
    assert column["geometry_types"] == ["MultiPolygon", "Polygon"] and column["bbox"][0] == -180 and "crs" not in column
    scene = rows["here.tif#0,0,32,32"]
    expected = Place(scene["path"]).geometry(scene["box"])
    order, kind, rings, points = struct.unpack_from("<BIII", scene["geometry"])
    assert (order, kind, rings) == (1, 3, 1) and len(scene["geometry"]) == 13 + 16 * points
    assert np.array_equal(np.frombuffer(scene["geometry"][13:]).reshape(-1, 2), expected["coordinates"][0])
    assert struct.unpack_from("<BII", rows["fiji.tif#32,0,64,32"]["geometry"]) == (1, 3, 1)
    assert any(struct.unpack_from("<BII", row["geometry"])[1:] == (6, 2) for row in rows.values() if row["geometry"])
