"""The converter of official PIR checkpoints: parity with the official modules, its findings, and every refusal."""

import json

import pytest
import torch
from golden import GOLDENS, golden_tensor
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModel, AutoProcessor, BertConfig, ResNetConfig, SwinConfig

from vsehub import PIRConfig, PIRModel, PIRProcessor
from vsehub.__main__ import main as vsehub
from vsehub.hub_cards.convert_pir import NAMES, convert
from vsehub.hub_cards.official_checkpoint import translator

OPTIONS = {"filter_size": 3, "head": 2, "image_res": 64, "dropout_r": 0.1, "is_baseline": False}
# The official module's own float32 rounding of its unscaled 512-dimensional dot products is 2.6e-5 (against float64).
TOLERANCE = {"belief_logits": 4e-5}


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    if not GOLDENS.is_dir():
        pytest.skip(f"the goldens of the official modules are not at {GOLDENS}")
    folder, facts = tmp_path_factory.mktemp("golden_pir"), json.loads((GOLDENS / "pir.json").read_text())
    state = {}
    for name, (shape, dtype) in facts["official_state_dict"].items():
        state[name] = golden_tensor(name, shape, dtype, facts["salt"])
        if name.startswith("conv_encoder.") and name.endswith("bn3.weight"):
            state[name] *= 0.2
        if name in ("temp", "temp2"):
            state[name] = torch.tensor(0.07)
    torch.save({"model": state, "config": facts["config"]}, folder / "checkpoint_best.pth")
    assert vsehub(["convert", "pir", str(folder / "checkpoint_best.pth"), str(folder / "out")]) == 0
    return AutoModel.from_pretrained(folder / "out").eval(), load_file(GOLDENS / "pir.safetensors")


@torch.no_grad()
def test_a_converted_model_computes_what_the_official_modules_compute(golden):
    model, tensors = golden
    pixels, ids = tensors["in.pixel_values"], tensors["in.input_ids"]
    output = model(input_ids=ids, pixel_values=pixels)
    parts, words = model.image_parts(model.vision_tokens(pixels), pixels), output.text_model_output.last_hidden_state
    first, linear = model.visual_instruction.layers[0], model.visual_instruction.maps[0]
    some = parts.tokens[:, :40]  # the units were run on the first tokens, not on the most believed
    found = {
        "image_embeds": output.image_embeds,
        "text_embeds": output.text_embeds,
        "image_embeds_baseline": F.normalize(parts.tokens[:, 0], dim=-1),
        "text_embeds_baseline": F.normalize(words[:, 0], dim=-1),
        "vision_tokens": parts.tokens,
        "text_tokens": words,
        "instruction": parts.instruction,
        "belief_logits": parts.belief_logits,
        "tel_self": first.self_attention(some, some, None),
        "tel_cross": first(some, linear(parts.instruction)[:, None]),
    }
    losses = {"contrastive", "affiliation", "triplet", "grad_image", "grad_text"}  # tests/training/test_pir_losses.py
    assert found.keys() == {name.removeprefix("out.") for name in tensors if name.startswith("out.")} - losses
    for name, value in found.items():
        expected = tensors[f"out.{name}"]
        worst = ((value - expected).abs() / expected.abs().clamp(min=1)).max().item()
        assert worst <= TOLERANCE.get(name, 1e-5), f"{name}: {worst:.1e}"
    order = parts.belief_logits.argsort(descending=True)
    assert torch.equal(order, tensors["out.belief_logits"].argsort(descending=True))


# --- tiny files -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_state(tmp_path_factory):
    """The state dict of a tiny official file; its towers are inferred from the shapes."""
    torch.manual_seed(0)
    config = PIRConfig(
        SwinConfig(image_size=64, embed_dim=32, depths=[1, 1], num_heads=[1, 2], window_size=2, mlp_ratio=2.0),
        BertConfig(vocab_size=60, hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=64),
        ResNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[1, 2], layer_type="bottleneck"),
        projection_dim=16,
        attention_heads=2,
        image_size=64,
    )
    folder = tmp_path_factory.mktemp("tiny_official")
    PIRModel(config).save_pretrained(folder)
    state, (_, to_theirs) = {}, translator(NAMES)
    for name, tensor in load_file(folder / "model.safetensors").items():
        theirs = to_theirs(name)
        if theirs is not None:  # all but what Swin computes itself
            state[theirs] = tensor
    for key in [key for key in state if ".attn.query." in key]:
        parts = [state.pop(key.replace(".query.", f".{part}.")) for part in ("query", "key", "value")]
        state[key.replace(".query.", ".qkv.")] = torch.cat(parts)
    state["text_encoder.embeddings.word_embeddings.weight"] = torch.randn(60, 64)
    return {**state, "temp": torch.tensor(0.07), "temp2": torch.tensor(0.05)}


@pytest.fixture
def saved(tmp_path):
    def save(state, **options):
        torch.save({"model": state, **({"config": options} if options else {})}, tmp_path / "checkpoint_best.pth")
        return tmp_path / "checkpoint_best.pth"

    return save


@pytest.fixture
def refused(capsys, tmp_path):
    """A function: command line -> the one line of its error; nothing may have been written."""

    def refuse(*arguments):
        assert vsehub(["convert", "pir", *(str(argument) for argument in arguments)]) == 2
        error = capsys.readouterr().err.strip()
        assert "\n" not in error and not (tmp_path / "out").exists()
        return error

    return refuse


def test_numbers_come_from_the_file_and_towers_from_the_tensors(saved, tiny_state, tmp_path, capsys):
    assert vsehub(["convert", "pir", str(saved(tiny_state, **OPTIONS)), str(tmp_path / "out")]) == 0
    report, model = capsys.readouterr().out, AutoModel.from_pretrained(tmp_path / "out")
    config = model.config
    assert type(model) is PIRModel and config.legacy and (config.filter_size, config.attention_heads) == (3, 2)
    assert (config.instruction_layers, config.cycles, config.projection_dim) == (2, 3, 16)
    assert (config.vision_config.depths, config.vision_config.window_size) == ([1, 1], 2)
    assert (config.instruction_config.hidden_sizes, config.instruction_config.depths) == ([16, 32], [1, 2])
    assert "left out temp (2)" in report and "no processor was written" in report
    qkv = tiny_state["vision_encoder.layers.1.blocks.0.attn.qkv.weight"]
    again = load_file(tmp_path / "out" / "model.safetensors")
    key = next(
        name
        for name in again
        if "layers.1.blocks.0.attention" in name and name.endswith(("key.weight", "k_proj.weight"))
    )
    assert torch.equal(again[key], qkv[64:128])


def test_it_tells_whether_the_pretrained_weights_were_ever_loaded(saved, tiny_state, tmp_path):
    report = convert(saved(tiny_state, **OPTIONS), tmp_path / "random")
    assert "never loaded" in report["instruction_weights"] and "never loaded" in report["text_weights"]
    assert len(report["warnings"]) == 2
    assert "never loaded" in (tmp_path / "random" / "README.md").read_text()
    better = dict(tiny_state)
    better["conv_encoder.1.weight"] = better["conv_encoder.1.weight"] + 0.1
    better["text_encoder.embeddings.word_embeddings.weight"] = 0.04 * torch.randn(60, 64)
    report = convert(saved(better, **OPTIONS), tmp_path / "loaded")
    assert report["instruction_weights"].startswith("loaded") and report["text_weights"].startswith("loaded")
    assert AutoModel.from_pretrained(tmp_path / "loaded").config.conversion["text_weights"].startswith("loaded")


def test_without_options_published_numbers_stand_in_and_are_named(saved, tiny_state, tmp_path):
    report = convert(saved(tiny_state), tmp_path / "out")
    assert report["published_defaults"] == ["filter_size", "head"]
    assert AutoModel.from_pretrained(tmp_path / "out").config.filter_size == 40


def test_a_baseline_has_neither_prior_nor_cycles(saved, tiny_state, tmp_path):
    report = convert(saved(tiny_state, **{**OPTIONS, "is_baseline": True}), tmp_path / "out")
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert model.instruction_model is None and model.language_cycles is None and report["dropped"]["all but the towers"]


@pytest.mark.parametrize("key", ["vision_encoder.head.weight", "img_sa.0.extra", "momentum_queue", "conv_encoder.9.w"])
def test_an_unknown_weight_is_named(saved, refused, tiny_state, tmp_path, key):
    error = refused(saved({**tiny_state, key: torch.ones(1)}, **OPTIONS), tmp_path / "out")
    assert "unknown weights" in error and key in error


@pytest.mark.parametrize(
    "key",
    [
        "conv_encoder.4.0.bn2.running_var",
        "conv_encoder.5.1.conv1.weight",
        "img_ca.1.mhatt_cross.linear_merge.bias",
        "txt_sa.2.ffn.1.weight",
        "mapping_txt.0.bias",
        "vision_encoder.layers.0.blocks.0.attn.proj.bias",
        "vision_encoder.norm.weight",
        "text_encoder.encoder.layer.0.output.dense.bias",
    ],
)
def test_a_missing_weight_is_named_as_the_file_would_name_it(saved, refused, tiny_state, tmp_path, key):
    state = {name: tensor for name, tensor in tiny_state.items() if name != key}
    error = refused(saved(state, **OPTIONS), tmp_path / "out")
    assert "lacks" in error and key in error


def test_the_official_text_handling_is_in_the_saved_tokenizer(saved, tiny_state, tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "two", "planes", "##s", "airport", "well", "known"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    convert(saved(tiny_state, **OPTIONS), tmp_path / "out", tokenizer=tmp_path / "vocab.txt")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert type(processor) is PIRProcessor and processor.tokenizer.model_max_length == 47
    ids = processor(text=["Two planes, (a well-known airport)!"])["input_ids"][0]
    assert processor.tokenizer.convert_ids_to_tokens(ids) == "[CLS] two planes a well known airport".split()
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert model.encode_text(["two planes", "a"]).shape == (2, 16)
