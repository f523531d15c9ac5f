"""How the processes of a run are started, and what sharding allows: refused before anything is read."""

import os

import torch
from transformers import TrainingArguments

ONE_PROCESS_A_GPU = "models are saved and resumed whole here; leave it out and start with `accelerate launch` (DDP)"
FSDP = ("version", "reshard_after_forward", "transformer_layer_cls_to_wrap")  # of --fsdp_config, what was tested


def check_launch(training: TrainingArguments):
    """Refuse a launch whose processes are not what was asked for.

    Raises:
        ValueError: fewer processes than asked for, several GPUs in one process, a way of sharding that is not there, or
            batches of unequal size.
    """
    if training.n_gpu > 1:  # Trainer would split each batch over all of them, with its statistics and negatives
        raise ValueError(
            f"one process sees {training.n_gpu} GPUs: start one for each, `accelerate launch --num_processes "
            f"{training.n_gpu} ...`, or make one visible, CUDA_VISIBLE_DEVICES=0"
        )
    env = os.environ
    # On a CPU, `accelerate launch --num_processes N` sets an address for N processes and starts one.
    if "ACCELERATE_MIXED_PRECISION" in env and "MASTER_PORT" in env and "WORLD_SIZE" not in env:
        raise ValueError(
            "accelerate launch started one process, although several were asked for (it does so on a CPU): start them "
            "with `torchrun --nproc_per_node N SCRIPT ...`"
        )
    remedies = {"DEEPSPEED": ONE_PROCESS_A_GPU, "FSDP": "say so to the run, with --fsdp, and leave it out there"}
    for name, remedy in remedies.items():
        asked = name == "DEEPSPEED" or not training.fsdp  # with --fsdp, a stage of this run has set it
        if asked and env.get(f"ACCELERATE_USE_{name}", "").lower() in ("true", "1"):
            raise ValueError(f"accelerate launch with {name}: {remedy}")
    if training.world_size > 1 and not training.dataloader_drop_last:
        raise ValueError(
            "--dataloader_drop_last False: with several processes the last batch would be filled up with pairs that "
            "were seen already; leave it out"
        )


def check_fsdp(training: TrainingArguments, cached_tail: bool = False):
    """Refuse `--fsdp` (FSDP2) with what would not shard, or not train the same.

    Args:
        training: of a stage.
        cached_tail: a vision tower takes cached states in the place of pictures.

    Raises:
        ValueError: with the flag and the remedy.
    """
    if not training.fsdp:
        if training.fsdp_config:
            raise ValueError("--fsdp_config without --fsdp: nothing would be sharded; add --fsdp, or leave it out")
        return
    if training.world_size < 2:
        raise ValueError("--fsdp: one process has none to share with; start several: torchrun --nproc_per_node N ...")
    if training.device.type == "cpu" and torch.cuda.is_available():
        raise ValueError("--fsdp and --use_cpu: shards would lie on the GPUs; leave one out")
    config, plain = training.fsdp_config or {}, {"FULL_STATE_DICT", "TRANSFORMER_BASED_WRAP", "0"}
    if str(config.get("version", 2)) != "2":
        raise ValueError(f"--fsdp_config version {config['version']}: only FSDP2 is supported; take 2")
    for name, value in config.items():
        if name not in FSDP and str(value).lower() not in ("false", "none") and str(value) not in plain:
            raise ValueError(f"--fsdp_config {name} {value}: it is not supported; there are {', '.join(FSDP)}")
    wrong = {
        "--chunk_size": getattr(training, "chunk_size", None),
        "--fp16 (take --bf16)": training.fp16,
        "--torch_compile": training.torch_compile,
        "--cache_vision with --train_vision_from": cached_tail,
    }
    for flag, given in wrong.items():
        if given:
            raise ValueError(f"--fsdp and {flag}: weights are not whole when it needs them; leave one of the two out")
