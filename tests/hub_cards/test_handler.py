"""The endpoint's handler: what it answers, and every request that it refuses before it decodes anything."""

import base64
import io
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from vsehub.hub_cards import handler as module
from vsehub.hub_cards.handler import EndpointHandler


@pytest.fixture(scope="module")
def handler(tiny_folder):
    return EndpointHandler(str(tiny_folder))


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def near(found, expected):
    torch.testing.assert_close(torch.tensor(found), expected.cpu(), atol=1e-5, rtol=0)


def test_embeddings_and_cosines_are_the_models(handler, tiny_model, tiny_processor, tiny_pictures, tiny_captions):
    images = tiny_model.encode_image(tiny_pictures, processor=tiny_processor)
    texts = tiny_model.encode_text(tiny_captions, processor=tiny_processor)
    sent = [encoded(picture) for picture in tiny_pictures]
    near(handler({"inputs": {"text": tiny_captions[0]}})["text_embeds"], texts[:1])
    near(handler({"inputs": {"image": sent}})["image_embeds"], images)
    lines = base64.encodebytes(base64.b64decode(sent[1])).decode()  # as the command `base64` writes it
    for form in ("data:image/png;base64," + sent[1], lines, lines.replace("\n", "\r\n")):
        near(handler({"inputs": {"image": form}})["image_embeds"], images[1:2])
    found = handler({"inputs": {"image": sent[:2], "text": tiny_captions}})
    assert list(found) == ["cosines"]
    near(found["cosines"], images[:2] @ texts.T)
    near(handler({"inputs": tiny_pictures[2]})["image_embeds"], images[2:3])  # the toolkit decoded the body


def test_labels_are_ranked_by_their_share(handler, tiny_pictures, tiny_captions, tiny_model, tiny_processor):
    request = {"inputs": {"image": encoded(tiny_pictures[0])}, "parameters": {"candidate_labels": tiny_captions}}
    found = handler(request)
    assert sorted(row["label"] for row in found) == sorted(tiny_captions)
    assert [row["score"] for row in found] == sorted((row["score"] for row in found), reverse=True)
    assert sum(row["score"] for row in found) == pytest.approx(1, abs=1e-5)
    cosines = (
        tiny_model.encode_image(tiny_pictures[:1], processor=tiny_processor)
        @ tiny_model.encode_text(tiny_captions, processor=tiny_processor).t()
    )
    expected = dict(zip(tiny_captions, (cosines[0] * tiny_model.config.logit_scale).softmax(0).tolist()))
    assert {row["label"]: row["score"] for row in found} == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (None, "inputs must be"),
        ({}, "inputs must be"),
        ({"inputs": "a dog"}, "inputs must be"),
        ({"inputs": {"audio": "x"}}, "inputs must be"),
        ({"inputs": {"text": []}}, "neither an image nor a text"),
        ({"inputs": {"text": "a"}, "parameters": [1]}, "parameters must be"),
        ({"inputs": {"text": "a"}, "parameters": []}, "parameters must be"),
        ({"inputs": {"text": "a"}, "parameters": {"candidate_label": ["a"]}}, "parameters must be"),
        ({"inputs": {"text": ["a", " "]}}, "text 1 must be a string with words"),
        ({"inputs": {"text": [3]}}, "text 0 must be a string with words"),
        ({"inputs": {"image": "https://example.org/a.png"}}, "addresses are not fetched"),
        ({"inputs": {"image": "/etc/passwd"}}, "no base64 of a whole picture"),
        ({"inputs": {"image": 5}}, "image 0 must be a base64 string"),
        ({"inputs": {"text": "a"}, "parameters": {"candidate_labels": ["b"]}}, "go with one image and no text"),
    ],
)
def test_a_request_of_another_kind_is_told_what_is_one(handler, request_, said):
    with pytest.raises(ValueError, match=said):
        handler(request_)


def test_an_error_counts_the_items_of_the_request_and_not_of_a_batch(handler):
    with pytest.raises(ValueError, match="text 20 is not Unicode"):
        handler({"inputs": {"text": ["a dog"] * 20 + ["\ud800"]}})


def test_a_model_that_lacks_a_weight_is_not_served(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "torn")
    weights = load_file(tmp_path / "torn" / "model.safetensors")
    lost = next(name for name in weights if name.startswith("text_pooling"))
    del weights[lost]
    save_file(weights, tmp_path / "torn" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"1 weights are not in the checkpoint .first: {lost}"):
        EndpointHandler(str(tmp_path / "torn"))


def test_labels_must_be_there(handler, tiny_pictures):
    image = encoded(tiny_pictures[0])
    for labels, said in (([], "candidate_labels is empty"), ([""], "candidate_labels 0 must be a string")):
        with pytest.raises(ValueError, match=said):
            handler({"inputs": {"image": image}, "parameters": {"candidate_labels": labels}})


@pytest.mark.parametrize(
    ("limit", "value", "inputs", "said"),
    [
        ("MOST", 2, {"text": ["a"] * 3}, "at most 2 texts a request, got 3"),
        ("MOST", 2, {"image": ["x"] * 3}, "at most 2 images a request, got 3"),
        ("CHARACTERS", 4, {"text": "a dog"}, "text 0 has 5 characters"),
        ("ALL_CHARACTERS", 6, {"text": ["a dog", "a cat"]}, "at most 6 characters a request"),
        ("LARGEST", 3, {"image": "a" * 9}, "image 0 must be a base64 string"),
        ("ENCODED", 8, {"image": ["aaaa", "aaaaa"]}, "MB of base64 a request"),
    ],
)
def test_a_request_has_limits(handler, monkeypatch, limit, value, inputs, said):
    monkeypatch.setattr(module, limit, value)
    with pytest.raises(ValueError, match=said):
        handler({"inputs": inputs})


@pytest.mark.parametrize(("image", "cost"), [(Image.new("RGB", (30, 20)), 600), (Image.new("I", (30, 20)), 4800)])
def test_pixels_are_counted_before_any_is_decoded(handler, monkeypatch, image, cost):
    monkeypatch.setattr(module, "PIXELS", cost - 1)
    with pytest.raises(ValueError, match=f"at most {cost - 1:,} pixels a request, got {cost:,}"):
        handler({"inputs": {"image": encoded(image, "TIFF")}})
    monkeypatch.setattr(module, "PIXELS", cost)
    assert handler({"inputs": {"image": encoded(image, "TIFF")}})["image_embeds"]


def test_half_a_picture_is_no_picture(handler, tiny_pictures):
    whole = base64.b64decode(encoded(tiny_pictures[3], "JPEG"))
    with pytest.raises(ValueError, match="image 1 is no base64 of a whole picture"):
        handler({"inputs": {"image": [encoded(tiny_pictures[0]), base64.b64encode(whole[: len(whole) // 2]).decode()]}})


def test_a_request_has_a_deadline(handler, tiny_pictures, tiny_captions, monkeypatch):
    clock = iter(range(0, 10_000, 7))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))  # each look at the clock takes 7 s
    requests = [
        {"inputs": {"image": [encoded(tiny_pictures[0])] * 12}},
        {"inputs": {"text": tiny_captions[:1] * 200}},
        {"inputs": {"image": encoded(tiny_pictures[0])}, "parameters": {"candidate_labels": tiny_captions[:1] * 200}},
    ]
    for request in requests:
        with pytest.raises(TimeoutError, match="more than 60 s: send fewer items"):
            handler(request)
    assert not handler.lock.locked()
    assert len(handler({"inputs": {"text": tiny_captions[:1] * 17}})["text_embeds"]) == 17


def test_a_request_that_waits_for_others_ends_at_its_deadline(handler, tiny_captions, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.2)
    with handler.lock, pytest.raises(TimeoutError, match="send it again later"):
        handler({"inputs": {"text": tiny_captions}})


def test_requests_of_several_threads_get_the_answers_of_one(handler, tiny_pictures, tiny_captions):
    requests = [{"inputs": {"text": " ".join(tiny_captions[: 1 + n % 3]), "image": None}} for n in range(6)]
    requests += [{"inputs": {"image": encoded(picture)}} for picture in tiny_pictures]
    requests += [
        {"inputs": {"image": [encoded(picture) for picture in tiny_pictures], "text": tiny_captions * 9}},
        {"inputs": {"image": encoded(tiny_pictures[1])}, "parameters": {"candidate_labels": tiny_captions}},
    ]
    alone = [handler(request) for request in requests]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(handler, requests * 3))
    assert together == alone * 3


def test_the_model_works_on_one_batch_at_a_time():
    inside = []

    class Model:
        def encode_text(self, texts, processor):
            inside.append(1)
            time.sleep(0.002)
            alone = len(inside) == 1
            inside.pop()
            return torch.full((len(texts), 1), float(alone))

    handler = EndpointHandler.__new__(EndpointHandler)
    handler.model, handler.processor = Model(), None
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(handler, [{"inputs": {"text": ["a"] * 20}}] * 16))
    assert all(row == [1.0] for answer in answers for row in answer["text_embeds"])
