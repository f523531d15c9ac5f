"""Towers are run once before any data are read."""

import copy
from types import SimpleNamespace

import pytest
import torch
from small_runs import run, run_pir
from transformers import BertModel, RobertaConfig, ViTConfig, ViTMAEConfig, ViTMAEModel, XLNetConfig

from vsehub import D2SVSEConfig, D2SVSEModel
from vsehub.commands.recipes import FOLDER
from vsehub.processing.processing_dual_encoder import square_image_processor
from vsehub.training import splits
from vsehub.training.flags.arguments import D2SModelArguments, PIRModelArguments
from vsehub.training.preflight import (
    CPU_RECIPES,
    advice_for_cpu,
    cap_text_length,
    count_cut,
    freeze_without_gradient,
)

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


@pytest.fixture
def no_data(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("data were read")

    monkeypatch.setattr(splits, "prepare_rows", fail)


def saved(model, folder, tokenizer=None):
    model.save_pretrained(folder)
    (tokenizer or square_image_processor(32)).save_pretrained(folder)
    return str(folder)


def test_a_tower_that_draws_random_numbers_is_refused_before_the_data(scenes, no_data, tmp_path):
    config = ViTMAEConfig(image_size=32, patch_size=8, **SMALL)
    folder = saved(ViTMAEModel(config), tmp_path / "mae")
    with pytest.raises(ValueError, match="--vision .*another output each time"):
        run(scenes, tmp_path / "out", "--vision", folder)


def test_a_size_that_the_patches_do_not_divide_is_refused_before_the_data(scenes, no_data, tmp_path):
    with pytest.raises(ValueError, match="--image_size 36 .* set it to 32 or 40"):
        run(scenes, tmp_path / "out", "--image_size", "36")


def test_the_instruction_encoder_is_run_too(overhead, no_data, tmp_path):
    config = ViTMAEConfig(image_size=32, patch_size=8, **SMALL)
    folder = saved(ViTMAEModel(config), tmp_path / "mae")
    with pytest.raises(ValueError, match="--instruction .*another output each time"):
        run_pir(overhead, tmp_path / "out", "--instruction", folder, "--stages", "retrieval")


def test_a_tokenizer_with_added_words_is_refused_before_the_data(
    scenes, no_data, tmp_path, tiny_text_config, tiny_tokenizer
):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.add_tokens([f"new{number}" for number in range(tiny_text_config.vocab_size)])
    folder = saved(BertModel(tiny_text_config), tmp_path / "bert", tokenizer)
    with pytest.raises(ValueError, match="--text .*its tokenizer knows .* resize"):
        run(scenes, tmp_path / "out", "--text", folder)


def test_what_the_towers_are_is_told_once(scenes, tmp_path, capsys):
    run(scenes, tmp_path / "out", "--stages", "baseline", "--max_steps", "1", "--max_text_length", "4")
    told = capsys.readouterr().err
    assert told.count("vision: 17 tokens x 32; text: up to 4 tokens x") == 1
    assert "texts are cut at 4 tokens" in told


def test_the_text_length_is_what_the_tower_can_use(tiny_processor):
    text = RobertaConfig(vocab_size=99, max_position_embeddings=40, pad_token_id=1, **SMALL)
    config = D2SVSEConfig(
        vision_config=ViTConfig(image_size=32, patch_size=8, **SMALL), text_config=text, projection_dim=16,
        num_mask_tokens=2,
    )  # fmt: skip
    model, processor = D2SVSEModel(config), copy.deepcopy(tiny_processor)
    cap_text_length(model, processor)
    assert processor.tokenizer.model_max_length == 38


def test_a_parameter_without_gradient_is_frozen_for_many_processes(tiny_model):
    text = XLNetConfig(vocab_size=99, d_model=32, n_layer=1, n_head=2, d_inner=48)
    config = D2SVSEConfig(
        vision_config=ViTConfig(image_size=32, patch_size=8, **SMALL), text_config=text, projection_dim=16,
        image_size=32, num_mask_tokens=2,
    )  # fmt: skip
    model = D2SVSEModel(config)
    assert model.text_model.mask_emb.requires_grad
    freeze_without_gradient(model)
    assert not model.text_model.mask_emb.requires_grad
    assert model.text_model.word_embedding.weight.requires_grad


def test_cut_texts_are_counted(tiny_processor):
    tokenizer = copy.deepcopy(tiny_processor.tokenizer)
    tokenizer.model_max_length = 5
    assert count_cut(tokenizer, iter(["a dog", "a dog runs in the snow", "a", "a cat and a dog"])) == (2, 4)
    assert count_cut(tokenizer, ["a dog runs in the snow"] * 5, sample=3) == (3, 3)


def stage(kind=D2SModelArguments, device="cpu", name="finetune", cache=False, **numbers):
    training = SimpleNamespace(device=torch.device(device), cache_vision=cache)
    return {name: SimpleNamespace(stage=name, model=kind(**numbers), training=training)}


SMALL_DECODER = {"num_mask_tokens": 16, "decoder_layers": 2}


@pytest.mark.parametrize(
    ("stages", "named"),
    [
        (stage(), ["d2s_vse_flickr8k_cpu", "--cache_vision True", "--num_mask_tokens 16"]),
        (stage(PIRModelArguments, name="retrieval"), ["pir_rsicd_cpu", "--cache_vision True"]),
        (stage(freeze_vision=True, cache=True), ["--num_mask_tokens 16 --decoder_layers 2"]),
        (stage(name="pretrain", freeze_vision=True, cache=True), []),
        (stage(freeze_vision=True, cache=True, **SMALL_DECODER), []),
        (stage(image_size=64, **SMALL_DECODER), []),
        (stage(device="cuda"), []),
        (stage(PIRModelArguments, name="prior"), []),
    ],
)
def test_settings_of_the_papers_on_a_cpu_name_the_recipe_for_one(stages, named):
    advice = advice_for_cpu(stages)
    assert bool(advice) is bool(named) and all(word in advice for word in named)
    assert all((FOLDER / f"{name}.yaml").exists() for name in CPU_RECIPES.values())
