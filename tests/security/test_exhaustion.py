"""A small request, file or caption cannot ask for much memory or time: limits are looked at before the work."""

import base64
import io
import struct
import time

import numpy as np
import pytest
import torch
from PIL import Image

from vsehub.data.leakage import LIKELIEST, find_leaks, prints_of
from vsehub.evaluation import rouge
from vsehub.hub_cards import handler
from vsehub.hub_cards.handler import EndpointHandler


class Model:
    """Stands in for a model; whatever reaches it was let through."""

    def encode_text(self, texts, processor):
        return torch.ones(len(texts), 2)

    def encode_image(self, images, processor):
        return torch.ones(len(images), 2)


@pytest.fixture
def endpoint():
    """An endpoint without weights."""
    made = EndpointHandler.__new__(EndpointHandler)
    made.model, made.processor = Model(), None
    return made


def encoded(image, kind="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def png_header(width, height, depth=8, colour=2) -> bytes:
    """A PNG that declares a size and holds no pixel."""
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    data = encoded(Image.new("RGB", (64, 64), "red"), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def large_tile() -> bytes:
    """A TIFF of 16 x 16 pixels in one tile of 60,000 x 60,000."""
    entries = [
        (256, 4, 16), (257, 4, 16), (258, 3, 8), (259, 3, 1), (262, 3, 1), (277, 3, 1),
        (322, 4, 60000), (323, 4, 60000), (324, 4, 8), (325, 4, 64),
    ]  # fmt: skip
    body = struct.pack("<H", len(entries))
    for tag, kind, value in entries:
        body += struct.pack("<HHII", tag, kind, 1, value)
    return b"II*\0" + struct.pack("<I", 8) + body + struct.pack("<I", 0) + b"\0" * 64


HEAVY = {
    "a long text": ({"text": "a" * (handler.CHARACTERS + 1)}, "characters"),
    "10 MB of text": ({"text": "dog " * 2_500_000}, "characters"),
    "many long texts": ({"text": ["a" * handler.CHARACTERS] * 21}, "characters a request"),
    "many texts": ({"text": ["a"] * (handler.MOST + 1)}, "at most 256 texts"),
    "many images": ({"image": ["a"] * (handler.MOST + 1)}, "at most 256 images"),
    "a large image": ({"image": "a" * (handler.LARGEST * 4 // 3 + 1)}, "at most 20 MB"),
    "many large images": ({"image": ["a" * 2_000_000] * 51}, "base64 a request"),
    "declared pixels": ({"image": base64_of(png_header(20_000, 8_000))}, "pixels a request"),
    "16-bit pixels": ({"image": base64_of(png_header(6_000, 6_000, 16, 0))}, "pixels a request"),
    "many declared": ({"image": [base64_of(png_header(8_000, 8_000))] * 3}, "pixels a request"),
    "scans": ({"image": base64_of(many_scans(2_000))}, "scans"),
    "some scans": ({"image": base64_of(many_scans(handler.SCANS + 1))}, "scans"),
    "a large tile": ({"image": base64_of(large_tile())}, "pixels a request"),
    "labels": (
        {"image": base64_of(encoded(Image.new("RGB", (8, 8))))},
        "characters",
        {"candidate_labels": ["a" * 20_000]},
    ),
}


@pytest.mark.parametrize("kind", HEAVY)
def test_the_endpoint_refuses_before_the_work(kind, endpoint):
    inputs, words, *parameters = HEAVY[kind]
    start = time.perf_counter()
    with pytest.raises(ValueError, match=words):
        endpoint({"inputs": inputs, "parameters": parameters[0] if parameters else {}})
    assert time.perf_counter() - start < 2


WRONG = [None, 3, "text", [], {}, {"inputs": None}, {"inputs": []}, {"inputs": {"url": "http://x"}}, {"inputs": {}}]
WRONG += [{"inputs": {"text": value}} for value in (3, {}, [None], [3], [""], "  ", [["a"]], True)]
WRONG += [{"inputs": {"image": value}} for value in (3, {}, [None], "/etc/passwd", "http://x/y.png", "====", "", [""])]
WRONG += [
    {"inputs": {"image": base64_of(data)}}
    for data in (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"<svg/>",
        b"GIF89a",
        b"\xff\xd8\xff",
        b"\0" * 99,
    )
]
WRONG += [{"inputs": {"text": "a"}, "parameters": value} for value in ([1], "x", {"candidate_labels": ["a"]})]


@pytest.mark.parametrize("request_", WRONG, ids=range(len(WRONG)))
def test_the_endpoint_answers_a_wrong_request_with_one_error(request_, endpoint):
    with pytest.raises(ValueError):
        endpoint(request_)


def test_the_endpoint_answers_what_is_within_the_limits(endpoint):
    picture = Image.new("RGB", (64, 64), "red")
    images = [encoded(picture, kind) for kind in ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP")]
    images += [encoded(picture, "JPEG", progressive=True), encoded(Image.new("I;16", (64, 64), 900))]
    answer = endpoint({"inputs": {"image": [base64_of(data) for data in images], "text": ["a" * 10_000]}})
    assert len(answer["cosines"]) == len(images)


def picture(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((64, 64), 3)


def test_equal_pictures_are_one_group():
    same = [{"image": encoded(picture(0))}] * 1000
    found = find_leaks(prints_of([*same, {"image": encoded(picture(1))}], "a"), prints_of(same, "b"))
    assert [(leak.a_row, leak.b_row, leak.kind) for leak in found] == [(0, 0, "exact")]
    assert len(found[0].a_same) == len(found[0].b_same) == 999


def test_near_copies_make_no_square():
    sides = [
        prints_of(
            [{"image": encoded(picture(0), "JPEG", quality=start + n // 2, comment=f"{n}")} for n in range(80)], ""
        )
        for start in (30, 31)
    ]
    found = find_leaks(*sides)
    assert {leak.b_row for leak in found} and len(found) <= 2 * LIKELIEST * 80 * 2
    shared = {name for leak in found for name in (leak.b_id, *leak.b_same)}
    assert shared == set(sides[1].ids)


@pytest.mark.parametrize("words", [65_535, 65_536, 65_537, 70_000])
@pytest.mark.parametrize("variant", ["tern", "rouge_score"])
def test_a_long_caption_agrees_with_itself(words, variant):
    pytest.importorskip("rapidfuzz")
    found = rouge.rouge_l_relevance([["dog " * words], ["dog " * words]], variant=variant)
    assert np.allclose(found, 1)


def test_a_caption_past_the_limit_is_refused():
    pytest.importorskip("rapidfuzz")
    with pytest.raises(ValueError, match="300,000 words"):
        rouge.rouge_l_relevance([["dog " * 300_000], ["a dog"]])
