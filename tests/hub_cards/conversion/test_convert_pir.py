"""The converter of official PIR checkpoints: parity with the official modules, its findings, and every refusal."""

import json
import math
import re
import shutil
import socket

import huggingface_hub
import pytest
import torch
from golden import COMMITTED, FULL, golden_tensor, read_golden
from hostile import Hostile
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModel, AutoProcessor, BertConfig, BertTokenizer, ResNetConfig, SwinConfig

from vsehub import PIRConfig, PIRModel, PIRProcessor
from vsehub.__main__ import main as vsehub
from vsehub.hub_cards.conversion.convert_pir import NAMES, convert
from vsehub.hub_cards.conversion.official_checkpoint import CheckpointError, translator
from vsehub.hub_cards.model_card import write_model_card

OPTIONS = {"filter_size": 3, "head": 2, "image_res": 64, "dropout_r": 0.1, "is_baseline": False}
# Unscaled dot products of 512 numbers amplify the towers' rounding: the official float32 logits are 2.6e-5 away from
# their own float64. From the official tokens and instruction ours are exact, see the test below.
TOLERANCE = {"belief_logits": 4e-5}


@pytest.fixture(scope="module")
def golden_model(tmp_path_factory):
    """The official file at full size built by the rule, converted by the command line."""
    folder, facts, state = tmp_path_factory.mktemp("golden_pir"), read_golden("pir")[0], {}
    for name, (shape, dtype) in facts["official_state_dict"].items():
        state[name] = golden_tensor(name, shape, dtype, facts["salt"])
        if name.startswith("conv_encoder.") and name.endswith("bn3.weight"):
            state[name] *= 0.2
        if name in ("temp", "temp2"):
            state[name] = torch.tensor(0.07)
    torch.save({"model": state, "config": facts["config"]}, folder / "checkpoint_best.pth")
    assert vsehub(["convert", "pir", str(folder / "checkpoint_best.pth"), str(folder / "out")]) == 0
    yield AutoModel.from_pretrained(folder / "out").eval()
    shutil.rmtree(folder)  # more than a gigabyte


@pytest.fixture(scope="module", params=[COMMITTED, FULL], ids=["one image", "all images"])
def tensors(request):
    """What the official modules were given and gave."""
    return read_golden("pir", request.param)[1]


@torch.no_grad()
def test_a_converted_model_computes_what_the_official_modules_compute(golden_model, tensors):
    model = golden_model
    pixels, ids = tensors["in.pixel_values"], tensors["in.input_ids"]
    output = model(input_ids=ids, pixel_values=pixels)
    parts = model.image_parts(model.vision_tokens(pixels), pixels)
    words = model.text_projection(output.text_model_output.last_hidden_state)
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


@torch.no_grad()
def test_belief_is_the_officials_given_its_tokens_and_instruction(golden_model, tensors):
    _, found = golden_model.visual_instruction(
        tensors["out.vision_tokens"], tensors["out.instruction"].reshape(-1, 512)
    )
    expected = tensors["out.belief_logits"]
    assert ((found - expected).abs() <= 1e-5 * expected.abs().clamp(min=1)).all()


def test_every_official_weight_has_a_name_of_ours_that_leads_back():
    to_ours, to_theirs = translator(NAMES)
    names = read_golden("pir")[0]["official_state_dict"]
    used = [name for name in names if not re.search(r"^temp|relative_position_index$|attn_mask$", name)]
    used = [name.replace(".qkv.", ".query.") for name in used]
    ours = {name: to_ours(name) for name in used}
    assert len(used) == 905 - 2 - 12 - 5 and len(set(ours.values())) == len(used)
    assert all(to_theirs(name) == theirs for theirs, name in ours.items())


def test_a_converted_golden_says_what_was_published(golden_model):
    config = golden_model.config
    assert config.legacy and (config.filter_size, config.instruction_layers, config.cycles) == (40, 2, 3)
    assert (config.projection_dim, config.attention_heads, config.image_size) == (512, 8, 224)
    assert ([*config.vision_config.depths], config.vision_config.embed_dim) == ([2, 2, 6, 2], 96)
    assert (config.instruction_config.depths, config.text_config.num_hidden_layers) == ([3, 4, 6, 3], 12)
    assert golden_model.num_parameters() == 184_642_492 - 2  # the paper's, without the temperatures
    assert config.conversion["tensors"] == 905 - 2 - 12 - 5 + 2 * 24  # the qkv of 12 blocks is split in three


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


def test_each_tower_is_judged_by_itself(saved, tiny_state, tmp_path):
    state, norm = dict(tiny_state), "conv_encoder.1."
    state["text_encoder.embeddings.word_embeddings.weight"] = 0.04 * torch.randn(60, 64)
    report = convert(saved(state, **OPTIONS), tmp_path / "text")
    assert report["instruction_weights"].startswith("never") and report["text_weights"].startswith("loaded")
    state = {**tiny_state, f"{norm}bias": tiny_state[f"{norm}bias"] + 0.01}  # one of the two is enough
    report = convert(saved(state, **OPTIONS), tmp_path / "prior")
    assert report["instruction_weights"].startswith("loaded") and report["text_weights"].startswith("never")
    assert len(report["warnings"]) == 1


def test_a_card_written_later_still_tells_it(saved, tiny_state, tmp_path):
    convert(saved(tiny_state, **OPTIONS), tmp_path / "out")
    model = AutoModel.from_pretrained(tmp_path / "out")
    text = write_model_card(tmp_path / "out", model=model, name="user/pir", results=[], training={}).read_text()
    assert "| instruction weights | never loaded" in text and "| text weights | never loaded" in text
    prior = sum(p.numel() for p in model.instruction_model.parameters())
    assert f"| instruction encoder | resnet, {prior:,} parameters, frozen |" in text
    assert "10.1145/3581783.3612374" in text and "arXiv" not in text
    assert "A Prior Instruction Representation Framework for Remote Sensing Image-text Retrieval" in text


def test_without_options_published_numbers_stand_in_and_are_named(saved, tiny_state, tmp_path):
    report = convert(saved(tiny_state), tmp_path / "out")
    assert report["published_defaults"] == ["filter_size", "head"]
    assert AutoModel.from_pretrained(tmp_path / "out").config.filter_size == 40


def test_a_baseline_has_neither_prior_nor_cycles(saved, tiny_state, tmp_path):
    report = convert(saved(tiny_state, **{**OPTIONS, "is_baseline": True}), tmp_path / "out")
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert model.instruction_model is None and model.language_cycles is None
    unused = ("conv_", "mapping_", "head_", "img_", "txt_")
    assert report["dropped"]["all but the towers"] == sum(name.startswith(unused) for name in tiny_state)
    assert "instruction_weights" not in report  # nothing instructs it
    towers = {name: tensor for name, tensor in tiny_state.items() if not name.startswith(unused)}
    again = convert(saved(towers, **{**OPTIONS, "is_baseline": True}), tmp_path / "towers")
    assert "all but the towers" not in again["dropped"]
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "towers"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("key", ["img_sa.0.extra", "head_something.weight", "conv_encoder.2.weight"])
def test_a_baseline_hides_no_unknown_weight(saved, refused, tiny_state, tmp_path, key):
    path = saved({**tiny_state, key: torch.ones(1)}, **{**OPTIONS, "is_baseline": True})
    error = refused(path, tmp_path / "out")
    assert "unknown weights" in error and key in error


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"instru_num": 3}, "config.instru_num is 3, but the weights are those of 2"),
        ({"cycle_num": 1}, "config.cycle_num is 1, but the weights are those of 3"),
        ({"embed_dim": 512}, "config.embed_dim is 512, but the weights are those of 16"),
        ({"embed_dim": 512, "is_baseline": True}, "config.embed_dim is 512"),
        ({"filter_size": "40"}, "config.filter_size is '40'"),
        ({"is_baseline": "False"}, "config.is_baseline is 'False'"),
        ({"head": None}, "config.head is None"),
        ({"dropout_r": "0.2"}, "config.dropout_r is '0.2'"),
        ({"head": 0}, "config.head is 0; expected 1 or more"),
        ({"image_res": 33}, "config.image_res is 33, not a number of pixels"),
        ({"head": 3}, "attention_heads=3 does not divide"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_named(saved, refused, tiny_state, tmp_path, options, words):
    assert words in refused(saved(tiny_state, **{**OPTIONS, **options}), tmp_path / "out")


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
        "vision_encoder.patch_embed.proj.weight",  # this and those below are read to infer the towers
        "vision_encoder.layers.0.blocks.0.attn.qkv.weight",
        "vision_encoder.layers.0.blocks.0.attn.qkv.bias",
        "vision_encoder.layers.1.blocks.0.attn.relative_position_bias_table",
        "conv_encoder.0.weight",
        "conv_encoder.5.0.conv3.weight",
        "text_encoder.embeddings.word_embeddings.weight",
        "text_proj.weight",
        "text_encoder.encoder.layer.0.output.dense.bias",
    ],
)
def test_a_missing_weight_is_named_as_the_file_would_name_it(saved, refused, tiny_state, tmp_path, key):
    state = {name: tensor for name, tensor in tiny_state.items() if name != key}
    error = refused(saved(state, **OPTIONS), tmp_path / "out")
    assert "lacks" in error and key in error


def test_a_weight_of_another_shape_than_the_rest_implies_is_named(saved, refused, tiny_state, tmp_path):
    state = {**tiny_state, "conv_proj.weight": torch.ones(16, 33)}
    error = refused(saved(state, **OPTIONS), tmp_path / "out")
    assert "another shape" in error and "conv_proj.weight (16, 33), (16, 32)" in error


def test_given_configurations_replace_what_the_tensors_imply(saved, refused, tiny_state, tmp_path):
    path = saved(tiny_state, **OPTIONS)
    sizes = {"embedding_size": 8, "hidden_sizes": [16, 32], "layer_type": "bottleneck"}
    for name, depths in (("right", [1, 2]), ("wrong", [1, 1])):
        (tmp_path / f"{name}.json").write_text(json.dumps({"model_type": "resnet", "depths": depths, **sizes}))
    error = refused(path, tmp_path / "out", "--instruction-config", tmp_path / "wrong.json")
    assert "unknown weights" in error and "conv_encoder.5.1.bn1.bias" in error
    convert(path, tmp_path / "out", instruction_config=tmp_path / "right.json")
    convert(path, tmp_path / "inferred")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "inferred"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_weight_that_is_not_finite_is_named(saved, refused, tiny_state, tmp_path):
    state = {**tiny_state, "img_ca.0.norm1.bias": torch.full((16,), math.nan)}
    assert "img_ca.0.norm1.bias holds NaN" in refused(saved(state, **OPTIONS), tmp_path / "out")


@pytest.mark.parametrize("place", ["config", "model", "whole", "inside config"])
def test_a_pickle_that_wants_to_run_something_is_refused_and_runs_nothing(refused, tiny_state, tmp_path, place):
    hostile = Hostile(tmp_path / "witness")
    content = {
        "config": {"model": tiny_state, "config": hostile},
        "model": {"model": {**tiny_state, "head_img.bias": hostile}, "config": OPTIONS},
        "whole": hostile,
        "inside config": {"model": tiny_state, "config": {**OPTIONS, "image_root": hostile}},
    }[place]
    torch.save(content, tmp_path / "checkpoint_best.pth")
    error = refused(tmp_path / "checkpoint_best.pth", tmp_path / "out")
    assert "refused, and nothing of it was run" in error and not (tmp_path / "witness").exists()


def test_a_folder_with_something_in_it_is_not_overwritten(saved, tiny_state, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("keep me")
    with pytest.raises(CheckpointError, match="not an empty folder"):
        convert(saved(tiny_state, **OPTIONS), tmp_path / "full")
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["precious.txt"]


# --- processor, network ----------------------------------------------------------------------------------------------


CAPTIONS = [
    "Two planes, (a well-known airport)!",
    '<person> on the A/B road: #1 *boat*; "red" roofs ~ isn\'t it?',
    "A  café--near\ta   RIVER.",
    "<PERSON>",
    "5.5 white/black...planes",
    "unheard-of (word)",
]
WORDS = """[PAD] [UNK] [CLS] [SEP] [MASK] a two plane ##s airport well known person on the b road 1 boat red roofs is
##nt isnt it cafe near river 55 white black blackplanes unheard of word""".split()


def official_pieces(caption, pieces):
    """What the official code makes of a caption, step by step (30 words, 47 tokens)."""
    caption = re.sub(r"[,.'!?\"()*#:;~]", "", caption.lower()).replace("-", " ").replace("/", " ")
    words = re.sub(r"\s{2,}", " ", caption.replace("<person>", "person")).strip().split(" ")[:30]
    return ["[CLS]", *pieces.tokenize(" ".join(words))][:47]


@pytest.fixture
def vocabulary(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return tmp_path / "vocab.txt"


def test_the_official_text_handling_is_in_the_saved_tokenizer(saved, tiny_state, vocabulary, tmp_path):
    pieces = BertTokenizer(vocab={word: row for row, word in enumerate(WORDS)}, do_lower_case=True)
    convert(saved(tiny_state, **OPTIONS), tmp_path / "first", tokenizer=vocabulary)
    convert(saved(tiny_state, **OPTIONS), tmp_path / "second", tokenizer=tmp_path / "first")  # a folder will do
    for name in ("first", "second"):
        processor = AutoProcessor.from_pretrained(tmp_path / name)
        assert type(processor) is PIRProcessor and processor.tokenizer.model_max_length == 47
        for caption in CAPTIONS:
            ids = processor(text=[caption])["input_ids"][0]
            assert processor.tokenizer.convert_ids_to_tokens(ids) == official_pieces(caption, pieces)
    assert official_pieces(CAPTIONS[0], pieces) == "[CLS] two plane ##s a well known airport".split()
    model = AutoModel.from_pretrained(tmp_path / "first")
    assert model.encode_text(["two planes", "a"]).shape == (2, 16)


def test_captions_end_after_47_tokens_and_batches_are_padded(saved, tiny_state, vocabulary, tmp_path):
    convert(saved(tiny_state, **OPTIONS), tmp_path / "out", tokenizer=vocabulary)
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    batch = processor(text=["planes " * 28, "a road", "boat " * 60], return_tensors="pt")
    assert batch["input_ids"].shape == (3, 47)
    assert batch["attention_mask"].sum(1).tolist() == [47, 3, 47]  # the first: 28 words, 56 pieces
    assert WORDS.index("[SEP]") not in batch["input_ids"] and (batch["input_ids"][:, 0] == WORDS.index("[CLS]")).all()


def test_pictures_become_squares_normalised_as_clips(saved, tiny_state, vocabulary, tmp_path, tiny_pictures):
    convert(saved(tiny_state, **OPTIONS), tmp_path / "out", tokenizer=vocabulary)
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    pixels = processor(images=tiny_pictures, return_tensors="pt")["pixel_values"]
    assert pixels.shape == (6, 3, 64, 64) and processor.image_processor.resample == 3  # bicubic
    white = processor(images=tiny_pictures[0].point(lambda _: 255), return_tensors="pt")["pixel_values"][0]
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    torch.testing.assert_close(white, ((1 - mean) / std)[:, None, None].expand(3, 64, 64), atol=1e-5, rtol=0)


def test_a_tokenizer_that_does_not_fit_is_refused(saved, refused, tiny_state, tiny_tokenizer, tmp_path):
    path = saved(tiny_state, **OPTIONS)
    tiny_tokenizer.save_pretrained(tmp_path / "large")
    error = refused(path, tmp_path / "out", "--tokenizer", tmp_path / "large")
    assert f"{len(tiny_tokenizer)} tokens" in error and "60 rows" in error
    assert "no folder of a tokenizer" in refused(path, tmp_path / "out", "--tokenizer", "bert-base-uncased")


def test_without_a_tokenizer_no_processor_is_written_and_nobody_is_called(
    saved, tiny_state, tmp_path, monkeypatch, capsys
):
    def refuse(*args, **kwargs):
        called.append(args)
        raise OSError("no network here")

    called = []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)  # no politeness: it must not even try
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert vsehub(["convert", "pir", str(saved(tiny_state, **OPTIONS)), str(tmp_path / "out")]) == 0
    assert not called and "no processor was written" in capsys.readouterr().out
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "modeling_pir.py", "tel.py"} <= written
    assert not any("token" in name or "processor_config" in name for name in written)
    assert str(tmp_path) not in "".join((tmp_path / "out" / name).read_text() for name in ("config.json", "README.md"))
