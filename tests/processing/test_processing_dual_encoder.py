"""How much of a caption is read: by the processor, by whoever loads it, and by an evaluation."""

import copy
import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, AutoProcessor, AutoTokenizer

from vsehub import D2SVSEProcessor
from vsehub.data.arguments import DataArguments
from vsehub.evaluation.evaluate import EvaluationOptions, evaluation
from vsehub.evaluation.saved_embeddings import read_embeddings
from vsehub.processing.processing_dual_encoder import FIRST_POSITION_AFTER_PADDING, square_image_processor

LONG = " ".join(["a dog", "two cats by the river"] * 30)


@pytest.fixture
def folder(tmp_path, tiny_model, tiny_processor):
    """A model that reads 20 tokens; its tokenizer.json keeps a call that asked for 5, as folders of others do."""
    processor = copy.deepcopy(tiny_processor)
    processor.tokenizer.model_max_length = 20
    tiny_model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    processor.tokenizer([LONG], truncation=True, padding="max_length", max_length=5)
    processor.tokenizer.save_pretrained(tmp_path / "model")
    assert json.loads((tmp_path / "model/tokenizer.json").read_text())["truncation"]["max_length"] == 5
    return tmp_path / "model"


def explicit(tokenizer, folder, limit=16):
    """The same tokenizer, told to cut and pad every call at `limit`."""
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder, max_length=limit, padding="max_length")


def test_the_length_of_a_call_before_saving_cuts_no_caption(folder):
    loaded = AutoProcessor.from_pretrained(folder)
    assert loaded(text=[LONG], return_tensors="pt")["input_ids"].shape == (1, 20)
    loaded.save_pretrained(folder)
    assert len(AutoProcessor.from_pretrained(folder)(text=LONG)["input_ids"]) == 20


def test_a_saved_processor_keeps_no_trace_of_a_call(tmp_path, tiny_processor):
    processor = copy.deepcopy(tiny_processor)
    processor(text=[LONG], max_length=5, padding="max_length", return_tensors="pt")
    processor.save_pretrained(tmp_path)
    kept = json.loads((tmp_path / "tokenizer.json").read_text())
    assert kept["truncation"] is None and kept["padding"] is None


def test_a_limit_that_the_tokenizer_was_made_with_holds(tmp_path, tiny_tokenizer):
    tokenizer = explicit(copy.deepcopy(tiny_tokenizer), tmp_path)
    before = dict(tokenizer.init_kwargs)
    processor = D2SVSEProcessor(square_image_processor(32), tokenizer)
    assert tokenizer.init_kwargs == before  # it is the caller's
    assert len(processor(text=LONG)["input_ids"]) == len(processor(text="a dog")["input_ids"]) == 16
    for last_call in (5, 16):
        processor(text=LONG, max_length=last_call)
        processor.save_pretrained(tmp_path / "saved")
        processor = AutoProcessor.from_pretrained(tmp_path / "saved")
        assert len(processor(text=LONG)["input_ids"]) == 16


def test_the_tokenizer_of_a_tower_brings_no_limit_of_a_call(folder, tmp_path, tiny_model):
    tiny_model.text_model.save_pretrained(folder)
    processor = D2SVSEProcessor.from_vision_text_pretrained(None, str(folder), 32, max_length=12)
    assert processor(text=[LONG, "a dog"], return_tensors="pt")["input_ids"].shape == (2, 12)


def test_the_last_limit_cuts_captions_even_if_the_tokenizer_was_used_under_another(tmp_path, tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    used = D2SVSEProcessor(square_image_processor(32), tokenizer)
    assert used(text=["a " * 70], return_tensors="pt")["input_ids"].shape == (1, 64)
    tokenizer.model_max_length = 24
    used.save_pretrained(tmp_path / "first")
    once = AutoProcessor.from_pretrained(tmp_path / "first")
    once.save_pretrained(tmp_path / "second")
    for processor in (used, once, AutoProcessor.from_pretrained(tmp_path / "second")):
        assert processor(text=["a " * 70], return_tensors="pt")["input_ids"].shape == (1, 24)
        assert processor(text=["a " * 70], max_length=9, return_tensors="pt")["input_ids"].shape == (1, 9)


def test_an_evaluation_reads_as_much_as_a_search(folder, tiny_model, tiny_pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = {"image": tiny_pictures, "captions": [[f"{n} {LONG}"] for n in range(6)]}
    Dataset.from_dict(rows).to_parquet(tmp_path / "data.parquet")
    options = EvaluationOptions(save_embeddings=str(tmp_path / "embeds"))
    _, record = evaluation(str(folder), DataArguments(data=str(tmp_path / "data.parquet")), "train", options)
    facts = {name: record[name] for name in ("model", "split", "dtype")} | {"max_length": "20"}
    texts = [text for (text,) in rows["captions"]]
    expected = tiny_model.encode_text(texts, processor=AutoProcessor.from_pretrained(folder))
    torch.testing.assert_close(read_embeddings(tmp_path / "embeds", facts)[1], expected, atol=1e-6, rtol=0)


def test_a_folder_without_words_is_refused_whoever_loads_it(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=f"{folder}: .*none with a vocabulary; put the files of its tokenizer"):
        AutoProcessor.from_pretrained(folder)
    with pytest.raises(ValueError, match="none with a vocabulary"):
        AutoModel.from_pretrained(folder).encode_text(["a dog"])


SHAPE = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}


@pytest.mark.parametrize(
    ("model_type", "positions"),
    [("bert", 40), ("electra", 40), ("roberta", 38), ("xlm-roberta", 38), ("camembert", 38), ("mpnet", 38)],
)
def test_a_caption_fills_the_positions_of_the_text_tower_and_no_more(tmp_path, tiny_tokenizer, model_type, positions):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.model_max_length = 10**30  # of a tokenizer that does not say
    tokenizer.save_pretrained(tmp_path)
    ids = {"vocab_size": len(tokenizer), "pad_token_id": 1}
    config = AutoConfig.for_model(model_type, max_position_embeddings=40, **ids, **SHAPE)
    tower = AutoModel.from_config(config).eval()
    tower.save_pretrained(tmp_path)
    processor = D2SVSEProcessor.from_vision_text_pretrained(None, str(tmp_path), 32, max_length=256)
    assert processor(text=[LONG], return_tensors="pt")["input_ids"].shape == (1, positions)
    ids = torch.full((1, positions + 1), 7)
    tower(input_ids=ids[:, 1:], attention_mask=torch.ones_like(ids[:, 1:]))
    with pytest.raises((IndexError, RuntimeError)):
        tower(input_ids=ids, attention_mask=torch.ones_like(ids))


def test_every_text_tower_with_late_positions_has_a_padding_token():
    for model_type in FIRST_POSITION_AFTER_PADDING:
        assert isinstance(CONFIG_MAPPING[model_type]().pad_token_id, int), model_type


def test_a_tokenizer_without_a_padding_token_pads_with_the_end(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2Model, PreTrainedTokenizerFast

    words = {word: row for row, word in enumerate(["<end>", "a", "dog", "runs", "<unk>"])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", unk_token="<unk>").save_pretrained(tmp_path)
    GPT2Model(GPT2Config(vocab_size=5, n_embd=8, n_layer=1, n_head=1, n_positions=16)).save_pretrained(tmp_path)
    processor = D2SVSEProcessor.from_vision_text_pretrained(None, str(tmp_path), 32)
    batch = processor(text=["a dog runs", "a"], return_tensors="pt")
    assert batch["attention_mask"].sum(1).tolist() == [3, 1]
    assert processor.tokenizer.model_max_length == 16


@pytest.mark.parametrize("place", ["a.png", b"a.png", "https://host.example/a.png", "data:image/png;base64,AA", "path"])
def test_a_string_is_never_opened(tiny_processor, tmp_path, place):
    Image.new("RGBA", (8, 8)).save(tmp_path / "a.png")
    for images in (place, [place], [[place]], (tmp_path / "a.png",)):
        with pytest.raises(TypeError, match="images= takes PIL images and arrays, not a .*: open files yourself"):
            tiny_processor(images=images)


def test_pictures_in_lists_of_lists_are_made_rgb_too(tiny_processor):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 4), np.uint8))
    alone = tiny_processor(images=picture, return_tensors="np")["pixel_values"]
    assert np.array_equal(tiny_processor(images=[[picture]], return_tensors="np")["pixel_values"], alone)


@pytest.mark.parametrize("kind", ["uint16", "int32", "int64"])
def test_arrays_of_more_than_8_bits_are_refused(tiny_processor, kind):
    array = np.random.default_rng(0).integers(0, 256, (9, 9, 3))
    expected = tiny_processor(images=array.astype(np.uint8), return_tensors="np")["pixel_values"]
    assert np.array_equal(tiny_processor(images=array.astype(kind), return_tensors="np")["pixel_values"], expected)
    with pytest.raises(ValueError, match=f"a {kind} array with numbers above 255: scale them"):
        tiny_processor(images=[(array * 100).astype(kind)])


def test_nothing_to_prepare_and_what_no_processor_takes_are_refused(tiny_processor):
    for inputs in ({"text": []}, {"images": []}):
        with pytest.raises(ValueError, match=f"{next(iter(inputs))} is an empty list"):
            tiny_processor(**inputs, return_tensors="pt")
    with pytest.raises(TypeError, match="max_lenght"):
        D2SVSEProcessor(tiny_processor.image_processor, tiny_processor.tokenizer, max_lenght=3)


@pytest.mark.parametrize("array", [np.float32, np.float64, torch.tensor])
def test_pixels_that_were_scaled_are_refused_where_they_would_be_divided_by_255_again(
    tiny_processor, tiny_pictures, array
):
    pixels = np.asarray(tiny_pictures[0], np.float32) / 255
    said = r"would be divided by 255: scale it to 0\.\.\.255, or pass do_rescale=False"
    for scaled in (pixels, (pixels - 0.5) * 500, pixels * np.nan):
        with pytest.raises(ValueError, match=said):
            tiny_processor(images=[tiny_pictures[0], array(scaled)], return_tensors="pt")
    found = tiny_processor(images=array(pixels), do_rescale=False, return_tensors="pt")["pixel_values"]
    expected = tiny_processor(images=tiny_pictures[0], return_tensors="pt")["pixel_values"]
    assert (found - expected).abs().max() < 0.05
    assert tiny_processor(images=array(np.zeros_like(pixels)))  # a black picture
