"""Decoding ahead changes nothing; fast mode is near; a picture that spoils a batch is found."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from vsehub.processing.encoders import Encoder
from vsehub.processing.pixels import open_image
from vsehub.search import embedding_stream
from vsehub.search.embedding_stream import embed_stream


def test_a_batch_without_a_picture_is_empty_whatever_the_default_device(tiny_model, tiny_processor):
    encoder = Encoder(tiny_model, tiny_processor)
    with torch.device("meta"):
        ((items, vectors, problems),) = embed_stream(encoder, [({"id": "torn"}, b"torn")])
    assert items == [] and vectors.shape == (0, encoder.dimension) and problems[0]["id"] == "torn"


def photograph(seed, size=(640, 480)):
    """Smooth shapes with some grain, as a camera gives."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize(size, 3), float)
        for n in (4, 12, 60)
    ]
    values = 0.6 * layers[0] + 0.3 * layers[1] + 0.1 * layers[2] + rng.normal(0, 2, layers[0].shape)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def encoded(image, kind="JPEG", **kwargs):
    buffer = io.BytesIO()
    image.save(buffer, kind, **kwargs)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def jpegs():
    return [encoded(photograph(seed, size), quality=92) for seed, size in enumerate([(640, 480), (200, 320), (40, 40)])]


def run(model, processor, sources, **kwargs):
    found = list(
        embed_stream(Encoder(model, processor), (({"id": str(n)}, s) for n, s in enumerate(sources)), **kwargs)
    )
    return [item["id"] for items, *_ in found for item in items], found


def test_pictures_in_memory_are_made_upright_rgb_in_both_modes(tiny_model, tiny_processor):
    clear = photograph(3, (32, 32)).convert("RGBA")
    clear.putalpha(0)
    sources = [clear, Image.new("RGB", (32, 32), "white")]
    for fast in (False, True):
        (_, vectors, _), *_ = run(tiny_model, tiny_processor, sources, fast=fast)[1]
        assert np.allclose(vectors[0], vectors[1], atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_exact_mode_is_encode_image(batch_size, tiny_model, tiny_processor, jpegs):
    sources = jpegs * 5
    ids, found = run(tiny_model, tiny_processor, sources, batch_size=batch_size, workers=3)
    assert ids == [str(n) for n in range(15)]
    expected = tiny_model.encode_image([open_image(source) for source in sources], processor=tiny_processor)
    assert np.abs(np.concatenate([v for _, v, _ in found]) - expected.numpy()).max() < 1e-6


def test_fast_mode_is_near(tiny_model, tiny_processor, jpegs):
    exact, fast = (
        np.concatenate([v for _, v, _ in run(tiny_model, tiny_processor, jpegs, fast=fast)[1]]) for fast in (0, 1)
    )
    cosines = (exact * fast).sum(axis=1)
    assert (cosines >= 0.999).all() and not np.array_equal(exact, fast)


def test_only_jpegs_are_decoded_scaled_and_never_below_the_square(jpegs):
    sizes = [open_image(data, least_side=60).size for data in jpegs]
    assert sizes == [(80, 60), (100, 160), (40, 40)]
    assert open_image(encoded(photograph(1), "PNG"), least_side=60).size == (640, 480)


def test_what_spoils_a_batch_is_found_and_reported(tiny_model, tiny_processor, jpegs):
    class Picky:
        def __call__(self, images, return_tensors):
            if any(image.size == (40, 40) for image in images):
                raise RuntimeError("too small")
            return tiny_processor(images=images, return_tensors=return_tensors)

    sources = [jpegs[0], b"<html>", jpegs[2], None, jpegs[1], jpegs[0][:500]]
    ids, found = run(tiny_model, Picky(), sources, batch_size=6)
    problems = {problem["id"]: problem["problem"] for *_, several in found for problem in several}
    assert ids == ["0", "4"] and sorted(problems) == ["1", "2", "3", "5"]
    assert "too small" in problems["2"] and "no picture" in problems["3"]


def test_a_model_that_embeds_nothing_is_an_error_of_the_model(tiny_model, tiny_processor, jpegs):
    with torch.no_grad():
        next(tiny_model.vision_model.parameters()).fill_(float("nan"))
    for sources in (jpegs, [b"no picture", *jpegs]):
        with pytest.raises(
            ValueError, match="D2SVSEModel: no embedding of the first pictures is finite, so its weights"
        ):
            run(tiny_model, tiny_processor, sources, batch_size=1)


def test_an_embedding_that_is_not_finite_is_a_problem_where_others_are(tiny_model, tiny_processor, jpegs):
    class Overflows(Encoder):
        calls = 0

        def __call__(self, **inputs):
            self.calls += 1
            output = super().__call__(**inputs)
            return output if self.calls == 1 else type(output)(image_embeds=output.image_embeds * float("nan"))

    entries = [({"id": str(row)}, source) for row, source in enumerate(jpegs)]
    found = list(embed_stream(Overflows(tiny_model, tiny_processor), entries, batch_size=1))
    assert [len(items) for items, *_ in found] == [1, 0, 0]
    assert all("not finite" in problems[0]["problem"] for *_, problems in found[1:])


def test_a_consumer_that_stops_early_leaves_no_thread(tiny_model, tiny_processor, jpegs):
    stream = embed_stream(
        Encoder(tiny_model, tiny_processor), (({"id": "x"}, jpegs[2]) for _ in range(10_000)), batch_size=2
    )
    next(stream)
    stream.close()


def test_names_that_no_table_can_hold_and_numbers_are_problems(tiny_model, tiny_processor, tiny_pictures):
    entries = [({"id": "bad\udcff"}, tiny_pictures[0]), ({"id": "number"}, 3), ({"id": "good"}, tiny_pictures[1])]
    (found,) = embed_stream(Encoder(tiny_model, tiny_processor), entries)
    assert [item["id"] for item in found[0]] == ["good"] and len(found[1]) == 1
    first, second = (problem["problem"] for problem in found[2])
    assert "rename the file" in first and "path or bytes, not int" in second
    with pytest.raises(ValueError, match="at least 1"):
        list(embed_stream(Encoder(tiny_model, tiny_processor), entries, 0))


def test_few_tiles_wait_in_memory_for_the_model(tiny_model, tiny_processor, monkeypatch):
    monkeypatch.setattr(embedding_stream, "MOST_HELD", 3 * 64 * 64 * 3 * 4)  # three batches of four tiles
    taken = []

    def tiles():
        for number in range(80):
            taken.append(number)
            yield {"id": str(number)}, Image.new("RGB", (64, 64), (number, 0, 0))

    most, seen = 0, 0
    for items, _, _ in embed_stream(Encoder(tiny_model, tiny_processor), tiles(), batch_size=4, workers=8):
        most, seen = max(most, len(taken) - seen), seen + len(items)
    assert seen == 80 and most <= 4 * 4


def test_a_picture_in_memory_that_does_not_decode_is_a_problem(tiny_model, tiny_processor, jpegs):
    torn = Image.open(io.BytesIO(jpegs[0][: len(jpegs[0]) // 2]))
    ((items, _, problems),) = embed_stream(
        Encoder(tiny_model, tiny_processor), [({"id": "a"}, torn), ({"id": "b"}, jpegs[1])]
    )
    assert [item["id"] for item in items] == ["b"] and "a: does not decode" in problems[0]["problem"]
