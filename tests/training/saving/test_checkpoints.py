"""Checkpoints are whole or absent: damage of any file, faults and kills in a save, NaN weights, several processes."""

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import SMALL, equal, run
from torch import nn
from transformers import TrainerCallback

from vsehub.__main__ import main
from vsehub.training import pair_stage, run_d2s
from vsehub.training.saving import checkpoints
from vsehub.training.saving.checkpoints import (
    SEAL,
    checkpoints_of,
    missing_part,
    newest_whole,
    refuse_non_finite,
    rotate,
    seal,
    torn_part,
)

FLAGS = ["--stages", "baseline", "--load_best_model_at_end", "False", "--save_total_limit", "9", "--align", "infonce"]
FLAGS += ["--text_dropout", "0.2", "--size_augmentation", "0.2"]


@pytest.fixture(scope="module")
def finished(scenes, tmp_path_factory):
    """Folder of a run with checkpoints at steps 2 and 4, and its published weights; read only."""
    out = tmp_path_factory.mktemp("finished")
    return out, run(scenes, out, *FLAGS)


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of that run's stage, as it was before it was finished."""
    out = tmp_path / "run"
    shutil.copytree(finished[0] / "baseline", out / "baseline")
    for name in ("finished.json", "history.json"):
        (out / "baseline" / name).unlink()
    return out


def test_what_was_logged_is_kept_of_all_steps_though_only_the_best_checkpoint_is(scenes, tmp_path):
    run(scenes, tmp_path, "--stages", "baseline")
    logged = json.loads((tmp_path / "baseline" / "history.json").read_text())["log_history"]
    assert {entry["step"] for entry in logged} == {1, 2, 3, 4}
    assert [entry["step"] for entry in logged if "eval_rsum" in entry] == [2, 4]


def test_a_checkpoint_is_sealed_has_usual_permissions_and_leaves_no_draft(finished):
    stage = finished[0] / "baseline"
    wanted = {"best", "checkpoint-2", "checkpoint-4", "finished.json", "history.json", "settings.json", "training.json"}
    assert {path.name for path in stage.iterdir()} == wanted
    for path in checkpoints_of(stage):
        sealed = json.loads((path / SEAL).read_text())["files"]
        assert sealed.keys() == {
            file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file() and file.name != SEAL
        }
        assert {"model.safetensors", "optimizer.pt", "rng_state.pth", "objective.safetensors"} <= sealed.keys()
        assert missing_part(path) == ""
        state = json.loads((path / "trainer_state.json").read_text())
        assert Path(state["best_model_checkpoint"]) in checkpoints_of(stage)
    for folder in (stage / "checkpoint-4", stage / "best", finished[0] / "hub"):
        assert stat.S_IMODE((folder / "model.safetensors").stat().st_mode) & 0o044 == 0o044


def damage_of(path: Path, how: str):
    if how == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("how", ["cut", "deleted"])
@pytest.mark.parametrize("sealed", [True, False])
def test_damage_to_any_file_is_told_and_the_checkpoint_before_is_taken(copied, how, sealed):
    before, newest = checkpoints_of(copied / "baseline")
    needed = {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"}
    names = sorted(json.loads((newest / SEAL).read_text())["files"]) if sealed else sorted(needed)
    if not sealed:  # as earlier versions wrote them
        (before / SEAL).unlink()
        (newest / SEAL).unlink()
    assert newest_whole(copied / "baseline") == newest
    for name in names:
        whole = (newest / name).read_bytes()
        damage_of(newest / name, how)
        told = missing_part(newest)
        assert name in told or name.split(".")[0].replace("model", "weights") in told
        assert newest_whole(copied / "baseline") == before
        (newest / name).write_bytes(whole)
    assert newest_whole(copied / "baseline") == newest


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": 3}', '{"files": {"model.safetensors": "many"}}'])
def test_a_seal_that_is_none_is_damage(copied, content):
    newest = checkpoints_of(copied / "baseline")[-1]
    (newest / SEAL).write_text(content)
    assert missing_part(newest)


def test_a_run_goes_on_from_the_whole_checkpoint_and_ends_bitwise_the_same(finished, copied, scenes, caplog):
    (copied / "baseline" / "checkpoint-4" / "rng_state.pth").unlink()  # without it, a run would go on differently
    assert equal(finished[1], run(scenes, copied, *FLAGS, "--resume_from_checkpoint", "true"))
    assert "checkpoint-4 is not whole (rng_state.pth is missing); going on from" in caplog.text
    assert missing_part(copied / "baseline" / "checkpoint-4") == ""


def test_where_no_checkpoint_is_whole_the_remedy_is_named(copied, scenes, capsys):
    for path in checkpoints_of(copied / "baseline"):
        (path / "optimizer.pt").unlink()
    words = ["train", *scenes, *SMALL, "--output_dir", str(copied), *FLAGS, "--resume_from_checkpoint", "true"]
    assert main(words) == 2
    assert "checkpoint-4 is not whole (optimizer.pt is missing), and no older one is: leave --res" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "at", [9, *(pytest.param(at, marks=pytest.mark.slow) for at in (1, 17))]
)  # near the end; among the files, the next save
def test_a_full_disk_inside_a_save_leaves_the_checkpoint_before(finished, scenes, tmp_path, monkeypatch, capsys, at):
    real, calls = os.fsync, []

    def fsync(handle):
        calls.append(1) if saving else None
        if len(calls) == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    saving, save = [], checkpoints.SealedCheckpoints._save_checkpoint

    def spy(self, *args):
        saving.extend([1] if self.state.global_step == 4 else [])
        save(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.SealedCheckpoints, "_save_checkpoint", spy)
        patch.setattr(os, "fsync", fsync)
        assert main(["train", *scenes, *SMALL, "--output_dir", str(tmp_path), *FLAGS]) == 2
    assert "no space left on device" in capsys.readouterr().err
    left = {path.name for path in (tmp_path / "baseline").iterdir()}
    assert "checkpoint-2" in left and not [name for name in left if name.startswith(".")]
    assert equal(finished[1], run(scenes, tmp_path, *FLAGS, "--resume_from_checkpoint", "true"))


CHILD = """
import os, signal, sys
from vsehub.training import run_d2s
from vsehub.training.saving import checkpoints
at, place, real, steps = int(sys.argv[1]), sys.argv[2], {}, [0]

def counted(name):
    def step(*args, **kwargs):
        steps[0] += counting[0]
        if steps[0] == at and counting[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return real[name](*args, **kwargs)
    return step

counting, save = [0], checkpoints.SealedCheckpoints._save_checkpoint

def spy(self, *args):
    counting[0] = int(self.state.global_step == 4)
    save(self, *args)
    counting[0] = 0

checkpoints.SealedCheckpoints._save_checkpoint = spy
for name in ("fsync", "rename", "mkdir", "open", "unlink"):
    real[name] = getattr(os, name)
    setattr(os, name, counted(name))
run_d2s.main(sys.argv[3:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("at", [2, 7, 13, 19, 26])
def test_a_kill_inside_a_save_loses_nothing(finished, scenes, tmp_path, at):
    words = [*scenes, *SMALL, "--output_dir", str(tmp_path), *FLAGS]
    done = subprocess.run([sys.executable, "-c", CHILD, str(at), str(tmp_path), *words], capture_output=True)
    assert done.returncode == -9, done.stderr[-2000:]
    assert newest_whole(tmp_path / "baseline").name in ("checkpoint-2", "checkpoint-4")
    assert equal(finished[1], run(scenes, tmp_path, *FLAGS, "--resume_from_checkpoint", "true"))
    assert not [path for path in (tmp_path / "baseline").iterdir() if path.name.startswith(".")]


def test_the_oldest_go_after_the_new_one_is_there_and_the_best_stays(scenes, tmp_path):
    flags = ["--stages", "baseline", "--max_steps", "8", "--save_total_limit", "2"]
    run(scenes, tmp_path, *flags)
    names = [path.name for path in checkpoints_of(tmp_path / "baseline")]
    best = json.loads((tmp_path / "baseline" / names[-1] / "trainer_state.json").read_text())["best_model_checkpoint"]
    assert names[-1] == "checkpoint-8" and len(names) == 2 and (Path(best).name in names)


def test_rotation_keeps_whole_ones_and_clears_what_is_left_of_others(copied):
    stage = copied / "baseline"
    for step in (1, 3):
        shutil.copytree(stage / "checkpoint-2", stage / f"checkpoint-{step}")
    (stage / "checkpoint-3" / "optimizer.pt").unlink()
    rotate(stage, None, {"checkpoint-4"})
    assert len(checkpoints_of(stage)) == 4
    rotate(stage, 2, {"checkpoint-4"})
    assert [path.name for path in checkpoints_of(stage)] == ["checkpoint-2", "checkpoint-4"]
    rotate(stage, 1, {"checkpoint-4", "checkpoint-2"})  # the newest and the best
    assert [path.name for path in checkpoints_of(stage)] == ["checkpoint-2", "checkpoint-4"]
    rotate(stage, 1, {"checkpoint-4"})
    assert [path.name for path in checkpoints_of(stage)] == ["checkpoint-4"]


def test_checkpoints_of_the_model_alone_are_kept_and_no_run_goes_on_from_them(copied):
    stage = copied / "baseline"
    for path in checkpoints_of(stage):
        for part in ("optimizer.pt", "scheduler.pt", "rng_state.pth", SEAL):
            (path / part).unlink()
        seal(path)
    rotate(stage, 2, {"checkpoint-4"})
    assert [path.name for path in checkpoints_of(stage)] == ["checkpoint-2", "checkpoint-4"]
    assert missing_part(stage / "checkpoint-4") == "optimizer is missing; --save_only_model saves none"
    assert not torn_part(stage / "checkpoint-4")


class Spoil(TrainerCallback):
    """Makes a weight NaN after the third step, as a NaN gradient does."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == 3:
            model.text_norm.weight.data[0] = float("nan")


def test_weights_that_are_nan_are_not_saved_and_the_run_stops_with_their_name(scenes, tmp_path, monkeypatch, capsys):
    made = pair_stage.RetrievalTrainer
    monkeypatch.setattr(pair_stage, "RetrievalTrainer", lambda **given: made(**given, callbacks=[Spoil()]))
    monkeypatch.setattr("vsehub.training.trainer.torch.isfinite", lambda loss: torch.tensor(True))
    words = ["train", *scenes, *SMALL, "--output_dir", str(tmp_path), *FLAGS, "--eval_strategy", "no"]
    assert main([*words, "--save_total_limit", "1"]) == 2
    assert " is not finite after step 4, and so it is not saved" in capsys.readouterr().err
    (kept,) = checkpoints_of(tmp_path / "baseline")
    assert kept.name == "checkpoint-2" and missing_part(kept) == ""
    assert all(tensor.isfinite().all() for tensor in load_file(kept / "model.safetensors").values())
    assert not (tmp_path / "baseline" / "best").exists()


@pytest.mark.parametrize("kind", ["weight", "statistic", "optimizer"])
def test_what_is_not_finite_is_named(kind):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    refuse_non_finite([model], optimizer, 7)
    if kind == "weight":
        model[0].bias.data[1] = float("inf")
    elif kind == "statistic":
        model[1].running_var[0] = float("nan")
    else:
        optimizer.state[model[0].weight]["exp_avg_sq"][0, 0] = float("nan")
    names = {"weight": "0.bias", "statistic": "1.running_var", "optimizer": "optimizer's exp_avg_sq of 0.weight"}
    with pytest.raises(FloatingPointError, match=f"{names[kind]} is not finite after step 7"):
        refuse_non_finite([model], optimizer, 7)


@pytest.mark.slow
def test_two_processes_go_on_as_if_they_had_not_stopped(scenes, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0", run_d2s.__file__, *scenes, *SMALL, *FLAGS]
    command += ["--per_device_train_batch_size", "4", "--output_dir", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    whole = load_file(tmp_path / "hub" / "model.safetensors")
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= set(os.listdir(tmp_path / "baseline" / "checkpoint-4"))
    assert not [path for path in (tmp_path / "baseline").iterdir() if path.name.startswith(".")]
    (tmp_path / "baseline" / "finished.json").unlink()
    (tmp_path / "baseline" / "checkpoint-4" / "rng_state_1.pth").unlink()
    subprocess.run([*command, "--resume_from_checkpoint", "true"], check=True, capture_output=True, timeout=300)
    assert equal(whole, load_file(tmp_path / "hub" / "model.safetensors"))


def test_a_checkpoint_of_other_processes_is_refused(copied, scenes):
    newest = copied / "baseline" / "checkpoint-4"
    (newest / "sealed.json").unlink()
    (newest / "rng_state.pth").rename(newest / "rng_state_0.pth")
    shutil.copy(newest / "rng_state_0.pth", newest / "rng_state_1.pth")
    words = [*scenes, *SMALL, *FLAGS, "--max_steps", "5", "--output_dir", str(copied)]
    with pytest.raises(ValueError, match="written by 2 processes, and here run 1: start as many as then"):
        run_d2s.main([*words, "--resume_from_checkpoint", "true"])


def test_a_checkpoint_of_other_batches_is_refused(copied, scenes):
    for record in (copied / "baseline").rglob("settings.json"):  # as earlier versions left it
        record.unlink()
    for path in checkpoints_of(copied / "baseline"):
        (path / SEAL).unlink()
    words = [*scenes, *SMALL, *FLAGS, "--max_steps", "5", "--output_dir", str(copied)]
    with pytest.raises(ValueError, match="written with --per_device_train_batch_size 8, not 4"):
        run_d2s.main([*words, "--per_device_train_batch_size", "4", "--resume_from_checkpoint", "true"])


@pytest.fixture
def best_first(finished, tmp_path):
    """A run that has moved since it stopped, and whose best checkpoint is not its last; the weights of that one."""
    stage = tmp_path / "moved" / "baseline"
    shutil.copytree(finished[0] / "baseline", stage)
    (stage / "finished.json").unlink()
    state = json.loads((stage / "checkpoint-4" / "trainer_state.json").read_text())
    state |= {"best_metric": 599.0, "best_global_step": 2}
    state["best_model_checkpoint"] = str(tmp_path / "where it was" / "baseline" / "checkpoint-2")
    (stage / "checkpoint-4" / "trainer_state.json").write_text(json.dumps(state))
    (stage / "checkpoint-4" / SEAL).unlink()
    return stage.parent, load_file(stage / "checkpoint-2" / "model.safetensors")


@pytest.mark.parametrize("steps", ["4", "6"])  # the last checkpoint is only loaded, or the run goes on
def test_a_run_that_has_moved_still_publishes_its_best_checkpoint(best_first, scenes, steps):
    out, best = best_first
    flags = [*FLAGS, "--load_best_model_at_end", "True", "--max_steps", steps, "--resume_from_checkpoint", "true"]
    assert equal(best, run(scenes, out, *flags))


@pytest.mark.parametrize("steps", ["4", "6"])
def test_a_best_checkpoint_that_is_gone_is_named_before_the_first_step(best_first, scenes, steps):
    out, _ = best_first
    shutil.rmtree(out / "baseline" / "checkpoint-2")
    flags = [*FLAGS, "--load_best_model_at_end", "True", "--max_steps", steps, "--resume_from_checkpoint", "true"]
    with pytest.raises(ValueError, match="best checkpoint, checkpoint-2, is not whole beside it .is gone.: put it"):
        run(scenes, out, *flags)
    assert not (out / "baseline" / "checkpoint-6").exists()
    run(scenes, out, *flags, "--load_best_model_at_end", "False")
