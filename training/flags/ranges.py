"""The range of each number of a run, refused when the command line or a recipe is read."""

import argparse
from typing import TypeVar

from transformers.hf_argparser import string_to_bool

from ...files.numbers import (
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
Parser = TypeVar("Parser", bound=argparse.ArgumentParser)


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
