"""An encoder gives what the library of its model gives: every family, alone and in batches, pictures and texts."""

import threading
import time
from types import SimpleNamespace

import pytest
import torch
from dual_encoders import FAMILIES
from torch.nn import functional as F
from transformers import AutoModel, AutoProcessor

from vsehub.modeling.modeling_dual_encoder import DualEncoderOutput
from vsehub.processing.encoders import Encoder, truncated
from vsehub.processing.load_encoder import load_encoder
from vsehub.processing.pixels import to_rgb

TEXTS = ["a dog", "Two Dogs run", "x", "the cat sits on a mat and looks at the bird"]
LONG = "a" + " b c d e f g" * 40
PADDING = {"clip": {"padding": True}, "siglip": {"padding": "max_length"}}  # as their documentation says


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def encoder(family, dual_folder):
    return load_encoder(dual_folder(family))


def pooled(output):
    return F.normalize(output if torch.is_tensor(output) else output.pooler_output, dim=-1)


@pytest.fixture
def direct(family, dual_folder):
    """The model and its processor, by transformers alone, and how the processor is called for texts."""
    folder = dual_folder(family)
    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    return model, lambda **inputs: processor(**inputs, return_tensors="pt"), PADDING.get(family, {})


class Lengths(Encoder):
    """Embeds texts by their length, without a model."""

    dimension, device = 2, torch.device("cpu")

    def __init__(self):
        self.text_limit, self.config = None, SimpleNamespace(image_embeds_mean=[0.5, 0], text_embeds_mean=[0, 0.5])

    def text_inputs(self, texts):
        return {"length": torch.tensor([[len(text), 1.0] for text in texts], device="cpu")}

    def __call__(self, length):
        return DualEncoderOutput(text_embeds=length)


def test_vectors_are_on_the_cpu_whatever_the_default_device():
    """`meta` stands for a GPU: its tensors cannot be mixed with those of the CPU, either."""
    encoder = Lengths()
    with torch.device("meta"):
        found, empty, means = encoder.encode_text(["three", "a", "two"], 2), encoder.encode_text([]), encoder.means
    assert found.tolist() == [[5, 1], [1, 1], [3, 1]] and empty.tolist() == []
    assert {name: mean.tolist() for name, mean in means.items()} == {"image": [0.5, 0], "text": [0, 0.5]}


@torch.no_grad()
def test_pictures_are_those_of_transformers(encoder, direct, tiny_pictures):
    model, processor, _ = direct
    expected = torch.cat([pooled(model.get_image_features(**processor(images=[image]))) for image in tiny_pictures])
    for size in (1, 4):
        embeds = encoder.encode_image(tiny_pictures, size)
        assert embeds.dtype == torch.float32 and embeds.shape == (6, encoder.dimension)
        assert (embeds - expected).abs().max() < 1e-6


@torch.no_grad()
def test_texts_are_those_of_transformers(encoder, direct):
    model, processor, padding = direct
    inputs = processor(text=TEXTS, truncation=True, **padding)
    expected = pooled(model.get_text_features(**inputs))
    for size in (1, 3, 64):
        assert (encoder.encode_text(TEXTS, size) - expected).abs().max() < 1e-6
    assert (expected[0] - expected[1]).abs().max() > 1e-4  # they tell texts apart


@torch.no_grad()
def test_long_texts_are_cut_where_the_model_ends_and_counted(encoder, direct, family, caplog, monkeypatch):
    model, processor, _ = direct
    limit = {"clip": 77}.get(family, 64)
    assert encoder.text_limit == limit
    told = []
    monkeypatch.setattr("vsehub.modeling.modeling_dual_encoder.logger.warning", told.append)
    embeds = encoder.encode_text([LONG, "a dog"])
    assert told == [f"1 of 2 texts were cut at {limit} tokens: the rest of them was not read"]
    inputs = processor(text=[LONG], truncation=True, padding="max_length", max_length=limit)
    assert (embeds[:1] - pooled(model.get_text_features(**inputs))).abs().max() < 1e-6


def test_siglip_pads_to_its_length_and_lower_cases(dual_folder):
    for family in ("siglip", "siglip2"):
        encoder = load_encoder(dual_folder(family))
        assert encoder.text_inputs(["a dog", "b"])["input_ids"].shape == (2, 64)
        assert torch.equal(encoder.encode_text(["A DOG"]), encoder.encode_text(["a dog"]))
    assert load_encoder(dual_folder("clip")).text_inputs(["a dog", "b"])["input_ids"].shape == (2, 6)


def test_features_may_be_tensors_or_outputs(dual_folder, monkeypatch, tiny_pictures):
    encoder = load_encoder(dual_folder("clip"))
    expected = encoder.encode_image(tiny_pictures), encoder.encode_text(TEXTS)
    for name in ("get_image_features", "get_text_features"):
        method = getattr(encoder.model, name)

        def tensor(_method=method, **inputs):
            output = _method(**inputs)
            return output if torch.is_tensor(output) else output.pooler_output

        monkeypatch.setattr(encoder.model, name, tensor)
    assert torch.equal(encoder.encode_image(tiny_pictures), expected[0])
    assert torch.equal(encoder.encode_text(TEXTS), expected[1])


def test_pictures_of_every_mode_are_upright_rgb(dual_folder, tiny_pictures):
    encoder = load_encoder(dual_folder("clip"))
    clear = tiny_pictures[0].convert("RGBA")
    clear.putalpha(0)
    assert torch.equal(encoder.encode_image([clear]), encoder.encode_image([to_rgb(clear)]))


def test_ours_go_through_the_same_interface(tiny_model, tiny_processor, tiny_pictures, tiny_captions):
    encoder = Encoder(tiny_model, tiny_processor)
    assert (encoder.text_limit, encoder.dimension) == (64, 16)
    images, texts = encoder.encode_image(tiny_pictures), encoder.encode_text(tiny_captions)
    assert (images - tiny_model.encode_image(tiny_pictures, processor=tiny_processor)).abs().max() < 1e-6
    assert (texts - tiny_model.encode_text(tiny_captions, processor=tiny_processor)).abs().max() < 1e-6


def test_nothing_and_what_cannot_be_embedded(tiny_model, tiny_processor, dual_folder):
    encoder = Encoder(tiny_model, tiny_processor, "mine")
    assert encoder.encode_text([]).shape == (0, 16) and encoder.encode_image([]).shape == (0, 16)
    for call, error, words in (
        (lambda: encoder.encode_text([" "]), ValueError, "is empty"),
        (lambda: encoder.encode_text([3]), TypeError, "takes strings"),
        (lambda: encoder.encode_image(["a.jpg"]), TypeError, "takes PIL images"),
        (lambda: encoder.encode_text(["a"], 0), ValueError, "at least 1"),
    ):
        with pytest.raises(error, match=words):
            call()


def test_a_model_that_is_trained_meanwhile_embeds_as_in_eval_mode_and_stays_in_training(
    make_tiny_model, tiny_processor, tiny_pictures, tiny_captions
):
    model = make_tiny_model(text_dropout=0.5)
    encoder = Encoder(model, tiny_processor)
    expected = encoder.encode_text(tiny_captions), encoder.encode_image(tiny_pictures)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    model.vision_model.eval()
    assert torch.equal(encoder.encode_text(tiny_captions), expected[0])
    assert torch.equal(encoder.encode_image(tiny_pictures), expected[1])
    assert model.training and model.text_head.training and not model.vision_model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_threads_that_embed_texts_call_the_tokenizer_one_after_another(tiny_model, tiny_processor, monkeypatch):
    encoder, inside, most = Encoder(tiny_model, tiny_processor), [], []
    real = type(tiny_processor.tokenizer)._encode_plus

    def watched(*args, **kwargs):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.01)  # another thread may come
        try:
            return real(*args, **kwargs)
        finally:
            inside.pop()

    monkeypatch.setattr(type(tiny_processor.tokenizer), "_encode_plus", watched)
    monkeypatch.setattr(tiny_model, "_processor", tiny_processor, raising=False)
    calls = encoder.encode_text, tiny_model.encode_text, encoder.encode_text
    threads = [threading.Thread(target=call, args=([LONG, "a"],)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 6 and max(most) == 1


def test_a_model_whose_features_are_tokens_is_refused(tiny_model, tiny_processor, monkeypatch):
    encoder = Encoder(tiny_model, tiny_processor, "mine")
    monkeypatch.setattr(tiny_model, "get_text_features", lambda **inputs: torch.zeros(1, 5, 16))
    with pytest.raises(ValueError, match=r"mine: its features of texts have the shape \(1, 5, 16\)"):
        encoder.encode_text(["a"])


def test_narrow_vectors_are_the_first_numbers_normalised_again(encoder, tiny_pictures, caplog):
    narrow = encoder.with_width(5)
    assert "was not trained for width 5 (none below the whole one)" in caplog.text
    assert narrow.dimension == 5 and encoder.width is None and encoder.with_width(encoder.dimension) is encoder
    for side, inputs in (("encode_text", TEXTS), ("encode_image", tiny_pictures)):
        whole = getattr(encoder, side)(inputs)
        assert torch.allclose(getattr(narrow, side)(inputs), F.normalize(whole[:, :5], dim=-1), atol=1e-6)
        assert torch.equal(truncated(whole, 5), F.normalize(whole[:, :5], dim=-1)) and truncated(whole, None) is whole
    assert narrow.identity == {**encoder.identity, "width": 5} and narrow.encode_text([]).shape == (0, 5)


def test_widths_that_are_not_there_are_refused_and_trained_ones_pass(make_tiny_model, tiny_processor, caplog):
    encoder = Encoder(make_tiny_model(matryoshka=[4]), tiny_processor, "mine")
    assert encoder.nested_widths == (4,) and encoder.with_width(4).dimension == 4 and not caplog.text
    with pytest.raises(ValueError, match="mine: its embeddings have 16 numbers, fewer than --width 17"):
        encoder.with_width(17)
    with pytest.raises(ValueError, match="have 4 numbers, fewer than --width 8"):
        encoder.with_width(4).with_width(8)
