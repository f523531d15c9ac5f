"""One stage of training: frozen towers, caches, adapters."""

import pytest
import torch
from small_runs import SMALL, run
from transformers import AutoModel

from vsehub.training import pair_stage
from vsehub.training.arguments import D2S_ARGUMENTS
from vsehub.training.d2s_stages import STAGES
from vsehub.training.recipe import parse_stages
from vsehub.training.stages import StageArguments


@pytest.mark.parametrize("cached", ["vision", "text", "both"])
def test_caches_of_frozen_towers_change_nothing_but_rounding(scenes, tmp_path, cached):
    flags = ["--stages", "baseline", "--freeze_vision", "True", "--freeze_text", "True"]
    flags += ["--image_augmentation", "none", "--text_augmentation", "0", "--load_best_model_at_end", "False"]
    plain = run(scenes, tmp_path / "plain", *flags)
    kinds = ["vision", "text"] if cached == "both" else [cached]
    cachings = [word for kind in kinds for word in (f"--cache_{kind}", "True")]
    quick = run(scenes, tmp_path / "quick", *flags, *cachings)
    for key in plain:
        assert torch.allclose(plain[key].float(), quick[key].float(), atol=5e-3), key


def test_caches_are_filled_on_the_device_of_the_training(make_tiny_model, scenes, tmp_path, monkeypatch):
    parsed, _ = parse_stages([*scenes, *SMALL, "--output_dir", str(tmp_path)], STAGES, D2S_ARGUMENTS)
    args = StageArguments("baseline", *parsed["baseline"])
    args.model.freeze_vision = args.training.cache_vision = True
    monkeypatch.setattr(type(args.training), "device", torch.device("meta"))
    monkeypatch.setattr(pair_stage, "cache_images", lambda model, *inputs, **facts: model.device)
    found, evaluated = pair_stage.build_caches(make_tiny_model(), None, None, None, args, "captions")
    assert {found.vision, evaluated.vision} == {torch.device("meta")}


def test_a_trained_tower_cannot_be_cached(scenes, tmp_path):
    with pytest.raises(ValueError, match="--freeze_vision"):
        run(scenes, tmp_path, "--cache_vision", "True")


def test_lora_trains_adapters_and_leaves_a_plain_merged_model(scenes, tmp_path):
    weights = run(scenes, tmp_path, "--stages", "baseline", "--lora", "True", "--lora_rank", "2")
    assert not [key for key in weights if "lora" in key or "base_layer" in key or "modules_to_save" in key]
    assert AutoModel.from_pretrained(tmp_path / "hub").encode_text(["a red circle"]).shape == (1, 16)


def test_too_little_data_for_one_batch_is_refused(scenes, tmp_path):
    with pytest.raises(ValueError, match="do not fill one batch of 512"):
        run(scenes, tmp_path, "--per_device_train_batch_size", "512")
