"""Launches that start other processes than were asked for, and what shards would break."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from small_runs import SMALL, read_flags

from vsehub.training import run_d2s, stage_arguments
from vsehub.training.flags.launch import check_fsdp, check_launch


def launched(processes=1, drop_last=True):
    """What `check_launch` looks at."""
    return SimpleNamespace(world_size=processes, dataloader_drop_last=drop_last, fsdp=None, n_gpu=0)


@pytest.mark.slow  # the check itself has fast tests
def test_fewer_processes_than_were_asked_for_are_refused(scenes, tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", run_d2s.__file__]
    words = [*scenes, *SMALL, "--stages", "baseline", "--output_dir", str(tmp_path / "out")]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode != 0 and "torchrun --nproc_per_node N" in done.stderr
    assert not (tmp_path / "out").exists()


def test_one_process_that_accelerate_started_is_fine(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    check_launch(launched())
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_launch(launched(2))


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_sharding_that_a_launcher_asks_for_is_refused(monkeypatch, name):
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(ValueError, match=f"accelerate launch with {name}"):
        check_launch(launched())


def test_a_last_batch_that_processes_would_fill_up_is_refused():
    check_launch(launched(1, drop_last=False))
    with pytest.raises(ValueError, match="--dataloader_drop_last False"):
        check_launch(launched(2, drop_last=False))


def test_several_gpus_in_one_process_are_refused_before_any_work():
    training = launched(1)
    training.n_gpu = 2
    with pytest.raises(ValueError, match="one process sees 2 GPUs: .*--num_processes 2 .*CUDA_VISIBLE_DEVICES=0"):
        check_launch(training)


def test_sharding_for_one_process_is_refused():
    with pytest.raises(ValueError, match="--fsdp: one process .* torchrun --nproc_per_node N"):
        read_flags("--fsdp")


def test_sharding_of_one_stage_of_two_is_refused(monkeypatch):
    monkeypatch.setattr(stage_arguments, "check_fsdp", lambda *args: None)
    with pytest.raises(ValueError, match="--fsdp for some stages"):
        read_flags("--stages", "pretrain", "finetune", "--pretrain.fsdp", "full_shard")


def sharding(**settings):
    """What `check_fsdp` looks at."""
    plain = {"fsdp": True, "fsdp_config": {}, "world_size": 2, "device": torch.device("cpu"), "chunk_size": None}
    return SimpleNamespace(**{**plain, "fp16": False, "torch_compile": False, **settings})


@pytest.fixture
def without_gpu(monkeypatch):
    """Shards on a CPU are refused on a machine with GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"fsdp": None, "fsdp_config": {"version": 2}}, "--fsdp_config without --fsdp"),
        ({"fsdp_config": {"version": 1}}, "only FSDP2"),
        ({"fsdp_config": {"cpu_offload": True}}, "--fsdp_config cpu_offload True"),
        ({"fsdp_config": {"state_dict_type": "SHARDED_STATE_DICT"}}, "state_dict_type SHARDED_STATE_DICT"),
        ({"fp16": True}, "--fp16 .take --bf16"),
        ({"torch_compile": True}, "--torch_compile"),
        ({"chunk_size": 8}, "--chunk_size"),
    ],
)
def test_what_shards_would_break_is_refused(settings, said, without_gpu):
    with pytest.raises(ValueError, match=said):
        check_fsdp(sharding(**settings))


def test_what_shards_can_do_is_not_refused(without_gpu):
    check_fsdp(sharding(fsdp=None))
    check_fsdp(sharding(fsdp_config={"version": 2, "xla": False, "min_num_params": 0, "reshard_after_forward": False}))
    with pytest.raises(ValueError, match="--cache_vision with --train_vision_from"):
        check_fsdp(sharding(), cached_tail=True)


def test_shards_on_the_cpu_of_a_machine_with_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match="--fsdp and --use_cpu"):
        check_fsdp(sharding())
