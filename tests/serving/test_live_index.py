"""A changed index is taken over whole; what cannot be is served as it was."""

import json
import shutil
import threading
import time

import pytest
from datasets import Dataset
from served import client_of, service_of

from vsehub.search import collection
from vsehub.search.retriever import Retriever


@pytest.fixture
def own(tmp_path, photos, tiny_folder, vsehub_session):
    """A folder of three pictures, its index, and a function that updates it."""
    (tmp_path / "photos").mkdir()
    for number in range(3):
        shutil.copy(photos / f"{number}.png", tmp_path / "photos")

    def update(*names):
        for name in names:
            shutil.copy(photos / name, tmp_path / "photos")
        words = ["--model", tiny_folder, "--out", tmp_path / "index"]
        vsehub_session("index", tmp_path / "photos", *words, *(["--update"] if names else []))

    update()
    return tmp_path, update


def test_a_change_is_taken_over_and_ids_stay(own):
    folder, update = own
    with client_of(folder / "index") as client:
        live = client.service.live
        before = client.post("/search", json={"text": "a dog"}).json()
        assert before["rows"] == 3 and not live.refresh()
        update("3.png")
        assert live.refresh() and live.takeovers == 1 and not live.refresh()
        after = client.post("/search", json={"text": "a dog"}).json()
        assert after["rows"] == 4 and after["generation"] > before["generation"]
        assert {hit["id"] for hit in before["hits"]} < {hit["id"] for hit in after["hits"]}
        for hit in before["hits"]:
            assert client.get(hit["picture"]).status_code == 200
            assert client.post("/search", json={"like": hit["id"]}).status_code == 200


def test_a_data_set_is_read_once_for_all_its_pictures(tmp_path, photos, tiny_folder, vsehub_session, monkeypatch):
    rows = [{"image": {"bytes": (photos / f"{n}.png").read_bytes(), "path": None}} for n in range(3)]
    Dataset.from_list(rows).to_parquet(str(tmp_path / "rows.parquet"))
    vsehub_session("index", tmp_path / "rows.parquet", "--model", tiny_folder, "--out", tmp_path / "index")
    real, reads = collection.read_source, []
    monkeypatch.setattr(collection, "read_source", lambda *args, **names: reads.append(args) or real(*args, **names))
    with client_of(tmp_path / "index") as client:
        hits = client.post("/search", json={"text": "a dog"}).json()["hits"]
        assert [client.get(hit["picture"]).status_code for hit in hits] == [200] * 3 and len(reads) == 1
    (tmp_path / "rows.parquet").write_bytes(b"torn")
    with client_of(tmp_path / "index") as client:
        for _ in range(2):
            answer = client.get(hits[0]["picture"])
            assert answer.status_code == 404 and str(tmp_path) not in answer.text


def test_no_request_is_lost_while_an_index_changes(own):
    folder, update = own
    with client_of(folder / "index") as client:
        client.service.live.watch(0.02)
        answers, rows, done = [], set(), threading.Event()

        def ask():
            while not done.is_set():
                answers.append(client.post("/search", json={"text": "a dog"}))
                rows.add(answers[-1].json()["rows"])
                hit = answers[-1].json()["hits"][0]
                answers.append(client.get(hit["picture"]))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for there, name in enumerate(("3.png", "trip/4.png", "trip/5.png"), 4):
            update(name)
            until = time.monotonic() + 20
            while there not in rows and time.monotonic() < until:
                time.sleep(0.05)
        done.set()
        for thread in threads:
            thread.join(20)
        assert {answer.status_code for answer in answers} == {200} and len(answers) > 20
        searches = [answer.json() for answer in answers if answer.headers["content-type"] == "application/json"]
        assert all(len(found["hits"]) == found["rows"] for found in searches)  # of one state
        assert rows >= {3, 4, 5, 6} and client.service.live.takeovers >= 3


@pytest.mark.parametrize("how", ["damaged", "gone", "of another model"])
def test_what_cannot_be_taken_over_is_served_as_it_was(how, own, caplog, make_tiny_model, tiny_processor):
    folder, update = own
    with client_of(folder / "index") as client:
        live, manifest = client.service.live, folder / "index" / "manifest.json"
        kept = manifest.read_bytes()
        if how == "damaged":
            manifest.write_text("{")
        elif how == "gone":
            manifest.unlink()
        else:
            content = json.loads(kept)
            content["model"]["digest"] = "0" * 64
            manifest.write_text(json.dumps(content))
        assert not live.refresh() and not live.refresh() and live.takeovers == 0
        assert caplog.text.count("the index is served as it was") == 1
        assert client.get("/health").json()["index"] == "outdated"
        assert client.post("/search", json={"text": "a dog"}).json()["rows"] == 3
        manifest.write_bytes(kept)
        assert live.refresh() and client.get("/health").json()["index"] == "current"


def test_an_unforeseen_error_ends_no_later_look(own, monkeypatch):
    folder, update = own
    with client_of(folder / "index") as client:
        live = client.service.live
        update("3.png")
        with monkeypatch.context() as patch:
            patch.setattr("vsehub.serving.live_index.open_index", lambda place: {}["unforeseen"])
            assert not live.refresh() and client.get("/health").json()["index"] == "outdated"
        assert live.refresh() and client.get("/health").json()["index"] == "current"


def test_the_same_index_that_comes_back_is_current_again(own):
    folder, _ = own
    with client_of(folder / "index") as client:
        live = client.service.live
        (folder / "index").rename(folder / "away")
        assert not live.refresh() and client.get("/health").json()["index"] == "outdated"
        (folder / "away").rename(folder / "index")
        assert not live.refresh() and live.takeovers == 0
        assert client.get("/health").json()["index"] == "current"


def test_an_index_that_was_made_again_is_taken_over(own):
    folder, update = own
    service = service_of(folder / "index")
    shutil.rmtree(folder / "index")
    (folder / "photos" / "0.png").unlink()
    update()
    assert service.live.refresh() and len(service.live.now.index) == 2
    service.encoder.close()


def test_an_index_in_memory_is_served_as_it_is(tiny_folder, tiny_pictures):
    from vsehub.serving.live_index import LiveIndex

    retriever = Retriever.from_pretrained(tiny_folder)
    retriever.add_texts(["a dog"])
    live = LiveIndex(retriever)
    assert not live.refresh() and len(live.now.index) == 1


def test_ids_of_pictures_from_memory_outlive_the_server(tmp_path, tiny_folder, tiny_pictures):
    retriever = Retriever.from_pretrained(tiny_folder)
    retriever.add_images(tiny_pictures)
    retriever.save(tmp_path / "index")
    ids = []
    for _ in range(2):
        with client_of(tmp_path / "index") as client:
            ids.append([hit["id"] for hit in client.post("/search", json={"text": "a dog"}).json()["hits"]])
    assert ids[0] == ids[1] and len(ids[0]) == len(tiny_pictures)


@pytest.mark.parametrize("origin", [["a"], {}, 3, ""])
def test_a_name_that_is_none_stops_no_server(own, origin):
    path = own[0] / "index" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"origin": origin}))
    assert len(service_of(own[0] / "index").live.key) == 32
