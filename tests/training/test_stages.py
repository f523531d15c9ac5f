"""Stages of a run: their folders, what is refused before the first, and where each resumes."""

import pytest
from small_runs import SMALL, equal, run

from vsehub.training.arguments import D2S_ARGUMENTS
from vsehub.training.d2s_stages import STAGES
from vsehub.training.stages import _finished, read_stages


def test_a_run_killed_after_its_last_checkpoint_takes_no_further_step(scenes, tmp_path):
    flags = ["--stages", "baseline", "--load_best_model_at_end", "False", "--save_total_limit", "9"]
    whole = run(scenes, tmp_path, *flags)
    (tmp_path / "baseline" / "finished.json").unlink()
    assert equal(whole, run(scenes, tmp_path, *flags, "--resume_from_checkpoint", "true"))
    assert not (tmp_path / "baseline" / "checkpoint-5").exists()


def test_one_checkpoint_cannot_resume_both_stages(both_stages, scenes, tmp_path):
    checkpoint = next((both_stages[0] / "pretrain").glob("checkpoint-*"))
    with pytest.raises(ValueError, match="cannot be of both pretrain and finetune"):
        run(scenes, tmp_path, "--resume_from_checkpoint", str(checkpoint))
    assert not (tmp_path / "pretrain").exists()


def test_milestones_are_the_whole_schedule(scenes, tmp_path):
    with pytest.raises(ValueError, match="--lr_milestones.*leave --warmup_steps"):
        run(scenes, tmp_path, "--lr_milestones", "1", "--warmup_steps", "5")


def test_the_folder_of_the_run_and_of_the_stage_are_two_things(scenes, tmp_path):
    stages = read_stages([*scenes, *SMALL, "--output_dir", str(tmp_path)], STAGES, D2S_ARGUMENTS)
    args = stages["finetune"]
    assert list(stages) == ["pretrain", "finetune"]
    assert (
        args.root == tmp_path and args.folder == tmp_path / "finetune" and args.best == tmp_path / "finetune" / "best"
    )
    assert args.for_trainer().output_dir == str(tmp_path / "finetune")
    assert args.training.output_dir == str(tmp_path)  # as it was typed, also after Trainer got its own


def test_the_stages_of_a_run_share_a_folder(scenes, tmp_path):
    words = [*scenes, *SMALL, "--output_dir", str(tmp_path), "--pretrain.output_dir", str(tmp_path / "other")]
    with pytest.raises(ValueError, match="one run has one --output_dir.*other"):
        read_stages(words, STAGES, D2S_ARGUMENTS)


def test_only_the_stages_that_run_are_checked(scenes, tmp_path):
    words = [*scenes, *SMALL, "--output_dir", str(tmp_path), "--pretrain.eval_split", "test"]
    assert list(read_stages([*words, "--stages", "baseline"], STAGES, D2S_ARGUMENTS)) == ["baseline"]
    with pytest.raises(ValueError, match="--eval_split test"):
        read_stages(words, STAGES, D2S_ARGUMENTS)


def test_what_a_finished_stage_wrote_is_read(both_stages):
    metrics = _finished(both_stages[0] / "pretrain" / "finished.json")
    assert metrics["eval_rsum"] > 0 and all(low <= high for low, high in metrics["eval_intervals"].values())
