"""Settings of transformers' Trainer that a run refuses, since it would ignore them or break on them."""

import os
from dataclasses import fields

import torch
from accelerate.state import AcceleratorState, PartialState
from transformers import TrainingArguments, get_scheduler
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from .launch import ONE_PROCESS_A_GPU, check_launch

_NO_EFFECT = "it has no effect here; leave it out"
REFUSED = {  # setting of TrainingArguments -> why it may only have its default
    "auto_find_batch_size": "a batch's pairs are its negatives; choose --per_device_train_batch_size yourself",
    "neftune_noise_alpha": "noise on word embeddings is for language models; leave it out",
    "use_liger_kernel": "its kernels are for language models; leave it out",
    "liger_kernel_config": _NO_EFFECT,
    "use_cache": _NO_EFFECT,
    "average_tokens_across_devices": "losses are means over pairs, not tokens; leave it out",
    "include_num_input_tokens_seen": _NO_EFFECT,
    "include_tokens_per_second": _NO_EFFECT,
    "prediction_loss_only": "the best epoch is chosen by a metric, which it would leave out",
    "eval_do_concat_batches": _NO_EFFECT,
    "eval_use_gather_object": _NO_EFFECT,
    "include_for_metrics": _NO_EFFECT,
    "include_inputs_for_metrics": _NO_EFFECT,
    "batch_eval_metrics": "a ranking needs all embeddings at once; leave it out",
    "bf16_full_eval": "evaluation runs as training does; `vsehub evaluate --dtype bfloat16` measures a saved model",
    "fp16_full_eval": "evaluation runs as training does; `vsehub evaluate --dtype bfloat16` measures a saved model",
    "remove_unused_columns": "it would remove the pictures and captions; leave it out",
    "label_names": _NO_EFFECT,
    "length_column_name": _NO_EFFECT,
    "group_by_length": "pictures and captions of a batch are drawn at random; leave it out",
    "past_index": _NO_EFFECT,
    "optim_target_modules": "the learning rates of towers and heads form the groups of parameters; leave it out",
    "parallelism_config": ONE_PROCESS_A_GPU,
    "deepspeed": ONE_PROCESS_A_GPU,
    "do_train": _NO_EFFECT,
    "do_predict": _NO_EFFECT,
}
REFUSED_FOR_PAIRS = {  # the prior, a classifier, knows what to do with them
    "label_smoothing_factor": "pairs have no labels to smooth; for PIR's prior write --prior.label_smoothing_factor",
    "eval_accumulation_steps": "embeddings leave the device batch by batch already; leave it out",
}
UNLISTED = ("azure_ml", "flyte", "kubeflow")  # trackers of which transformers does not say whether they are installed
WHOLE_MODEL_OPTIMIZERS = ("galore", "apollo", "lomo", "adalomo", "schedule_free")


def check_settings(stage: str, training: TrainingArguments):
    """Refuse settings of Trainer that this stage would ignore or break on.

    Raises:
        ValueError: with the flag and why.
    """
    check_launch(training)
    check_reports(training)
    check_schedule(training)
    table = REFUSED if stage == "prior" else {**REFUSED, **REFUSED_FOR_PAIRS}
    plain = default_settings(type(training))
    for name, reason in table.items():
        if hasattr(training, name) and getattr(training, name) != plain[name]:
            raise ValueError(f"--{name} {getattr(training, name)}: {reason}")
    strategy = str(getattr(training, "train_sampling_strategy", "random"))
    if strategy not in ("random", "sequential"):  # the others sort by length
        raise ValueError(f"--train_sampling_strategy {strategy}: {REFUSED['group_by_length']}")
    check_optimizer(training)
    if stage != "prior" and training.chunk_size and training.torch_compile:
        raise ValueError(
            "--chunk_size and --torch_compile: gradient caching calls parts of the model that are not compiled; leave "
            "one of the two out"
        )
    if training.fp16 and training.device.type == "cpu":  # accelerate leaves it out without a word
        raise ValueError("--fp16 True: on a CPU it has no effect; take --bf16 True, or leave it out (float32)")
    if training.max_steps == 0:  # of which Trainer makes one step
        raise ValueError(
            "--max_steps 0: nothing would be trained; leave it out, and --num_train_epochs counts, or measure a model "
            "with `vsehub evaluate`"
        )
    batch = training.per_device_train_batch_size * int(os.environ.get("WORLD_SIZE", 1))
    if stage != "prior" and batch < 2:
        raise ValueError(
            "--per_device_train_batch_size 1: a pair alone has no negatives, and nothing is learned; take at least 2, "
            "better as many as memory holds (--gradient_accumulation_steps adds no negatives)"
        )


def check_reports(training: TrainingArguments):
    """Refuse trackers that are not there: the data would be read and cached before the error.

    Raises:
        ValueError: with the name and the remedy.
    """
    installed = get_available_reporting_integrations()
    for name in training.report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            raise ValueError(f"--report_to {name}: there are none, all, {', '.join(sorted(INTEGRATION_TO_CALLBACK))}")
        if name not in (*installed, *UNLISTED):
            raise ValueError(
                f"--report_to {name}: it is not installed (pip install {name}); or leave it out: `vsehub plot` draws "
                "the curves without a tracker"
            )


def check_schedule(training: TrainingArguments):
    """Refuse settings of the learning rate that its schedule does not take, before anything is read.

    Raises:
        ValueError: with the flag and what transformers says.
    """
    if getattr(training, "lr_milestones", None):
        return
    settings = training.lr_scheduler_kwargs or {}
    try:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], training.learning_rate)
        get_scheduler(training.lr_scheduler_type, optimizer, 0, 100, scheduler_specific_kwargs=settings)
    except (TypeError, ValueError, ArithmeticError) as error:
        name = getattr(training.lr_scheduler_type, "value", training.lr_scheduler_type)
        raise ValueError(f"--lr_scheduler_type {name}, --lr_scheduler_kwargs {settings}: {error}") from None


def check_optimizer(training: TrainingArguments):
    """Refuse an optimizer that does not take groups of parameters, and arguments of one that cannot be read.

    Raises:
        ValueError: with the flag and the remedy.
    """
    optimizer = str(getattr(training.optim, "value", training.optim))
    if optimizer.startswith(WHOLE_MODEL_OPTIMIZERS):
        raise ValueError(f"--optim {optimizer}: it does not take groups of parameters; choose another, as adamw_torch")
    if any(part.count("=") != 1 for part in (training.optim_args or "a=b").split(",")):
        raise ValueError(f"--optim_args {training.optim_args}: write NAME=VALUE, several with commas between them")


def check_lora(lora: bool, freeze_vision_batch_norm: bool, rank: int | None = None):
    """Refuse adapters beside batch statistics that move: checkpoints of adapters do not hold these.

    Args:
        lora: whether there are adapters.
        freeze_vision_batch_norm: whether the statistics stay.
        rank: of the adapters, where it was set; without them, the whole towers would be trained.

    Raises:
        ValueError: with the remedy.
    """
    if rank is not None and not lora:
        raise ValueError(f"--lora_rank {rank} without --lora True: there would be no adapters; add it, or leave it out")
    if lora and not freeze_vision_batch_norm:
        raise ValueError(
            "--lora True and --freeze_vision_batch_norm False: a checkpoint of adapters does not hold the statistics "
            "that would move; leave one of the two out"
        )


def default_settings(kind: type[TrainingArguments]) -> dict:
    """The default of each setting."""
    # TrainingArguments set up the processes anew when they are made: those of the run must stay as they are.
    states = [(state, dict(state._shared_state)) for state in (PartialState, AcceleratorState)]
    plain = kind(output_dir="unset", use_cpu=True, eval_strategy="no", save_strategy="no", load_best_model_at_end=False)
    for state, kept in states:
        state._shared_state.clear()
        state._shared_state.update(kept)
    return {item.name: getattr(plain, item.name) for item in fields(kind)}
