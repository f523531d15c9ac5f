"""The converter of official D2S-VSE checkpoints: parity with the official modules, and every refusal."""

import argparse
import json
import math
import shutil
import socket
from pathlib import Path

import huggingface_hub
import pytest
import torch
from golden import COMMITTED, FULL, golden_tensor, read_golden
from hostile import Hostile
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModel, AutoProcessor

from vsehub import D2SVSEModel, D2SVSEProcessor
from vsehub.__main__ import main as vsehub
from vsehub.commands.convert_d2s_vse import main
from vsehub.hub_cards.conversion.convert_d2s_vse import convert
from vsehub.hub_cards.conversion.official_checkpoint import CheckpointError
from vsehub.hub_cards.push import shipped_files
from vsehub.losses import EmbeddingDistillationLoss, HingeLoss

WIDTH, DIM, POOL, TOKENS, WORDS = 64, 16, 4, 5, 60  # of the tiny official files below


class Golden:
    """An official file built by the rule, converted by the command line, and what the official modules gave."""

    def __init__(self, kind: str, folder: Path, with_configs: bool):
        facts, self.tensors = read_golden(f"d2s_vse_{kind}", COMMITTED if kind == "vit" else FULL)
        self.folder = folder
        state = {
            name: golden_tensor(name, shape, dtype, facts["salt"])
            for name, (shape, dtype) in facts["official_state_dict"].items()
        }
        self.image_size = self.tensors["in.pixel_values"].shape[-1]
        content = {"model": state, "opt": argparse.Namespace(img_res=224), "epoch": 3, "best_rsum": 1.5, "Eiters": 7}
        torch.save(content, folder / "model_best.pth")
        arguments = [str(folder / "model_best.pth"), str(folder / "out"), "--image_size", str(self.image_size)]
        for tower in ("vision", "text") if with_configs else ():
            (folder / f"{tower}.json").write_text(json.dumps(facts[tower]))
            arguments += [f"--{tower}-config", str(folder / f"{tower}.json")]
        assert main([*arguments, "--teacher-out", str(folder / "teacher")]) == 0
        self.model = AutoModel.from_pretrained(folder / "out").eval()
        self.teacher = AutoModel.from_pretrained(folder / "teacher").eval()

    @torch.no_grad()
    def outputs(self) -> dict[str, torch.Tensor]:
        """Everything that the goldens hold, from the converted models."""
        given = {name.removeprefix("in."): t for name, t in self.tensors.items() if name.startswith("in.")}
        mask, dense_mask = ((given[name] != 0).long() for name in ("input_ids", "dense_input_ids"))
        output = self.model(input_ids=given["input_ids"], attention_mask=mask, pixel_values=given["pixel_values"])
        hidden = self.model.text_model(input_ids=given["input_ids"], attention_mask=mask).last_hidden_state
        words, pooled, decoded = self.model.text_parts(hidden, mask)
        dense = self.teacher.get_text_features(given["dense_input_ids"], dense_mask).pooler_output
        student, hinge = pooled + decoded, HingeLoss(margin=0.2)
        pairs = (output.image_embeds, F.normalize(student, dim=-1), given["image_index"])
        return {
            "image_embeds": output.image_embeds,
            "text_embeds_inference": output.text_embeds,
            "word_features": words,
            "text_pooled": pooled,
            "decoder_vector": decoded,
            "text_train_vector": student,
            "dense_pooled": dense,
            "align_loss_all": hinge(*pairs, hardest=False),
            "align_loss_hard": hinge(*pairs, hardest=True),
            "distill_cos": EmbeddingDistillationLoss("cosine")(student, dense),
            "distill_l2": EmbeddingDistillationLoss("l2")(student, dense),
        }


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("swin", "vit, inferred")]


@pytest.fixture(scope="module", params=["vit", "swin, inferred", *SLOW])
def golden(request, tmp_path_factory):
    kind, _, inferred = request.param.partition(", ")
    folder = tmp_path_factory.mktemp("golden")
    yield Golden(kind, folder, with_configs=not inferred)
    shutil.rmtree(folder)  # half a gigabyte


def test_a_converted_model_computes_what_the_official_modules_compute(golden):
    expected = {name.removeprefix("out."): t for name, t in golden.tensors.items() if name.startswith("out.")}
    found = golden.outputs()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        worst = ((found[name] - value).abs() / value.abs().clamp(min=1)).max().item()
        print(f"{name}: {worst:.1e}")
        assert worst <= 1e-5, name


def test_a_converted_model_says_where_it_comes_from(golden):
    config = golden.model.config
    assert config.legacy and config.use_decoder and config.image_size == golden.image_size
    assert config.vision_config.image_size != golden.image_size  # the position table's, not the images'
    assert (config.num_mask_tokens, config.decoder_layers, config.decoder_heads) == (100, 4, 4)
    assert (config.projection_dim, config.pooling_dim) == (512, 32)
    assert config.conversion["source"] == "model_best.pth" and len(config.conversion["sha256"]) == 64
    assert config.conversion["image_size_from"] == "--image_size"
    assert config.conversion["dropped"]["prompt_learner.mask_token"] == 1
    assert "long_txt_enc.*" not in config.conversion["dropped"]
    assert golden.teacher.config.conversion["part"] == "teacher"
    assert not golden.teacher.config.use_decoder and golden.teacher.config.legacy
    state, teacher = golden.model.state_dict(), golden.teacher.state_dict()
    assert all(torch.equal(state[name], teacher[name]) for name in teacher if name.startswith(("vision", "image")))
    assert str(golden.folder) not in (golden.folder / "out" / "config.json").read_text()


# --- a tiny official file, key by key --------------------------------------------------------------------------------


def linear(name, out, width, bias=True):
    return {f"{name}.weight": (out, width), **({f"{name}.bias": (out,)} if bias else {})}


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def pooling(name):
    gru = f"{name}.gru"
    shapes = {f"{gru}.weight_{kind}_l0{way}": (3 * POOL, POOL) for kind in ("ih", "hh") for way in ("", "_reverse")}
    shapes |= {f"{gru}.bias_{kind}_l0{way}": (3 * POOL,) for kind in ("ih", "hh") for way in ("", "_reverse")}
    return shapes | linear(f"{name}.linear", 1, POOL, bias=False)


def batch_norm(name, width):
    running = {f"{name}.running_mean": (width,), f"{name}.running_var": (width,)}
    return norm(name, width) | running | {f"{name}.num_batches_tracked": ()}


def image_side():
    vit, shapes = "img_enc.visual_encoder", {}
    shapes |= {f"{vit}.embeddings.cls_token": (1, 1, WIDTH), f"{vit}.embeddings.position_embeddings": (1, 17, WIDTH)}
    shapes[f"{vit}.embeddings.patch_embeddings.projection.weight"] = (WIDTH, 3, 8, 8)
    shapes[f"{vit}.embeddings.patch_embeddings.projection.bias"] = (WIDTH,)
    for layer in (f"{vit}.encoder.layer.{row}" for row in range(2)):
        for part in ("query", "key", "value"):
            shapes |= linear(f"{layer}.attention.attention.{part}", WIDTH, WIDTH)
        shapes |= linear(f"{layer}.attention.output.dense", WIDTH, WIDTH)
        shapes |= linear(f"{layer}.intermediate.dense", 2 * WIDTH, WIDTH)
        shapes |= linear(f"{layer}.output.dense", WIDTH, 2 * WIDTH)
        shapes |= norm(f"{layer}.layernorm_before", WIDTH) | norm(f"{layer}.layernorm_after", WIDTH)
    shapes |= norm(f"{vit}.layernorm", WIDTH) | linear(f"{vit}.pooler.dense", WIDTH, WIDTH)
    return shapes | linear("img_enc.image_encoder.fc", DIM, WIDTH) | pooling("img_enc.image_encoder.gpool")


def text_side(name):
    bert, shapes = f"{name}.bert", {}
    for table, rows in {"word": WORDS, "position": 32, "token_type": 2}.items():
        shapes[f"{bert}.embeddings.{table}_embeddings.weight"] = (rows, WIDTH)
    shapes |= norm(f"{bert}.embeddings.LayerNorm", WIDTH) | linear(f"{bert}.pooler.dense", WIDTH, WIDTH)
    layer = f"{bert}.encoder.layer.0"
    for part in ("self.query", "self.key", "self.value", "output.dense"):
        shapes |= linear(f"{layer}.attention.{part}", WIDTH, WIDTH)
    shapes |= linear(f"{layer}.intermediate.dense", 2 * WIDTH, WIDTH)
    shapes |= linear(f"{layer}.output.dense", WIDTH, 2 * WIDTH)
    shapes |= norm(f"{layer}.attention.output.LayerNorm", WIDTH) | norm(f"{layer}.output.LayerNorm", WIDTH)
    shapes |= linear(f"{name}.fc", DIM, WIDTH) | norm(f"{name}.ln", DIM)
    shapes |= linear(f"{name}.mlp.layers.0", DIM // 2, WIDTH) | linear(f"{name}.mlp.layers.1", DIM, DIM // 2)
    shapes |= batch_norm(f"{name}.mlp.bns.0", DIM // 2) | batch_norm(f"{name}.mlp.bns.1", DIM)
    return shapes | pooling(f"{name}.gpool")


def decoder():
    shapes = {"prompt_learner.prompt_tokens": (TOKENS, DIM), "prompt_learner.mask_token": (TOKENS, DIM)}
    for block in (f"prompt_learner.decoder_blocks.{row}" for row in range(3)):
        shapes |= norm(f"{block}.norm1", DIM) | norm(f"{block}.norm2", DIM)
        shapes |= linear(f"{block}.attn.qkv", 3 * DIM, DIM) | linear(f"{block}.attn.proj", DIM, DIM)
        shapes |= linear(f"{block}.mlp.fc1", 2 * DIM, DIM) | linear(f"{block}.mlp.fc2", DIM, 2 * DIM)
    return shapes | norm("prompt_learner.decoder_norm", DIM)


def tiny_state(stage=2):
    shapes = image_side() | text_side("txt_enc")
    if stage == 2:
        shapes |= decoder() | text_side("long_txt_enc")
    dtypes = {name: "int64" if name.endswith("num_batches_tracked") else "float32" for name in shapes}
    return {name: golden_tensor(name, list(shape), dtypes[name], "") for name, shape in shapes.items()}


@pytest.fixture
def saved(tmp_path):
    """A function: a state dict and options -> the path of an official file."""

    def save(state, **options):
        content = {"model": state, "epoch": 1, **({"opt": argparse.Namespace(**options)} if options else {})}
        torch.save(content, tmp_path / "model_best.pth")
        return tmp_path / "model_best.pth"

    return save


@pytest.fixture
def refused(capsys, tmp_path):
    """A function: command line -> the one line of its error; nothing may have been written."""

    def refuse(*arguments):
        assert vsehub(["convert", "d2s-vse", *(str(argument) for argument in arguments)]) == 2
        error = capsys.readouterr().err.strip()
        assert "\n" not in error and "Traceback" not in error
        assert not (tmp_path / "out").exists() and not (tmp_path / "teacher").exists()
        return error

    return refuse


def test_a_stage_2_file_gives_a_decoder_of_the_size_that_its_tensors_have(saved, tmp_path, capsys):
    state = tiny_state()
    assert main([str(saved(state, img_res=32)), str(tmp_path / "out")]) == 0
    (report, remarks), teacher = capsys.readouterr(), sum(name.startswith("long_txt_enc.") for name in state)
    assert f"left out long_txt_enc.* ({teacher})" in report and "no processor" in report
    assert "image size 32 from opt.img_res" in report and "--image_size 384" in remarks
    model = AutoModel.from_pretrained(tmp_path / "out")
    config = model.config
    assert type(model) is D2SVSEModel and config.legacy and config.residual
    assert (config.num_mask_tokens, config.decoder_layers, config.decoder_heads) == (TOKENS, 3, 4)
    assert (config.projection_dim, config.pooling_dim, config.decoder_mlp_ratio) == (DIM, POOL, 2)
    assert (config.vision_config.model_type, config.vision_config.image_size) == ("vit", 32)
    assert (config.text_config.vocab_size, config.text_config.num_hidden_layers) == (WORDS, 1)
    assert config.conversion["dropped"]["long_txt_enc.*"] == teacher
    ours = model.state_dict()
    for theirs, name in {
        "prompt_learner.decoder_blocks.2.attn.qkv.weight": "mask_token_decoder.layers.2.qkv.weight",
        "txt_enc.mlp.bns.0.running_var": "text_head.norm.running_var",
        "txt_enc.mlp.layers.1.weight": "text_head.fc2.weight",
        "img_enc.image_encoder.gpool.gru.bias_hh_l0_reverse": "image_pooling.gru.bias_hh_l0_reverse",
    }.items():
        assert torch.equal(ours[name], state[theirs])


def test_a_stage_1_file_gives_a_model_without_decoder_and_has_no_teacher(saved, refused, tmp_path):
    path = saved(tiny_state(stage=1), img_res=32)
    error = refused(path, tmp_path / "out", "--teacher-out", tmp_path / "teacher")
    assert "long_txt_enc" in error and "only stage-2 files have a teacher" in error
    report = convert(path, tmp_path / "out")
    assert report["part"] == "stage 1" and "long_txt_enc.*" not in report["dropped"]
    assert not AutoModel.from_pretrained(tmp_path / "out").config.use_decoder


def test_the_module_prefix_of_distributed_training_is_taken_off(saved, tmp_path):
    state = {f"module.{name}": tensor for name, tensor in tiny_state().items()}
    convert(saved(state, img_res=32), tmp_path / "prefixed")
    convert(saved(tiny_state(), img_res=32), tmp_path / "plain")
    prefixed, plain = (load_file(tmp_path / name / "model.safetensors") for name in ("prefixed", "plain"))
    assert prefixed.keys() == plain.keys() and all(torch.equal(prefixed[name], plain[name]) for name in plain)


def test_without_options_the_image_size_must_be_given(saved, refused, tmp_path):
    path = saved(tiny_state())
    assert "pass --image_size" in refused(path, tmp_path / "out")
    report = convert(path, tmp_path / "out", image_size=48)
    assert (report["image_size"], report["image_size_from"], report["warnings"]) == (48, "--image_size", [])
    config = AutoModel.from_pretrained(tmp_path / "out").config
    assert config.image_size == 48 and config.vision_config.image_size == 32


def test_options_without_a_usable_image_size_are_refused(saved, refused, tmp_path):
    assert "pass --image_size" in refused(saved(tiny_state(), margin=0.2), tmp_path / "out")
    assert "opt.img_res is '384'" in refused(saved(tiny_state(), img_res="384"), tmp_path / "out")
    assert "--image_size: must be" in refused(saved(tiny_state(), img_res=32), tmp_path / "out", "--image_size", "-1")


def test_options_that_change_the_architecture_are_followed(saved, tmp_path):
    path = saved(tiny_state(), img_res=32, no_res_embed=False, decoder_heads=2)
    convert(path, tmp_path / "out")
    config = AutoModel.from_pretrained(tmp_path / "out").config
    assert config.residual is False and config.decoder_heads == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"decoder_heads": 4.0}, "opt.decoder_heads is 4.0; expected an integer"),
        ({"decoder_heads": True}, "opt.decoder_heads is True"),
        ({"decoder_heads": 0}, "opt.decoder_heads is 0; expected 1 or more"),
        ({"no_res_embed": "False"}, "opt.no_res_embed is 'False'; expected true or false"),
        ({"no_res_embed": None}, "opt.no_res_embed is None"),
        ({"img_res": 10**9}, "the size of the images is 1000000000"),
        ({"img_res": 33}, "patches of 8 fill; pass --image_size"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_named(saved, refused, tmp_path, options, words):
    assert words in refused(saved(tiny_state(), **{"img_res": 32, **options}), tmp_path / "out")


@pytest.mark.parametrize("shape", [(), (5,), (5, 5, 5), (64, 3, 0, 0), (5, 0)], ids=str)
def test_a_weight_of_any_other_shape_is_one_error_that_names_it(saved, refused, tmp_path, shape):
    for key in (
        "img_enc.visual_encoder.embeddings.patch_embeddings.projection.weight",
        "txt_enc.bert.embeddings.word_embeddings.weight",
        "txt_enc.fc.weight",
        "prompt_learner.decoder_blocks.0.mlp.fc1.weight",
        "prompt_learner.prompt_tokens",
    ):
        assert key in refused(saved({**tiny_state(), key: torch.ones(shape)}, img_res=32), tmp_path / "out")


def test_a_block_far_behind_the_others_builds_no_model(saved, refused, tmp_path):
    key = "txt_enc.bert.encoder.layer.99999.x"
    assert key in refused(saved({**tiny_state(), key: torch.ones(1)}, img_res=32), tmp_path / "out")


@pytest.mark.parametrize(
    "key", ["prompt_learner.gpool.linear.weight", "criterion.scale", "txt_enc.extra", "img_enc.visual_encoder.extra"]
)
def test_an_unknown_weight_is_named(saved, refused, tmp_path, key):
    error = refused(saved({**tiny_state(), key: torch.ones(1)}, img_res=32), tmp_path / "out")
    assert "unknown weights" in error and key in error


@pytest.mark.parametrize(
    "key",
    [
        "txt_enc.mlp.bns.0.running_mean",
        "txt_enc.fc.weight",
        "txt_enc.bert.encoder.layer.0.output.dense.bias",
        "img_enc.visual_encoder.encoder.layer.1.attention.attention.key.weight",
        "img_enc.visual_encoder.embeddings.position_embeddings",
        "img_enc.image_encoder.gpool.gru.bias_ih_l0",
        "prompt_learner.prompt_tokens",
        "prompt_learner.decoder_blocks.1.attn.proj.bias",
        "prompt_learner.decoder_blocks.1.mlp.fc2.weight",
    ],
)
def test_a_missing_weight_is_named(saved, refused, tmp_path, key):
    state = tiny_state()
    del state[key]
    error = refused(saved(state, img_res=32), tmp_path / "out")
    assert "lacks" in error and key in error


def test_a_weight_that_the_teacher_misses_is_named_and_nothing_is_written(saved, refused, tmp_path):
    state = tiny_state()
    del state["long_txt_enc.mlp.layers.1.bias"]
    error = refused(saved(state, img_res=32), tmp_path / "out", "--teacher-out", tmp_path / "teacher")
    assert "long_txt_enc.mlp.layers.1.bias" in error


def test_a_weight_of_another_shape_than_the_given_configuration_is_named(saved, refused, tmp_path):
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 2 * WIDTH}
    config = {"model_type": "bert", "vocab_size": WORDS + 1, "max_position_embeddings": 32, **sizes}
    (tmp_path / "text.json").write_text(json.dumps(config))
    error = refused(saved(tiny_state(), img_res=32), tmp_path / "out", "--text-config", tmp_path / "text.json")
    assert "shape" in error and "word_embeddings" in error
    (tmp_path / "text.json").write_text(json.dumps({**config, "model_type": "no such model"}))
    error = refused(saved(tiny_state(), img_res=32), tmp_path / "out", "--text-config", tmp_path / "text.json")
    assert "text.json" in error and "model_type" in error


def test_a_weight_that_is_not_finite_is_named(saved, refused, tmp_path):
    state = tiny_state()
    state["txt_enc.ln.bias"][3] = math.nan
    assert "txt_enc.ln.bias holds NaN" in refused(saved(state, img_res=32), tmp_path / "out")


@pytest.mark.parametrize("place", ["opt", "model", "whole", "inside opt"])
def test_a_pickle_that_wants_to_run_something_is_refused_and_runs_nothing(refused, tmp_path, place):
    hostile = Hostile(tmp_path / "witness")
    content = {
        "opt": {"model": tiny_state(), "opt": hostile},
        "model": {"model": {**tiny_state(), "txt_enc.fc.weight": hostile}},
        "whole": hostile,
        "inside opt": {"model": tiny_state(), "opt": argparse.Namespace(img_res=32, data_path=hostile)},
    }[place]
    torch.save(content, tmp_path / "model_best.pth")
    error = refused(tmp_path / "model_best.pth", tmp_path / "out", "--image_size", "32")
    assert "refused, and nothing of it was run" in error and "system" in error
    assert not (tmp_path / "witness").exists()


def test_a_folder_with_something_in_it_is_not_overwritten(saved, tmp_path):
    path = saved(tiny_state(), img_res=32)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("keep me")
    with pytest.raises(CheckpointError, match="not an empty folder"):
        convert(path, tmp_path / "full")
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["precious.txt"]
    with pytest.raises(CheckpointError, match="two folders"):
        convert(path, tmp_path / "same", teacher_out=tmp_path / "same")


# --- processor, network ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("out", "teacher"), [("both/model", "both"), ("both", "both/teacher")])
def test_a_model_and_its_teacher_may_lie_in_one_another(saved, tmp_path, out, teacher):
    convert(saved(tiny_state(), img_res=32), tmp_path / out, teacher_out=tmp_path / teacher)
    assert AutoModel.from_pretrained(tmp_path / out).config.use_decoder
    assert not AutoModel.from_pretrained(tmp_path / teacher).config.use_decoder


@pytest.fixture
def vocabulary(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "runs", "##ning", "café"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return tmp_path / "vocab.txt"


def test_with_a_tokenizer_the_processor_makes_squares_of_the_true_size(saved, vocabulary, tmp_path, tiny_pictures):
    report = convert(
        saved(tiny_state(), img_res=224),
        tmp_path / "out",
        image_size=40,
        tokenizer=vocabulary,
        teacher_out=tmp_path / "teacher",
    )
    assert report["processor"] and report["written"] == [str(tmp_path / "out"), str(tmp_path / "teacher")]
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert type(processor) is D2SVSEProcessor
    batch = processor(images=tiny_pictures, text=["A dog running", "dog"], return_tensors="pt")
    assert batch["pixel_values"].shape == (6, 3, 40, 40)
    assert batch["input_ids"].tolist() == [[2, 5, 6, 1, 3], [2, 6, 3, 0, 0]]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    white = processor(images=tiny_pictures[0].point(lambda _: 255), return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(white, ((1 - mean) / std)[:, None, None].expand(3, 40, 40), atol=1e-5, rtol=0)
    long = processor(text=["dog " * 100], return_tensors="pt")["input_ids"]
    assert long.shape == (1, 32)  # where the position table ends
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert model.encode_text(["a dog", "dog runs"]).shape == (2, DIM) == model.encode_image(tiny_pictures[:2]).shape
    for name, part in (("out", "stage 2"), ("teacher", "teacher")):
        assert shipped_files(tmp_path / name)  # nothing is missing for a push
        card = (tmp_path / name / "README.md").read_text()
        assert f".pth, {part}\n" in card.replace("\\_", "_") and str(tmp_path) not in card


def test_a_saved_tokenizer_will_do_and_one_that_does_not_fit_will_not(
    saved, refused, vocabulary, tmp_path, tiny_tokenizer
):
    path = saved(tiny_state(), img_res=32)
    tiny_tokenizer.save_pretrained(tmp_path / "large")
    error = refused(path, tmp_path / "out", "--tokenizer", tmp_path / "large")
    assert f"{len(tiny_tokenizer)} tokens" in error and f"{WORDS} rows" in error
    assert "no folder of a tokenizer" in refused(path, tmp_path / "out", "--tokenizer", "bert-base-uncased")
    convert(path, tmp_path / "first", tokenizer=vocabulary)
    convert(path, tmp_path / "second", tokenizer=tmp_path / "first")
    texts = ["a running dog", "CAFÉ"]
    first, second = (AutoProcessor.from_pretrained(tmp_path / name).tokenizer for name in ("first", "second"))
    assert first(texts)["input_ids"] == second(texts)["input_ids"]


def test_a_saved_tokenizer_brings_no_limit_of_the_call_before_it_was_saved(saved, vocabulary, tmp_path):
    path = saved(tiny_state(), img_res=32)
    convert(path, tmp_path / "first", tokenizer=vocabulary)
    tokenizer = AutoProcessor.from_pretrained(tmp_path / "first").tokenizer
    tokenizer("a dog runs", truncation=True, max_length=3)
    tokenizer.save_pretrained(tmp_path / "used")
    convert(path, tmp_path / "second", tokenizer=tmp_path / "used")
    assert len(AutoProcessor.from_pretrained(tmp_path / "second")(text="a dog runs a dog")["input_ids"]) > 3


def test_without_a_tokenizer_no_processor_is_written_and_nobody_is_called(saved, tmp_path, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        called.append(args)
        raise OSError("no network here")

    called = []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)  # no politeness: it must not even try
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert main([str(saved(tiny_state(), img_res=32)), str(tmp_path / "out")]) == 0
    assert not called and "no processor was written" in capsys.readouterr().out
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "modeling_d2s_vse.py"} <= written
    assert not any("token" in name or "processor_config" in name for name in written)
