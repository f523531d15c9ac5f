"""Answers are those of the retriever below, with ids and names that tell no path."""

import base64
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from served import base64_of, client_of, service_of
from transformers import AutoModel, AutoProcessor

from vsehub.search.retriever import Retriever
from vsehub.search.vector_index import VectorIndex
from vsehub.serving import server
from vsehub.serving.metrics import Metrics
from vsehub.serving.questions import Limits
from vsehub.serving.service import EXAMPLES, SIDES, examples_of


def search(client, **content):
    answer = client.post("/search", json=content)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_hits_are_those_of_the_retriever(client, retriever, tiny_pictures):
    picture, image = base64_of(tiny_pictures[2]), tiny_pictures[2]
    both = {"text": "a dog", "weight": 0.3, "k": 3}
    asked = [
        ({"text": "a dog"}, {"text": "a dog"}),
        ({"image": picture}, {"image": image}),
        ({**both, "image": picture}, {**both, "image": image}),
        (
            {"plus": ["a dog", {"image": picture, "weight": 2}], "minus": "a boat"},
            {"plus": ["a dog", (image, 2)], "minus": ["a boat"]},
        ),
        ({"text": "a dog", "cutoff": 0.05}, {"text": "a dog", "cutoff": 0.05}),
        ({"text": "a dog", "cutoff": 0.99}, {"text": "a dog", "cutoff": 0.99}),
    ]  # fmt: skip
    for given, same in asked:
        expected, hits = retriever.search(**same), search(client, **given)["hits"]
        assert [hit["score"] for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-5)
        assert [hit["name"].rpartition("/")[2] for hit in hits] == [hit.path.rpartition("/")[2] for hit in expected]


def test_a_hit_is_a_query(client, retriever):
    first = search(client, text="a dog")["hits"][0]
    like = search(client, like=first["id"], minus=["snow"])["hits"]
    item = next(hit.id for hit in retriever.search("a dog") if hit.id.endswith(first["name"]))
    expected = retriever.search(like=item, minus=["snow"])
    assert [hit["score"] for hit in like] == pytest.approx([hit.score for hit in expected], abs=1e-5)
    assert first["id"] not in [hit["id"] for hit in like]
    gone = client.post("/search", json={"like": "0" * 16})
    assert gone.status_code == 404 and "no item of the index has this id" in gone.text


def test_embeddings_have_the_shape_of_openai(client, retriever, tiny_pictures):
    texts = retriever.encoder.encode_text(["a dog", "two boats"]).numpy()
    image = retriever.encoder.encode_image([tiny_pictures[1]]).numpy()
    given = ["a dog", {"image": f"data:image/png;base64,{base64_of(tiny_pictures[1])}"}, {"text": "two boats"}]
    expected = np.stack([texts[0], image[0], texts[1]])
    for form in ("float", "base64"):
        answer = client.post("/v1/embeddings", json={"input": given, "encoding_format": form}).json()
        assert answer["object"] == "list" and [row["index"] for row in answer["data"]] == [0, 1, 2]
        rows = [row["embedding"] for row in answer["data"]]
        if form == "base64":
            rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
        np.testing.assert_allclose(np.array(rows), expected, atol=1e-5)
    tokens = len(retriever.encoder.tokenizer("a dog")["input_ids"]) + len(
        retriever.encoder.tokenizer("two boats")["input_ids"]
    )
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert client.get("/v1/models").json()["data"][0]["id"] == answer["model"]


def test_pictures_of_hits_are_served_small_and_without_metadata(client):
    hits = search(client, text="a dog")["hits"]
    assert len(hits) == 6
    for hit in hits:
        for side in SIDES:
            answer = client.get(hit["picture"], params={"side": side})
            assert answer.headers["content-type"] == "image/jpeg" and answer.content[:2] == b"\xff\xd8"
    assert client.get(hits[0]["picture"], params={"side": "5000"}).status_code == 400
    assert client.get("/pictures/" + "0" * 16).status_code == 404


def test_a_picture_that_is_gone_is_one_line_without_its_path(
    tmp_path, tiny_folder, tiny_pictures, vsehub_session, caplog
):
    (tmp_path / "photos").mkdir()
    tiny_pictures[0].save(tmp_path / "photos" / "a.png")
    vsehub_session("index", tmp_path / "photos", "--model", tiny_folder, "--out", tmp_path / "index")
    (tmp_path / "photos" / "a.png").unlink()
    with client_of(tmp_path / "index") as client:
        hit = search(client, text="a dog")["hits"][0]
        answer = client.get(hit["picture"])
        assert answer.status_code == 404 and "the server's log says why" in answer.text
        assert str(tmp_path) not in answer.text and "a.png" in caplog.text


def test_texts_of_an_index_have_no_picture(tmp_path, tiny_folder):
    retriever = Retriever.from_pretrained(tiny_folder)
    retriever.add_texts(["a dog in the snow", "a boat", "a very " + "long " * 20 + "caption"])
    retriever.save(tmp_path / "index")
    with client_of(tmp_path / "index") as client:
        hits = search(client, text="a dog")["hits"]
        assert {hit["picture"] for hit in hits} == {None} and hits[0]["caption"]
        service = client.service
        assert client.get(f"/pictures/{hits[0]['id']}").status_code == 404
        assert examples_of(service.live.now) == ["a dog in the snow", "a boat"]
        assert service.about()["examples"] == ["a dog in the snow", "a boat"]


def test_belief_is_laid_over_a_picture_where_the_model_has_one(tmp_path, photos, pir_folder, client, vsehub_session):
    hit = search(client, text="a dog")["hits"][0]
    assert not client.get("/about").json()["belief"] and client.get(f"/belief/{hit['id']}").status_code == 404
    vsehub_session("index", photos, "--model", pir_folder, "--out", tmp_path / "index")
    with client_of(tmp_path / "index") as other:
        assert other.get("/about").json()["belief"]
        hit = search(other, text="a dog")["hits"][0]
        answer = other.get(f"/belief/{hit['id']}")
        assert answer.headers["content-type"] == "image/jpeg"
        plain = Image.open(io.BytesIO(other.get(hit["picture"]).content)).convert("RGB")
        drawn = Image.open(io.BytesIO(answer.content)).convert("RGB")
        assert drawn.size == plain.size and np.abs(np.asarray(drawn, int) - np.asarray(plain, int)).mean() > 5
        assert other.get("/belief/" + "0" * 16).status_code == 404


def test_examples_and_the_name_of_the_model(index_folder, tiny_folder):
    service = service_of(index_folder, examples=("two boats",))
    assert service.about()["examples"] == ["two boats"] and examples_of(service.live.now) == list(EXAMPLES)
    assert service.model == tiny_folder.name
    service.encoder.close()


def test_captions_of_deleted_pictures_are_no_examples():
    index = VectorIndex()
    index.add(np.eye(12), [{"id": str(n), "caption": f"caption {n}"} for n in range(12)])
    index.delete(["0", "6"])
    shown = set(examples_of(SimpleNamespace(index=index)))
    assert len(shown) == 4 and shown <= {f"caption {n}" for n in range(12) if n not in (0, 6)}


def test_pixels_of_a_request_are_limited(index_folder):
    service = service_of(index_folder, Limits(pixels=1000))
    body = json.dumps({"image": base64_of(Image.new("RGB", (40, 40)))}).encode()
    with pytest.raises(ValueError, match="at most 1,000 pixels a request, got 1,600"):
        service.search(body)
    service.encoder.close()


def test_means_are_subtracted_once_and_not_where_the_server_was_told_so(tmp_path, tiny_folder, tiny_pictures):
    model = AutoModel.from_pretrained(tiny_folder)
    width = model.config.projection_dim
    model.config.image_embeds_mean, model.config.text_embeds_mean = [0.1] * width, [-0.1] * width
    retriever = Retriever(model, AutoProcessor.from_pretrained(tiny_folder))
    retriever.add_images(tiny_pictures)
    retriever.add_texts(["a dog", "two boats"])
    retriever.index.cutoff = {"text": -0.5}
    for means in (True, False):
        service = server.service_of(retriever, Metrics(), Limits(), means=means)
        state, answer = service.live.now, service.search(b'{"text": "a dog"}')
        assert state.subtracts_means
        expected = [hit.score for hit in retriever.search("a dog", means=means)]
        assert [hit["score"] for hit in answer["hits"]] == pytest.approx(expected, abs=1e-5)
        assert answer["cutoff"] == service.about()["cutoff"] == (None if means else -0.5)
        service.encoder.close()


def test_the_cut_off_of_the_model_is_named(index_folder):
    service = service_of(index_folder, Limits())
    numbers = {"rejected": 0.95, "kept": 0.8, "images": 300, "captions": 600, "queries": 140}
    for cosine, origin, hits in ((0.999, "model", 0), (None, None, 6)):
        service.encoder.config.text_cutoff = {"cosine": cosine, **numbers}
        answer, about = service.search(b'{"text": "a dog"}'), service.about()
        assert (answer["cutoff"], answer["cutoff_from"]) == (about["cutoff"], about["cutoff_from"]) == (cosine, origin)
        assert len(answer["hits"]) == hits
    service.encoder.config.text_cutoff = {"cosine": 0.999, **numbers}
    answer = service.search(b'{"text": "a dog", "cutoff": null}')
    assert answer["cutoff_from"] is None and len(answer["hits"]) == 6
    service.encoder.close()
