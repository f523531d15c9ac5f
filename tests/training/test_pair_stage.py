"""One stage of training: frozen towers, caches, adapters."""

import json
from types import SimpleNamespace

import pytest
import torch
from small_runs import SMALL, run
from transformers import AutoModel

from vsehub.losses.objectives import PIRObjective, StructuredObjective
from vsehub.training import pair_stage
from vsehub.training.d2s_stages import STAGES
from vsehub.training.flags.arguments import D2S_ARGUMENTS, StructureArguments
from vsehub.training.flags.recipe import parse_stages
from vsehub.training.stage_arguments import StageArguments


@pytest.mark.parametrize("cached", ["both", *(pytest.param(one, marks=pytest.mark.slow) for one in ("vision", "text"))])
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


def test_nested_widths_are_trained_kept_and_told(scenes, tmp_path):
    run(scenes, tmp_path, "--stages", "baseline", "--matryoshka", "8", "4", "16", "--max_steps", "2")
    assert AutoModel.from_pretrained(tmp_path / "hub").config.matryoshka == [4, 8]
    state = next((tmp_path / "baseline").glob("checkpoint-*/trainer_state.json"))
    logged = set().union(*json.loads(state.read_text())["log_history"])
    assert {"loss_width_4", "loss_width_8", "loss_align"} <= logged and "loss_width_16" not in logged


def test_structure_and_distillation_are_wrapped_at_every_width():
    args, means = StructureArguments(structure_weight=1), (torch.zeros(3), torch.zeros(5))
    config = SimpleNamespace(matryoshka=[4], projection_dim=16)
    objective = pair_stage.whole_objective(PIRObjective(affiliation_weight=0), args, means, config)
    assert objective.widths == [4, 16] and len(list(objective.parameters())) == 4  # a temperature and a share each
    assert all(isinstance(each, StructuredObjective) for each in objective.objectives.values())
    config.matryoshka, own = None, PIRObjective()
    assert pair_stage.whole_objective(own, args, None, config) is own


def test_a_width_above_the_embedding_is_refused_when_the_flags_are_read(scenes, tmp_path):
    with pytest.raises(ValueError, match="matryoshka: widths must be whole numbers from 1 to 16, got 17"):
        run(scenes, tmp_path, "--matryoshka", "4", "17")
    assert not list(tmp_path.iterdir())
