"""The arguments of the stages of a run: their folders, and what is refused before the first."""

import pytest
from small_runs import SMALL, run

from vsehub.training.d2s_stages import STAGES
from vsehub.training.flags.arguments import D2S_ARGUMENTS
from vsehub.training.stage_arguments import read_stages


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


@pytest.mark.parametrize(
    "flag, values, said",
    [
        ("bands", ["3", "2", "1"], r"--bands \[3, 2, 1\] for finetune, None for pretrain"),
        ("data", ["elsewhere"], "--data elsewhere for finetune, .* for pretrain"),
        ("max_train_images", ["3"], "--max_train_images 3 for finetune, None for pretrain"),
        ("dense_text", ["long.jsonl"], "--dense_text long.jsonl for finetune"),
    ],
)
def test_data_that_is_read_once_is_that_of_all_stages(scenes, tmp_path, flag, values, said):
    words = [*scenes, *SMALL, "--output_dir", str(tmp_path), f"--finetune.{flag}", *values]
    with pytest.raises(ValueError, match=f"{said}.*: the data of a run is read once"):
        read_stages(words, STAGES, D2S_ARGUMENTS)


def test_each_stage_may_prepare_the_data_in_its_own_way(scenes, tmp_path):
    own = [
        "--finetune.image_augmentation",
        "none",
        "--pretrain.dense_sampling",
        "True",
        "--finetune.text_augmentation",
        "0",
    ]
    stages = read_stages([*scenes, *SMALL, "--output_dir", str(tmp_path), *own], STAGES, D2S_ARGUMENTS)
    assert [args.data.dense_sampling for args in stages.values()] == [True, False]
