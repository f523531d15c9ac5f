"""What a training run refuses when its flags are read: numbers out of range, and settings that would have no effect."""

import argparse
import difflib
import os
from dataclasses import fields
from functools import cache
from typing import TypeVar

import torch
from accelerate.state import AcceleratorState, PartialState
from datasets import Dataset
from transformers import TrainingArguments, get_scheduler
from transformers.hf_argparser import string_to_bool
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from ..evaluation.embed import labels_of, row_metrics
from ..evaluation.scene_metrics import captions_are_shared
from ..files.numbers import (
    epochs,
    fraction,
    inner_fraction,
    natural_float,
    natural_int,
    number,
    pixels,
    positive_float,
    positive_int,
    rate,
    seed,
    whole,
)

FOLDS, FOLDED = 5, 5000  # the 1K protocol of COCO
_width, _share_or_steps = whole(1, 65_536), number(0, 2**31 - 1)
RANGES = {  # flag -> the type that reads it
    **dict.fromkeys(("projection_dim", "lora_rank", "matryoshka"), _width),
    **dict.fromkeys(("num_mask_tokens", "decoder_heads", "attention_heads", "filter_size"), whole(1, 65_536)),
    "decoder_layers": whole(1, 1024),
    **dict.fromkeys(("instruction_layers", "cycles"), whole(0, 1024)),
    "image_size": pixels,
    "bands": positive_int,
    "max_text_length": whole(3, 1_000_000),  # two of them mark the beginning and the end
    **dict.fromkeys(("size_augmentation", "text_dropout", "dropout"), rate),
    **dict.fromkeys(("text_augmentation", "text_share"), fraction),
    **dict.fromkeys(("max_train_images", "max_eval_images", "chunk_size"), positive_int),
    **dict.fromkeys(("pairs_per_epoch", "shuffle_buffer"), positive_int),
    "structure_bank": natural_int,
    **dict.fromkeys(
        ("structure_weight", "representation_image_weight", "representation_text_weight", "distill_weight"),
        natural_float,
    ),
    "affiliation_weight": natural_float,
    "margin": number(0, 2),  # cosines differ by 2 at most
    **dict.fromkeys(("temperature", "affiliation_temperature"), positive_float),
    **dict.fromkeys(("mean_warmup_epochs", "ramp_epochs", "lr_milestones"), epochs),
    **dict.fromkeys(("learning_rate", "objective_lr"), positive_float),
    **dict.fromkeys(("tower_lr_scale", "weight_decay", "max_grad_norm"), natural_float),
    "lr_decay": fraction,
    "average_weights": inner_fraction,
    "cache_views": whole(1, 1024),
    "card_images": whole(0, 1000),
    # of TrainingArguments
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), whole(1, 1_000_000)),
    "gradient_accumulation_steps": whole(1, 1_000_000),
    "num_train_epochs": number(above=0, most=1_000_000),
    "max_steps": whole(-1),
    **dict.fromkeys(("adam_beta1", "adam_beta2"), rate),
    "adam_epsilon": positive_float,
    **dict.fromkeys(("warmup_steps", "eval_delay"), _share_or_steps),
    "warmup_ratio": fraction,
    **dict.fromkeys(("logging_steps", "eval_steps", "save_steps"), number(above=0, most=2**31 - 1)),
    **dict.fromkeys(("save_total_limit", "torch_empty_cache_steps", "ddp_bucket_cap_mb", "ddp_timeout"), positive_int),
    **dict.fromkeys(("seed", "data_seed"), seed),
    "dataloader_num_workers": whole(0, 1024),
    "dataloader_prefetch_factor": whole(1, 1024),
    "local_rank": whole(-1, 1_000_000),
    # refused below whatever their number is
    "label_smoothing_factor": fraction,
    "neftune_noise_alpha": natural_float,
    "eval_accumulation_steps": positive_int,
    "past_index": whole(-1),
}

_NO_EFFECT = "it has no effect here; leave it out"
_ONE_PROCESS_A_GPU = "models are saved and resumed whole here; leave it out and start with `accelerate launch` (DDP)"
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
    "parallelism_config": _ONE_PROCESS_A_GPU,
    "deepspeed": _ONE_PROCESS_A_GPU,
    "do_train": _NO_EFFECT,
    "do_predict": _NO_EFFECT,
}
REFUSED_FOR_PAIRS = {  # the prior, a classifier, knows what to do with them
    "label_smoothing_factor": "pairs have no labels to smooth; for PIR's prior write --prior.label_smoothing_factor",
    "eval_accumulation_steps": "embeddings leave the device batch by batch already; leave it out",
}
FSDP = ("version", "reshard_after_forward", "transformer_layer_cls_to_wrap")  # of --fsdp_config, what was tested
Parser = TypeVar("Parser", bound=argparse.ArgumentParser)
UNLISTED = ("azure_ml", "flyte", "kubeflow")  # trackers of which transformers does not say whether they are installed
WHOLE_MODEL_OPTIMIZERS = ("galore", "apollo", "lomo", "adalomo", "schedule_free")


def _always(text: str) -> bool:
    """The type of `--do_eval`, which Trainer sets to True whatever it was."""
    if not string_to_bool(text):
        raise argparse.ArgumentTypeError("a run evaluates what it selects; --eval_strategy no: only the last model")
    return True


def with_ranges(parser: Parser) -> Parser:
    """Give each numeric flag of a parser the type that refuses what is out of range; finite, where none is listed."""
    for action in parser._actions:
        if action.dest == "do_eval":
            action.type = _always
        elif action.dest in RANGES:
            action.type = RANGES[action.dest]
        elif action.type in (int, float):
            action.type = number() if action.type is float else whole(-(2**31))
    return parser


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
    if str(getattr(training, "train_sampling_strategy", "random")) == "group_by_length":
        raise ValueError(f"--train_sampling_strategy group_by_length: {REFUSED['group_by_length']}")
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
    remedies = {"DEEPSPEED": _ONE_PROCESS_A_GPU, "FSDP": "say so to the run, with --fsdp, and leave it out there"}
    for name, remedy in remedies.items():
        asked = name == "DEEPSPEED" or not training.fsdp  # with --fsdp, a stage of this run has set it
        if asked and env.get(f"ACCELERATE_USE_{name}", "").lower() in ("true", "1"):
            raise ValueError(f"accelerate launch with {name}: {remedy}")
    if training.world_size > 1 and not training.dataloader_drop_last:
        raise ValueError(
            "--dataloader_drop_last False: with several processes the last batch would be filled up with pairs that "
            "were seen already; leave it out"
        )


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


def default_settings(kind: type[TrainingArguments]) -> dict:
    """The default of each setting."""
    # TrainingArguments set up the processes anew when they are made: those of the run must stay as they are.
    states = [(state, dict(state._shared_state)) for state in (PartialState, AcceleratorState)]
    plain = kind(output_dir="unset", use_cpu=True, eval_strategy="no", save_strategy="no", load_best_model_at_end=False)
    for state, kept in states:
        state._shared_state.clear()
        state._shared_state.update(kept)
    return {item.name: getattr(plain, item.name) for item in fields(kind)}


@cache
def metric_names() -> tuple[str, ...]:
    """The metrics that an evaluation of pairs can give: those of an evaluation of ten pictures with all that may be."""
    texts = ["one text of two pictures", "one text of two pictures", *(f"text {row}" for row in range(8))]
    rows = Dataset.from_dict({"captions": [[text] for text in texts], "label": ["a", "b"] * 5})
    return tuple(row_metrics(rows, (torch.eye(10), torch.eye(10), torch.arange(10)), folds=FOLDS))


def metric_of(training: TrainingArguments, stage: str) -> str:
    """The metric that selects the best checkpoint of a stage, as evaluation calls it: with `eval_`.

    Raises:
        ValueError: no evaluation gives it, or `greater_is_better` would select the worst.
    """
    name = str(training.metric_for_best_model or "rsum").removeprefix("eval_")
    if stage == "prior":  # a common flag names what selects the retrieval model
        known = ("accuracy", *metric_names())
        if name not in known:
            raise ValueError(f"--metric_for_best_model {name}: the prior is chosen by accuracy; leave it out")
        return "eval_accuracy"
    if name not in metric_names():
        near = difflib.get_close_matches(name, metric_names(), 1)
        meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(metric_names())}"
        raise ValueError(f"--metric_for_best_model {name}: no evaluation gives it; {meant}")
    better = not name.endswith("_rank")
    if training.greater_is_better is not None and training.greater_is_better != better:
        raise ValueError(f"--metric_for_best_model {name} needs --greater_is_better {better}: else the worst is chosen")
    return f"eval_{name}"


def check_metric_of_rows(name: str, rows: Dataset):
    """Refuse a metric that these evaluation rows do not give.

    Args:
        name: as `metric_of` returns it.
        rows: prepared rows.

    Raises:
        ValueError: scene precision without classes, duplicate-aware recall without shared captions, folds of another
            number of pictures than 5,000.
    """
    texts = [text for captions in rows["captions"] for text in captions]
    owners = [row for row, captions in enumerate(rows["captions"]) for _ in captions]
    lacks = {
        "eval_scene_": "scene classes" if labels_of(rows) is None else "",
        "eval_duplicate_aware_": "" if captions_are_shared(texts, owners) else "captions that pictures share",
        f"eval_{FOLDS}_fold_": "" if len(rows) == FOLDED else f"{FOLDED} pictures",
    }
    for prefix, lacking in lacks.items():
        if name.startswith(prefix) and lacking:
            raise ValueError(
                f"--metric_for_best_model {name.removeprefix('eval_')}: the evaluation rows have no {lacking}; choose "
                "another, such as rsum"
            )
