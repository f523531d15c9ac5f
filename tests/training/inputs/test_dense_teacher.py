"""D2S-VSE's dense teacher: as a column, and in each step."""

import copy

import pytest
import torch
from small_runs import SMALL, run

from vsehub import D2SVSEModel, D2SVSEProcessor
from vsehub.data.rows import prepare_rows
from vsehub.training import trainer as trainer_module
from vsehub.training.d2s_stages import STAGES
from vsehub.training.flags.arguments import (
    D2S_ARGUMENTS,
)
from vsehub.training.flags.recipe import parse_stages
from vsehub.training.inputs.dense_teacher import add_dense_text_embeds, teach
from vsehub.training.inputs.tower_cache import cache_text
from vsehub.training.stage_arguments import StageArguments


def test_a_teacher_column_that_the_data_brings_is_used_or_refused_by_its_width(scenes, both_stages, tmp_path):
    teacher = D2SVSEModel.from_pretrained(both_stages[0] / "pretrain" / "best")
    processor = D2SVSEProcessor.from_pretrained(both_stages[0] / "pretrain" / "best")
    parsed, _ = parse_stages([*scenes, *SMALL, "--output_dir", str(tmp_path)], STAGES, D2S_ARGUMENTS)
    args = StageArguments("finetune", *parsed["finetune"])
    rows = prepare_rows(args.data, "train", None, need_dense=True)
    own = [[0.5] * 16] * len(rows)
    kept = add_dense_text_embeds(rows.add_column("dense_text_embeds", own), teacher, processor, "cpu")
    assert kept["dense_text_embeds"][:2] == own[:2]
    made = add_dense_text_embeds(rows, teacher, processor, "cpu")
    with torch.no_grad():
        expected = teacher.eval().get_text_features(**processor(text=rows["dense_text"][3], return_tensors="pt"))
    assert torch.allclose(torch.tensor(made["dense_text_embeds"][3]), expected.pooler_output[0], atol=1e-5)
    with pytest.raises(ValueError, match="vectors of 4 numbers"):
        add_dense_text_embeds(rows.add_column("dense_text_embeds", [[1.0] * 4] * len(rows)), teacher, processor, "cpu")


def test_the_online_teacher_computes_in_the_precision_of_the_student(scenes, tmp_path, monkeypatch):
    seen = set()

    def spy(*inputs, **kwargs):
        seen.add(torch.is_autocast_enabled("cpu"))
        return teach(*inputs, **kwargs)

    monkeypatch.setattr(trainer_module, "teach", spy)
    run(scenes, tmp_path, "--dense_teacher", "online", "--max_steps", "2", "--bf16", "True")
    assert seen == {True}


@pytest.mark.parametrize("legacy", [True, False])
def test_only_a_legacy_teacher_follows_the_student_into_train_mode(tiny_model, legacy):
    teacher = copy.deepcopy(tiny_model).eval().requires_grad_(False)
    teacher.config.legacy = legacy
    teach(teacher, torch.tensor([[2, 5, 3]]), torch.ones(1, 3, dtype=torch.long), training=True)
    assert {module.training for module in teacher.text_model.modules()} == {legacy} == {teacher.text_head.training}


def test_a_cached_text_tower_is_not_run_again_for_the_dense_texts(scenes, both_stages, tmp_path, monkeypatch):
    teacher = D2SVSEModel.from_pretrained(both_stages[0] / "pretrain" / "best")
    processor = D2SVSEProcessor.from_pretrained(both_stages[0] / "pretrain" / "best")
    parsed, _ = parse_stages([*scenes, *SMALL, "--output_dir", str(tmp_path)], STAGES, D2S_ARGUMENTS)
    rows = prepare_rows(StageArguments("finetune", *parsed["finetune"]).data, "train", None, need_dense=True)
    expected = torch.tensor(add_dense_text_embeds(rows, teacher, processor, "cpu")["dense_text_embeds"])
    states = cache_text(teacher, processor, list(rows["dense_text"]), tmp_path)
    monkeypatch.setattr(teacher, "text_model", None)
    made = torch.tensor(add_dense_text_embeds(rows, teacher, processor, "cpu", states)["dense_text_embeds"])
    assert torch.allclose(made, expected, atol=2e-3)  # the cache is in half precision
