"""Stages of a run: where each resumes, and what is published."""

import shutil

import pytest
from pyarrow import parquet
from safetensors.torch import load_file
from small_runs import equal, run
from transformers import TrainerCallback

from vsehub.files.whole import BusyError, one_writer
from vsehub.training import stages as of_a_run
from vsehub.training.reports.progress import reported_by
from vsehub.training.stages import _finished


def test_a_run_killed_after_its_last_checkpoint_takes_no_further_step(scenes, tmp_path):
    flags = ["--stages", "baseline", "--load_best_model_at_end", "False", "--save_total_limit", "9"]
    whole = run(scenes, tmp_path, *flags)
    (tmp_path / "baseline" / "finished.json").unlink()
    assert equal(whole, run(scenes, tmp_path, *flags, "--resume_from_checkpoint", "true"))
    assert not (tmp_path / "baseline" / "checkpoint-5").exists()


def test_memory_is_kept_once_the_rows_are_read(monkeypatch):
    called = []
    monkeypatch.setattr(of_a_run, "reuse_memory", lambda: called.append(True))
    of_a_run.run_stages({}, train=lambda args, previous: None, load=lambda stage, folder: None)
    assert called


def test_two_runs_do_not_train_in_one_folder_at_once(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(of_a_run, "SECONDS", 0.1)
    with (
        one_writer(tmp_path / "baseline" / ".lock", "this"),
        pytest.raises(BusyError, match="process .* has been writing .*baseline.*, or name another --output_dir"),
    ):
        run(scenes, tmp_path, "--stages", "baseline")
    assert not list((tmp_path / "baseline").glob("checkpoint-*"))


def test_what_a_finished_stage_wrote_is_read(both_stages):
    metrics = _finished(both_stages[0] / "pretrain" / "finished.json")
    assert metrics["eval_rsum"] > 0 and all(low <= high for low, high in metrics["eval_intervals"].values())


class Kill(TrainerCallback):
    """Ends a run as a signal does, after a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


OTHER = ["--seed", "2", "--learning_rate", "0.01"]
GO_ON = ["--resume_from_checkpoint", "true"]


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 3])  # before, after its first checkpoint
def test_a_new_run_in_a_used_folder_never_goes_on_with_the_old_one(both_stages, scenes, tmp_path, step):
    out = tmp_path / "run"
    shutil.copytree(both_stages[0], out)
    with pytest.raises(KeyboardInterrupt), reported_by(Kill(step)):
        run(scenes, out, *OTHER)
    assert equal(both_stages[1], load_file(out / "hub" / "model.safetensors"))  # until there is something better
    assert (out / "pretrain" / "best").is_dir() and (out / "finetune" / "best").is_dir()
    assert equal(run(scenes, tmp_path / "alone", *OTHER), run(scenes, out, *OTHER, *GO_ON))


def test_a_finished_run_is_not_published_under_other_settings(both_stages, scenes, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(both_stages[0], out)
    with pytest.raises(ValueError, match="pretrain was finished .*--learning_rate was 0.0002, and is 0.01.*--seed was"):
        run(scenes, out, *OTHER, *GO_ON)
    with pytest.raises(ValueError, match="finetune was finished .*--max_steps was 4, and is 6"):
        run(scenes, out, "--finetune.max_steps", "6", *GO_ON)
    with pytest.raises(ValueError, match="pretrain was finished .*--max_train_images was None, and is 24.: set them"):
        run(scenes, out, "--max_train_images", "24", *GO_ON)
    assert equal(both_stages[1], run(scenes, out, *GO_ON))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_run_whose_texts_were_edited_is_not_published_as_one_of_the_new_ones(scenes, tmp_path, split):
    data = shutil.copytree(scenes[1], tmp_path / "data")
    flags = ["--data", str(data), *scenes[2:], "--stages", "baseline", "--max_steps", "2"]
    first = run([], tmp_path / "run", *flags)
    assert equal(first, run([], tmp_path / "run", *flags, *GO_ON))
    (table,) = data.glob(f"{split}-*.parquet")
    rows = parquet.read_table(table)
    captions = [["by night"], *rows["captions"].to_pylist()[1:]]
    parquet.write_table(rows.set_column(rows.column_names.index("captions"), "captions", [captions]), table)
    with pytest.raises(ValueError, match="the digest of the captions .* was .*: set them as they were"):
        run([], tmp_path / "run", *flags, *GO_ON)


@pytest.mark.parametrize("flag", ["--gradient_accumulation_steps", "--seed", "--data_seed", "--max_train_images"])
def test_a_run_does_not_go_on_with_other_batches(scenes, tmp_path, flag):
    flags = ["--stages", "baseline"]
    with pytest.raises(KeyboardInterrupt), reported_by(Kill(3)):
        run(scenes, tmp_path, *flags)
    with pytest.raises(ValueError, match=f"checkpoint-2 was begun .*{flag} was .*, and is 16"):
        run(scenes, tmp_path, *flags, flag, "16", *GO_ON)


@pytest.mark.slow
def test_a_stage_that_is_trained_alone_and_anew_takes_the_next_one_with_it(both_stages, scenes, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(both_stages[0], out)
    flags = ["--pretrain.learning_rate", "0.01"]
    run(scenes, out, "--stages", "pretrain", *flags)
    assert equal(run(scenes, tmp_path / "alone", *flags), run(scenes, out, *flags, *GO_ON))


@pytest.mark.slow
def test_a_run_with_other_bands_makes_its_caches_anew(scenes, tmp_path):
    flags = ["--stages", "baseline", "--freeze_vision", "True", "--cache_vision", "True", "--max_steps", "2"]
    run(scenes, tmp_path / "run", *flags)
    anew = [*flags, "--bands", "3", "2", "1"]
    assert equal(run(scenes, tmp_path / "alone", *anew), run(scenes, tmp_path / "run", *anew))
    assert not equal(run(scenes, tmp_path / "run", *flags), load_file(tmp_path / "alone" / "hub" / "model.safetensors"))
