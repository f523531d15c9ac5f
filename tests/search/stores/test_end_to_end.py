"""The verbs over an index in a database do and say what they do over a folder."""

import json
import os
import shutil

import pytest
from datasets import Dataset
from served import client_of

from vsehub.search import refresh
from vsehub.search.retriever import Retriever
from vsehub.search.stores.places import open_index, reports_at
from vsehub.search.vector_index import VectorIndex


@pytest.fixture
def photos(tmp_path, tiny_pictures):
    """Six pictures, and one that cannot be read."""
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for number, picture in enumerate(tiny_pictures):
        picture.save(tmp_path / "photos" / ("more" if number % 2 else ".") / f"{number}.png")
    (tmp_path / "photos" / "torn.png").write_bytes(b"torn")
    return tmp_path / "photos"


def ids(index):
    return sorted(os.path.basename(name) for name, alive in zip(index.column("id"), index.alive) if alive)


@pytest.mark.slow
def test_index_search_update_calibrate_and_export(vsehub, photos, address, tiny_folder, tiny_pictures, tmp_path):
    folder = tmp_path / "local"
    words = ("index", photos, "--model", tiny_folder, "--out")
    said = vsehub(*words, address)
    assert said.startswith(f"{address}: 6 rows; 6 embedded") and str(reports_at(address)) in said
    assert (reports_at(address) / "bad_samples.jsonl").exists()
    assert "holds an index: --update" in vsehub(*words, address, status=2)
    vsehub(*words, folder)
    queries = [
        ("a dog", "--k", "3"),
        ("a dog", "--plus", "a boat:0.5", "--minus", "a cat", "--path", "more/*"),
        ("a dog", "--where", f"size > {(photos / '0.png').stat().st_size} and modality == 'image'"),
        ("--like", photos / "2.png", "--html", tmp_path / "page.html", "--geojson", tmp_path / "hits.geojson"),
    ]
    for query in queries:
        expected, got = (json.loads(vsehub("search", index, *query, "--json")) for index in (folder, address))
        assert got == expected and got["hits"]
    assert "data:image" in (tmp_path / "page.html").read_text()  # its pictures may be shown
    (photos / "0.png").unlink()
    tiny_pictures[5].save(photos / "2.png")
    said = vsehub("index", photos, "--out", address, "--update")
    assert "5 rows; 1 embedded, 4 unchanged, 1 removed; 1 bad" in said
    pairs = [{"image": {"bytes": (photos / "2.png").read_bytes(), "path": None}, "captions": ["a dog"]}] * 2
    Dataset.from_list(pairs).to_parquet(str(tmp_path / "pairs.parquet"))
    off_topic = tmp_path / "off_topic.txt"
    off_topic.write_text("tax return")
    data = ("--data", tmp_path / "pairs.parquet", "--off_topic", off_topic, "--force", "--reject_share", "1")
    vsehub("index", "calibrate", address, *data)
    assert json.loads(vsehub("search", address, "tax return", "--json"))["hits"] == []
    vsehub("index", "export", address, "--out", tmp_path / "vectors.parquet")
    vsehub("index", "export", address, "--to", "geoparquet", "--out", tmp_path / "places.parquet")
    assert "6 rows" in vsehub("index", "export", folder, "--out", f"{address}2")
    assert ids(open_index(f"{address}2")) == ids(VectorIndex.open(folder))


def test_a_job_that_is_stopped_goes_on(vsehub, photos, address, tiny_folder, monkeypatch):
    monkeypatch.setattr(refresh, "SAVED_AT_ONCE", 2)
    real, calls = refresh._embedded, []

    def dying(*args):
        calls.append(1)
        if len(calls) in (1, 3):
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(refresh, "_embedded", dying)
    words = ("index", photos, "--model", tiny_folder, "--out", address)
    for _ in range(2):
        assert "interrupted" in vsehub(*words, status=130)
    assert len(ids(open_index(address))) == 2 and open_index(address).unfinished
    assert "6 rows; 4 embedded, 2 unchanged" in vsehub(*words)
    assert not open_index(address).unfinished


def test_what_fits_only_a_folder_is_refused_in_one_line(
    vsehub, photos, address, tiny_folder, make_tiny_model, monkeypatch
):
    words = ("index", photos, "--model", tiny_folder, "--out", address)
    assert "leave out --vectors int8" in vsehub(*words, "--vectors", "int8", status=2)
    said = vsehub("search", address, "a dog", status=2)
    assert said.count("\n") == 1 and f"{address} holds no index: make one with `vsehub index`" in said
    vsehub(*words)
    with monkeypatch.context() as patch:  # the index that was checked is the one that is searched
        patch.setattr("vsehub.search.retriever.open_index", lambda *place: 1 / 0)
        said = json.loads(vsehub("search", address, "a dog", "--where", "size > 0", "--k", "2", "--json"))
    assert len(said["hits"]) == 2
    assert "the index has no field 'colour'" in vsehub("search", address, "a dog", "--where", "colour == 1", status=2)
    with pytest.raises(ValueError, match="was made with"):
        Retriever(make_tiny_model(seed=1), Retriever.open(address).processor, open_index(address))


def test_a_server_takes_a_change_over(vsehub, photos, address, tiny_folder, tmp_path):
    moved = tmp_path / "later"
    moved.mkdir()
    shutil.move(photos / "0.png", moved)
    vsehub("index", photos, "--model", tiny_folder, "--out", address)
    with client_of(address) as client:
        live = client.service.live
        before = client.post("/search", json={"text": "a dog"}).json()
        assert before["rows"] == 5 and not live.refresh()
        shutil.move(moved / "0.png", photos)
        vsehub("index", photos, "--out", address, "--update")
        assert live.refresh() and not live.refresh()
        after = client.post("/search", json={"text": "a dog"}).json()
        assert after["rows"] == 6 and {hit["id"] for hit in before["hits"]} < {hit["id"] for hit in after["hits"]}
        assert client.get(after["hits"][0]["picture"]).status_code == 200
        assert client.post("/search", json={"like": before["hits"][0]["id"]}).status_code == 200


def test_a_search_without_conditions_reads_no_column(address, tiny_model, tiny_processor, tiny_pictures, monkeypatch):
    retriever = Retriever(tiny_model, tiny_processor)
    retriever.add_images(tiny_pictures[:3])
    retriever.save(address)
    again = Retriever(tiny_model, tiny_processor, open_index(address))
    monkeypatch.setattr("vsehub.search.stores.table_snapshot.TableSnapshot._loaded", lambda self, name: 1 / 0)
    assert len(again.search(text="a dog")) == 3
    assert [hit.id for hit in again.search(like="image-1", plus=["a dog"])] != ["image-1"]
    with pytest.raises(ZeroDivisionError):
        again.search(text="a dog", where="size > 1")


def test_a_retriever_in_memory_is_saved_there(address, tiny_model, tiny_processor, tiny_pictures):
    retriever = Retriever(tiny_model, tiny_processor)
    retriever.add_images(tiny_pictures[:3])
    retriever.save(address)
    retriever.add_texts(["a dog", "a boat"])
    assert ids(open_index(address)) == ["image-0", "image-1", "image-2", "text-0", "text-1"]
    again = Retriever(tiny_model, tiny_processor, open_index(address))
    assert [hit.id for hit in again.search(text="a dog", among="text")][0] == "text-0"
