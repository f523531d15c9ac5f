"""Runs of training in two processes on one machine, and how their results are compared."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from small_runs import SMALL

from vsehub.training import run_d2s

FLAGS = """--learning_rate 0.01 --lr_scheduler_type constant --image_augmentation none --text_augmentation 0
--save_total_limit 3 --per_device_train_batch_size 4""".split()
D2S = [*SMALL, "--ramp_epochs", "0"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
TWO += ["--rdzv_endpoint", "127.0.0.1:0"]


def two(script: str, *words: str) -> subprocess.CompletedProcess:
    """Run a script in two processes (gloo)."""
    done = subprocess.run([*TWO, script, *words], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def run_two(scenes, out, *flags, script=run_d2s.__file__, small=D2S) -> dict[str, torch.Tensor]:
    """Train in two processes and return the published weights."""
    two(script, *scenes, *small, *FLAGS, "--output_dir", str(out), *flags)
    return load_file(out / "hub" / "model.safetensors")


def logged(stage: Path, key: str = "loss") -> list[float]:
    """A number of each step of a stage, or of each evaluation."""
    last = sorted(stage.glob("checkpoint-*/trainer_state.json"))[-1]
    return [entry[key] for entry in json.loads(last.read_text())["log_history"] if key in entry]


def difference(first, second) -> float:
    assert first.keys() == second.keys() and all(first[key].shape == second[key].shape for key in first)
    return max((first[key].float() - second[key].float()).abs().max().item() for key in first)
