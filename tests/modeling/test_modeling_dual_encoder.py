"""What every dual encoder does, on a tiny D2S-VSE and a tiny PIR: forward, encoding, freezing."""

import copy
import logging
import os
import shutil
import stat

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModel

from vsehub import D2SVSEModel
from vsehub.modeling.modeling_dual_encoder import DualEncoderOutput


def assert_near(found, expected, atol=1e-6):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


def test_a_frozen_tower_stays_in_eval_mode(tiny_model):
    tiny_model.text_model.requires_grad_(False)
    tiny_model.train()
    assert not tiny_model.text_model.training and tiny_model.text_head.training and tiny_model.vision_model.training


def test_forward_takes_images_texts_or_both(tiny_model, tiny_text_batch, tiny_image_batch):
    with torch.no_grad():
        image, text = tiny_model(**tiny_image_batch), tiny_model(**tiny_text_batch)
        both = tiny_model(**tiny_text_batch, **tiny_image_batch)
    assert image.text_embeds is None and image.logits_per_image is None and image.loss is None
    assert text.image_embeds is None and text.logits_per_text is None
    assert torch.equal(image.image_embeds, both.image_embeds) and torch.equal(text.text_embeds, both.text_embeds)
    assert both.image_embeds.shape == both.text_embeds.shape == (6, 16)
    assert_near(both.text_embeds.norm(dim=-1), torch.ones(6))
    assert_near(both.logits_per_image, 20 * both.image_embeds @ both.text_embeds.t(), atol=1e-5)
    assert both.vision_model_output.last_hidden_state.shape == (6, 17, 32)  # the tower's own width, as in CLIP
    assert_near(both.image_embeds, F.normalize(both.vision_model_output.pooler_output, dim=-1))
    with pytest.raises(ValueError, match="pixel_values, input_ids"):
        tiny_model()


def test_return_dict_false_gives_the_same_values_as_a_tuple(tiny_model, tiny_text_batch, tiny_image_batch):
    with torch.no_grad():
        named = tiny_model(**tiny_text_batch, **tiny_image_batch)
        values = tiny_model(**tiny_text_batch, **tiny_image_batch, return_dict=False)
        features = tiny_model.get_text_features(**tiny_text_batch, return_dict=False)
    assert isinstance(values, tuple) and len(values) == 6
    for found, name in zip(values, ("logits_per_image", "logits_per_text", "text_embeds", "image_embeds")):
        assert torch.equal(found, named[name]), name
    assert isinstance(features, tuple) and torch.equal(features[1], named.text_model_output.pooler_output)


def test_return_loss_is_the_symmetric_cross_entropy_of_pairs(tiny_model, tiny_text_batch, tiny_image_batch):
    with torch.no_grad():
        output = tiny_model(**tiny_text_batch, **tiny_image_batch, return_loss=True)
    rows = output.logits_per_image.log_softmax(1).diagonal().mean()
    columns = output.logits_per_image.log_softmax(0).diagonal().mean()
    assert output.loss.item() == pytest.approx(-(rows + columns).item() / 2, abs=1e-5)
    with pytest.raises(ValueError, match="as many texts as images"):
        tiny_model(**tiny_text_batch, pixel_values=tiny_image_batch["pixel_values"][:2], return_loss=True)
    with pytest.raises(ValueError, match="as many texts as images"):
        tiny_model(**tiny_text_batch, return_loss=True)


def test_hidden_states_replace_what_the_towers_would_compute(tiny_model, tiny_text_batch, tiny_image_batch):
    mask = tiny_text_batch["attention_mask"]
    with torch.no_grad():
        expected = tiny_model(**tiny_text_batch, **tiny_image_batch)
        found = tiny_model(
            attention_mask=mask,
            vision_hidden_states=tiny_model.vision_tokens(tiny_image_batch["pixel_values"]),
            text_hidden_states=tiny_model.text_model(**tiny_text_batch).last_hidden_state,
        )
    assert_near(found.image_embeds, expected.image_embeds)
    assert_near(found.text_embeds, expected.text_embeds)


def test_encoding_keeps_the_order_given_whatever_the_batches(tiny_folder, tiny_captions, tiny_pictures):
    model = D2SVSEModel.from_pretrained(tiny_folder).train()  # and finds its processor beside the weights
    texts, images = model.encode_text(tiny_captions, batch_size=2), model.encode_image(tiny_pictures, batch_size=4)
    assert model.training and texts.shape == images.shape == (6, 16)
    assert texts.dtype == torch.float32 and not texts.requires_grad
    for row in range(6):
        assert_near(model.encode_text(tiny_captions[row])[0], texts[row])
        assert_near(model.encode_image(tiny_pictures[row])[0], images[row])
    assert (texts @ texts.t() - torch.eye(6)).fill_diagonal_(0).max() < 0.9999  # six different captions


def test_encode_names_the_item_that_it_cannot_take(tiny_model, tiny_processor, tiny_pictures):
    picture = tiny_pictures[0]
    with pytest.raises(TypeError, match="encode_image takes PIL images; item 0 is a str"):
        tiny_model.encode_image("picture.jpg", processor=tiny_processor)
    with pytest.raises(TypeError, match="item 1 is a str"):
        tiny_model.encode_image([picture, "https://example.org/picture.jpg"], processor=tiny_processor)
    with pytest.raises(TypeError, match="encode_text takes strings; item 1 is a Image"):
        tiny_model.encode_text(["a dog", picture], processor=tiny_processor)
    with pytest.raises(ValueError, match="item 1 is empty"):
        tiny_model.encode_text(["a dog", "  "], processor=tiny_processor)
    with pytest.raises(ValueError, match="pass processor="):
        tiny_model.encode_text(["a dog"])


def test_a_caption_that_is_cut_is_told(tiny_model, tiny_processor, caplog):
    processor = copy.deepcopy(tiny_processor)
    processor.tokenizer.model_max_length = 6
    texts = ["a dog", "a dog runs in the snow near a bridge", "two cats"]
    with caplog.at_level("WARNING"):
        transformers_logger = logging.getLogger("transformers")
        transformers_logger.addHandler(caplog.handler)
        try:
            tiny_model.encode_text(texts, processor=processor)
            tiny_model.encode_text(texts[:1], processor=processor)
        finally:
            transformers_logger.removeHandler(caplog.handler)
    told = [record.getMessage() for record in caplog.records if "were cut" in record.getMessage()]
    assert told == ["1 of 3 texts were cut at 6 tokens: the rest of them was not read"]


@pytest.fixture(params=["d2s", "pir"])
def either(request, make_tiny_model, make_tiny_pir_model):
    return {"d2s": make_tiny_model, "pir": make_tiny_pir_model}[request.param]()


def test_encoding_is_float32_of_length_1_and_leaves_the_mode_as_it_was(either, tiny_processor, tiny_captions):
    for mode in (True, False):
        embeds = either.train(mode).encode_text(tiny_captions, processor=tiny_processor)
        assert either.training == mode and embeds.dtype == torch.float32
        assert_near(embeds.norm(dim=1), torch.ones(6))
    half = either.bfloat16().encode_text(tiny_captions, processor=tiny_processor)
    assert half.dtype == torch.float32
    assert_near(half.norm(dim=1), torch.ones(6))


def test_nothing_to_encode_is_an_empty_matrix_and_a_batch_has_an_item(either, tiny_processor):
    assert either.encode_text([], processor=tiny_processor).shape == (0, 16)
    assert either.encode_image([], processor=tiny_processor).shape == (0, 16)
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        either.encode_text(["a dog"], batch_size=0, processor=tiny_processor)


def test_an_error_in_the_middle_leaves_the_mode_as_it_was(either, tiny_processor):
    class Broken:
        tokenizer = tiny_processor.tokenizer

        def __call__(self, **inputs):
            raise ZeroDivisionError

    either.train()
    with pytest.raises(ZeroDivisionError):
        either.encode_text(["a dog"], processor=Broken())
    assert either.training


def test_half_of_a_utf_16_pair_is_no_text(either, tiny_processor):
    with pytest.raises(ValueError, match="item 1 is not Unicode text"):
        either.encode_text(["a dog", "a \ud800 dog"], processor=tiny_processor)


def test_both_towers_are_listed_and_the_word_embeddings_are_the_text_towers(either):
    assert [tower is part for tower, part in zip(either.towers(), (either.vision_model, either.text_model))] == [
        True
    ] * 2
    table = torch.nn.Embedding(200, 32)
    either.set_input_embeddings(table)
    assert either.get_input_embeddings() is table is either.text_model.get_input_embeddings()


def test_the_weights_of_linear_layers_are_drawn_as_torch_draws_them(either):
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 512)
    torch.nn.init.zeros_(layer.weight)
    either._init_weights(layer)
    for values in (layer.weight, layer.bias):
        assert 0.95 / 8 < values.abs().max() <= 1 / 8
    assert layer.weight.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.02)


def test_an_output_becomes_a_tuple_of_what_is_set():
    output = DualEncoderOutput(text_embeds=torch.ones(2, 3))
    assert len(output.to_tuple()) == 1 and output.to_tuple()[0] is output.text_embeds


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_saved_weights_have_the_permissions_of_other_files(make_tiny_model, tmp_path, umask):
    before = os.umask(umask)
    try:
        make_tiny_model().save_pretrained(tmp_path / "model")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "model").iterdir() if path.is_file()}
    assert modes == {0o666 & ~umask}


def test_encoding_does_not_depend_on_torchs_default_number_format(either, tiny_processor, tiny_captions, tiny_pictures):
    expected = either.encode_text(tiny_captions, processor=tiny_processor)
    torch.set_default_dtype(torch.float64)
    try:
        found = either.encode_text(tiny_captions, processor=tiny_processor)
        pictures = either.encode_image(tiny_pictures[:1], processor=tiny_processor)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == pictures.dtype == torch.float32
    assert_near(found, expected)


def test_what_the_caller_put_in_eval_mode_stays_there(either, tiny_processor):
    either.train()
    either.vision_model.eval()
    either.encode_text(["a dog"], processor=tiny_processor)
    assert either.training and either.text_model.training
    assert not any(module.training for module in either.vision_model.modules())


@pytest.mark.parametrize("name", ["tiny_folder", "pir_folder"])
def test_weights_on_a_disk_encode_as_weights_in_memory(name, request, tmp_path, tiny_captions, tiny_pictures):
    folder = request.getfixturevalue(name)
    whole = AutoModel.from_pretrained(folder)
    model = AutoModel.from_pretrained(
        folder, device_map="auto", max_memory={"cpu": 60_000}, offload_folder=str(tmp_path / "weights")
    )
    assert any(weight.device.type == "meta" for weight in model.parameters())
    assert_near(model.encode_text(tiny_captions), whole.encode_text(tiny_captions))
    assert_near(model.encode_image(tiny_pictures), whole.encode_image(tiny_pictures))


def test_the_processor_comes_from_the_folder_of_the_weights_wherever_one_works(tiny_folder, tmp_path, monkeypatch):
    shutil.copytree(tiny_folder, tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    first, second = (AutoModel.from_pretrained("m") for _ in range(2))
    monkeypatch.chdir("/")
    assert first.encode_text(["a dog"]).shape == (1, 16)
    (tmp_path / "m").rename(tmp_path / "n")
    with pytest.raises(ValueError, match=f"{tmp_path / 'm'}, from which this model was loaded, is gone"):
        second.encode_text(["a dog"])
    named = D2SVSEModel(second.config)  # its configuration alone was loaded: its name says nothing of a processor
    with pytest.raises(ValueError, match="pass processor="):
        named.encode_text(["a dog"])


def test_hidden_states_alone_are_not_enough_for_an_instruction_encoder(make_tiny_pir_model):
    states = torch.zeros(1, 17, 32)
    with pytest.raises(ValueError, match="give pixel_values, or scene_states, beside"):
        make_tiny_pir_model()(vision_hidden_states=states)
    assert make_tiny_pir_model(use_instruction=False)(vision_hidden_states=states).image_embeds.shape == (1, 16)


def test_a_misspelt_argument_beside_texts_alone_is_no_silence(tiny_model, tiny_text_batch):
    inputs = dict(tiny_text_batch)
    mask = inputs.pop("attention_mask")
    with pytest.raises(TypeError, match="attention_maks"):
        tiny_model(**inputs, attention_maks=mask)
