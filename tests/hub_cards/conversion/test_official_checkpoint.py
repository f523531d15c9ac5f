"""Checkpoints of research code: what is refused, how names are translated, which towers the tensors imply."""

import argparse
import json
import math
from collections import Counter

import pytest
import torch
from hostile import Hostile
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    ResNetConfig,
    ResNetModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTModel,
)

from vsehub import D2SVSEModel
from vsehub.hub_cards.conversion.official_checkpoint import (
    CheckpointError,
    WeightError,
    check_folders,
    check_image_size,
    check_options,
    count_blocks,
    infer_bert,
    infer_resnet,
    infer_vision,
    load_strictly,
    load_tokenizer,
    open_checkpoint,
    renamed,
    shape_of,
    sort_out,
    tower_config,
    translator,
    vocabulary_warnings,
)

STATE = {"txt.weight": torch.arange(6.0).reshape(2, 3), "img.bias": torch.ones(2)}


@pytest.fixture
def saved(tmp_path):
    """A function: the content of a file -> its path."""

    def save(content):
        torch.save(content, tmp_path / "best.pth")
        return tmp_path / "best.pth"

    return save


# --- The file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "options"),
    [
        ({}, {}),
        ({"opt": None}, {}),
        ({"opt": argparse.Namespace(img_res=224)}, {"img_res": 224}),
        ({"config": {"head": 2}}, {"head": 2}),
        ({"opt": {"a": 1}, "config": {"b": 2}, "epoch": 3}, {"a": 1}),
    ],
    ids=str,
)
def test_tensors_and_options_are_read_and_the_prefix_of_distributed_training_goes(saved, more, options):
    state, found = open_checkpoint(saved({"model": {f"module.{key}": value for key, value in STATE.items()}, **more}))
    assert state.keys() == STATE.keys() and all(torch.equal(state[key], STATE[key]) for key in STATE)
    assert found == options


def test_a_prefix_is_taken_off_the_beginning_alone(saved):
    state, _ = open_checkpoint(saved({"model": {"txt.module.weight": torch.ones(1)}}))
    assert list(state) == ["txt.module.weight"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"state_dict": {}}, "no 'model' entry with a state dict; the official files have one"),
        ({"model": {}}, "no 'model' entry"),
        ({"model": [torch.ones(1)]}, "no 'model' entry"),
        (torch.ones(3), "no 'model' entry"),
        ({"model": {"txt.weight": [1.0]}}, "'model' holds a list at 'txt.weight', not tensors alone"),
        ({"model": {7: torch.ones(1)}}, "'model' holds a Tensor at 7"),
        ({"model": {"txt.bias": torch.tensor([1.0, math.nan])}}, "txt.bias holds NaN or infinity"),
        ({"model": {"txt.bias": torch.tensor([-math.inf])}}, "txt.bias holds NaN or infinity"),
        ({"model": {"txt.bias": torch.eye(3).to_sparse()}}, "txt.bias is a sparse_coo tensor"),
        ({"model": {"txt.bias": torch.empty(9, device="meta")}}, "txt.bias is a meta tensor"),
        ({"model": {"txt.bias": torch.ones(1).expand(9)}}, r"txt.bias says that it has shape \(9,\), but the file"),
        ({"model": {"txt.bias": torch.ones(3).to(torch.float8_e4m3fn)}}, "txt.bias holds float8_e4m3fn numbers"),
        ({"model": {"txt.bias": torch.ones(3, dtype=torch.complex64)}}, "txt.bias holds complex64 numbers"),
        ({"model": {"txt.bias": torch.ones(5, 0)}}, r"txt.bias has shape \(5, 0\), without a number in it"),
        ({"model": {"a": torch.ones(1), "module.a": torch.ones(1)}}, "'model' holds weights both with and without"),
        ({"model": STATE, "config": "config.yaml"}, "its options are a str, not names and values"),
        ({"model": STATE, "opt": [1]}, "its options are a list"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_of_another_form_is_refused_with_its_name(saved, content, words):
    with pytest.raises(CheckpointError, match=f"best.pth: {words}"):
        open_checkpoint(saved(content))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a download", b"<html>404</html>"])
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "best.pth"
    with pytest.raises(CheckpointError, match="best.pth: no such file"):
        open_checkpoint(path)
    with pytest.raises(CheckpointError, match="is a folder: name the official file in it"):
        open_checkpoint(path.parent)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="best.pth: refused, and nothing of it was run"):
        open_checkpoint(path)


def test_a_pickle_that_calls_something_is_refused_with_what_it_calls(saved, tmp_path):
    with pytest.raises(CheckpointError, match="nothing of it was run: .*system"):
        open_checkpoint(saved({"model": STATE, "opt": Hostile(tmp_path / "witness")}))
    assert not (tmp_path / "witness").exists()


def test_only_new_and_empty_folders_are_written_to(tmp_path):
    (tmp_path / "empty").mkdir()
    check_folders(tmp_path / "new", tmp_path / "empty", None)
    (tmp_path / "file").touch()
    for place in ("file", "."):
        with pytest.raises(CheckpointError, match="exists and is not an empty folder; choose a new one"):
            check_folders(tmp_path / "new", tmp_path / place)


# --- Names -----------------------------------------------------------------------------------------------------------

NAMES = {
    "enc.blocks.{a}.attn.": "encoder.layers.{a}.attention.",
    "conv.{a+4}.{b}.conv1.": "stages.{a}.layers.{b}.0.",
    "pool.": "image_pooling.",
    "a.b": "dotted",
}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("enc.blocks.11.attn.qkv.weight", "encoder.layers.11.attention.qkv.weight"),
        ("conv.4.0.conv1.weight", "stages.0.layers.0.0.weight"),
        ("conv.17.12.conv1.weight", "stages.13.layers.12.0.weight"),
        ("pool.gru.bias", "image_pooling.gru.bias"),
        ("a.b", "dotted"),
    ],
)
def test_a_name_is_translated_there_and_back(theirs, ours):
    to_ours, to_theirs = translator(NAMES)
    assert to_ours(theirs) == ours and to_theirs(ours) == theirs


@pytest.mark.parametrize("name", ["", "enc.blocks.x.attn.w", "enc.blocks..attn.w", "my.enc.blocks.1.attn.w", "aXb"])
def test_a_name_outside_the_table_has_no_translation_and_is_an_error(name):
    to_ours, to_theirs = translator(NAMES)
    assert to_ours(name) is None and to_theirs(name) is None
    with pytest.raises(CheckpointError, match="unknown weights, which no released PIR model has"):
        renamed(to_ours, name, "PIR")


def test_the_first_line_of_the_table_that_fits_counts():
    to_ours, to_theirs = translator({"txt.fc.": "head.", "txt.": "text."})
    assert to_ours("txt.fc.bias") == "head.bias" and to_ours("txt.ln.bias") == "text.ln.bias"
    assert to_theirs("head.bias") == "txt.fc.bias" and renamed(to_ours, "txt.ln.bias", "PIR") == "text.ln.bias"


def test_what_is_not_used_is_counted_by_its_label_and_the_rest_renamed():
    state = {name: torch.tensor(float(row)) for row, name in enumerate(("temp", "temp2", "txt.a", "x.index", "txt.b"))}
    used, dropped = sort_out(state, {"temp": "temp", "indices": r".*\.index$"}, lambda name: f"ours.{name}")
    assert used == {"ours.txt.a": state["txt.a"], "ours.txt.b": state["txt.b"]}
    assert dropped == Counter(temp=2, indices=1)


def test_whole_numbers_are_no_weights_and_no_weight_hides_another():
    counter, whole = {"bn.num_batches_tracked": torch.tensor(3)}, {"txt.a": torch.tensor([3])}
    assert sort_out(counter, {}, str)[0] == counter and sort_out(whole, {"a": "txt"}, str)[1] == {"a": 1}
    with pytest.raises(CheckpointError, match="txt.a holds int64 numbers"):
        sort_out(whole, {}, str)
    with pytest.raises(CheckpointError, match="layer.00 is there twice"):
        sort_out({"layer.0": torch.ones(1), "layer.00": torch.ones(1)}, {}, lambda name: "layer.0")


# --- Towers ----------------------------------------------------------------------------------------------------------


def test_a_configuration_of_any_version_is_read_and_unknown_fields_go(tmp_path):
    values = {"model_type": "bert", "hidden_size": 64, "gradient_checkpointing": False, "transformers_version": "4.6"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    for source in (values, tmp_path / "config.json", str(tmp_path / "config.json")):
        config = tower_config(source)
        assert type(config) is BertConfig and config.hidden_size == 64
        assert "gradient_checkpointing" not in config.to_dict()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"model_type": "no such"}', '{"model_type": "bert", "hidden_size": "wide"}', None]
)
def test_what_is_no_configuration_of_a_tower_is_refused_with_its_name(tmp_path, text):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="config.json: not a tower's config.json with a 'model_type'"):
        tower_config(tmp_path / "config.json")


BERT = {"vocab_size": 40, "num_hidden_layers": 3, "intermediate_size": 96, "max_position_embeddings": 24}
SWIN = {"num_channels": 3, "patch_size": 4, "mlp_ratio": 2.0}
TOWERS = {
    "BERT, one head": (BertModel, BertConfig(**BERT, hidden_size=64, num_attention_heads=1)),
    "BERT, two heads": (BertModel, BertConfig(**BERT, hidden_size=128, num_attention_heads=2, type_vocab_size=1)),
    "ViT": (
        ViTModel,
        ViTConfig(
            image_size=48,
            patch_size=8,
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=96,
        ),
    ),
    "ViT, grey, without biases": (
        ViTModel,
        ViTConfig(
            image_size=32,
            patch_size=16,
            hidden_size=64,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=64,
            num_channels=1,
            qkv_bias=False,
        ),
    ),
    "Swin": (
        SwinModel,
        SwinConfig(**SWIN, image_size=64, embed_dim=32, depths=[1, 2], num_heads=[1, 2], window_size=2),
    ),
    "Swin, three stages, window 3": (
        SwinModel,
        SwinConfig(
            **SWIN, image_size=96, embed_dim=16, depths=[2, 1, 1], num_heads=[1, 2, 4], window_size=3, qkv_bias=False
        ),
    ),
    "ResNet": (
        ResNetModel,
        ResNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[1, 2], layer_type="bottleneck"),
    ),
}
READ_OFF = {
    "bert": [*BERT, "hidden_size", "num_attention_heads", "type_vocab_size"],
    "vit": """image_size patch_size hidden_size num_hidden_layers num_attention_heads intermediate_size num_channels
    qkv_bias""".split(),
    "swin": [*SWIN, "image_size", "embed_dim", "depths", "num_heads", "window_size", "qkv_bias"],
    "resnet": ["embedding_size", "hidden_sizes", "depths", "layer_type"],
}


@pytest.mark.parametrize("case", TOWERS)
def test_a_tower_is_inferred_from_its_tensors_as_its_true_configuration_says(tmp_path, case):
    model_class, config = TOWERS[case]
    model_class(config).save_pretrained(tmp_path)
    state = {f"tower.{name}": tensor for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    infer = {"bert": infer_bert, "resnet": infer_resnet}.get(config.model_type, infer_vision)
    inferred = infer({**state, "other.encoder.layer.99.weight": torch.ones(1)}, "tower.")
    assert inferred.model_type == config.model_type
    for name in READ_OFF[config.model_type]:
        assert getattr(inferred, name) == getattr(config, name), name
    with pytest.raises(WeightError) as missing:
        infer({}, "tower.")
    assert missing.value.name.startswith("tower.") and missing.value.name in str(missing.value)


def test_blocks_are_counted_and_a_gap_between_them_is_named():
    state = dict.fromkeys(["layer.0.w", "layer.0.b", "layer.1.w", "layer.norm.w", "other.layer.12.w", "layers.20.w"])
    assert count_blocks(state, "layer.") == 2 and count_blocks(state, "none.") == 0
    with pytest.raises(WeightError, match="layer.99999.w is there, but no weight of block 2 before it"):
        count_blocks({**state, "layer.99999.w": None}, "layer.")
    with pytest.raises(WeightError, match="other.layer.12.w is there, but no weight of block 0"):
        count_blocks(state, "other.layer.")


def test_a_shape_is_read_or_its_weight_named():
    assert shape_of(STATE, "txt.weight", 2) == (2, 3)
    with pytest.raises(WeightError, match="the checkpoint lacks txt.bias"):
        shape_of(STATE, "txt.bias", 1)
    with pytest.raises(WeightError, match=r"img.bias has shape \(2,\); it needs 2 dimensions"):
        shape_of(STATE, "img.bias", 2)


def test_every_weight_that_a_tower_is_read_from_may_have_any_shape_and_is_named(tmp_path):
    refused = 0
    for case in ("BERT, two heads", "ViT", "Swin", "ResNet"):
        model_class, config = TOWERS[case]
        model_class(config).save_pretrained(tmp_path / case)
        state = load_file(tmp_path / case / "model.safetensors")
        infer = {"bert": infer_bert, "resnet": infer_resnet}.get(config.model_type, infer_vision)
        for name in state:
            for shape in ((), (7,), (7, 7), (7, 7, 7, 7)):
                try:
                    infer({**state, name: torch.ones(shape)}, "")
                except WeightError as error:
                    assert error.name == name and name in str(error)
                    refused += 1
    assert refused >= 30


def test_towers_that_no_head_or_patch_fits_are_refused():
    vit = {"embeddings.patch_embeddings.projection.weight": torch.ones(200, 3, 8, 8)}
    vit |= {"embeddings.position_embeddings": torch.ones(1, 17, 200)}
    with pytest.raises(WeightError, match="projection.weight is 200 wide, not a multiple of 64"):
        infer_vision(vit, "")
    with pytest.raises(WeightError, match="position_embeddings has no position of a patch"):
        infer_vision(vit | {"embeddings.position_embeddings": torch.ones(1, 1, 200)}, "")


def test_options_of_wrong_types_are_named():
    kinds = {"heads": int, "residual": bool, "rate": (int, float)}
    check_options({"heads": 4, "residual": False, "rate": 1, "other": "x"}, kinds, "opt")
    for options, words in (
        ({"heads": 4.0}, "opt.heads is 4.0; expected an integer"),
        ({"heads": True}, "opt.heads is True; expected an integer"),
        ({"residual": None}, "opt.residual is None; expected true or false"),
        ({"residual": torch.ones(1)}, "expected true or false"),
        ({"rate": "0.2"}, "opt.rate is '0.2'; expected a number"),
    ):
        with pytest.raises(CheckpointError, match=words):
            check_options(options, kinds, "opt")


@pytest.mark.parametrize("size", [0, -8, 5, 33, 10**9])
def test_a_size_of_images_that_patches_do_not_fill_is_refused(size):
    check_image_size(48, TOWERS["ViT"][1], "opt.img_res", "pass --image_size")
    with pytest.raises(CheckpointError, match=f"opt.img_res is {size}, .*patches of 8 fill; pass --image_size"):
        check_image_size(size, TOWERS["ViT"][1], "opt.img_res", "pass --image_size")


# --- Tokenizer and weights -------------------------------------------------------------------------------------------


def test_a_tokenizer_is_read_of_a_vocabulary_or_a_folder_and_cut_where_the_tower_ends(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "café"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    config = BertConfig(vocab_size=8, max_position_embeddings=12)
    tokenizer = load_tokenizer(tmp_path / "vocab.txt", config)
    assert tokenizer("A dog cat")["input_ids"] == [2, 5, 6, 1, 3] and tokenizer.model_max_length == 12
    tokenizer.save_pretrained(tmp_path / "folder")
    again = load_tokenizer(tmp_path / "folder", config)
    assert again("A dog cat")["input_ids"] == [2, 5, 6, 1, 3] and again.model_max_length == 12
    with pytest.raises(CheckpointError, match="8 tokens, but the text tower's table has 7 rows"):
        load_tokenizer(tmp_path / "vocab.txt", BertConfig(vocab_size=7))
    with pytest.raises(CheckpointError, match="nowhere: no folder of a tokenizer and no vocab.txt"):
        load_tokenizer(tmp_path / "nowhere", config)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"lacks \[PAD\], \[UNK\], \[CLS\], \[SEP\], \[MASK\]"),
        ("just a line\nanother\n", r"vocab.txt: not BERT's vocab.txt, .* lacks \[PAD\]"),
        ("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n", r"lacks \[MASK\]"),
        ("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n", "has no words"),
        ("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\na\n", "line 6 is there twice"),
    ],
)
def test_a_text_that_is_no_vocabulary_is_refused(tmp_path, text, words):
    (tmp_path / "vocab.txt").write_text(text)
    with pytest.raises(CheckpointError, match=words):
        load_tokenizer(tmp_path / "vocab.txt", BertConfig(vocab_size=8))


def test_a_folder_without_a_tokenizer_or_without_its_words_is_refused(tmp_path, tiny_tokenizer):
    with pytest.raises(CheckpointError, match="no tokenizer can be read there .*with tokenizer.json") as refused:
        load_tokenizer(tmp_path, BertConfig())
    assert "\n" not in str(refused.value) and "sentencepiece" not in str(refused.value)
    BertTokenizer(vocab={}).save_pretrained(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="empty: a tokenizer without words"):
        load_tokenizer(tmp_path / "empty", BertConfig())
    tokens = len(tiny_tokenizer)
    assert vocabulary_warnings(tiny_tokenizer, BertConfig(vocab_size=tokens)) == []
    (warning,) = vocabulary_warnings(tiny_tokenizer, BertConfig(vocab_size=tokens + 1))
    assert f"{tokens} tokens" in warning and f"{tokens + 1} rows" in warning


@pytest.fixture
def weights(tiny_folder):
    return load_file(tiny_folder / "model.safetensors")


def load(tiny_config, state):
    return load_strictly(D2SVSEModel, tiny_config, state, lambda name: f"theirs.{name}", "num_batches_tracked")


def test_a_strict_load_gives_the_same_weights(tiny_model, tiny_config, weights):
    found, expected = load(tiny_config, weights).state_dict(), tiny_model.state_dict()
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state | {"text_head.extra": torch.ones(1)}, "no place for: theirs.text_head.extra"),
        (
            lambda state: {name: value for name, value in state.items() if name != "image_projection.bias"},
            "the checkpoint lacks theirs.image_projection.bias",
        ),
        (
            lambda state: state | {"image_projection.bias": torch.ones(17)},
            r"\(file, model\): theirs.image_projection.bias \(17,\), \(16,\)",
        ),
    ],
    ids=["unknown", "missing", "shape"],
)
def test_a_weight_too_many_too_few_or_of_another_shape_is_named_as_the_file_does(tiny_config, weights, change, words):
    assert "image_projection.bias" in weights
    with pytest.raises(CheckpointError, match=words):
        load(tiny_config, change(weights))
