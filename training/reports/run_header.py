"""What a stage says before it starts: what is trained, on what, for how long, and in how much memory."""

import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerState, TrainingArguments

WEIGHT, TRAINED = 4, 16  # bytes of a float32 weight; with its gradient and the two means of AdamW


def header_of(trainer: Trainer, args: TrainingArguments, state: TrainerState) -> list[str]:
    """The lines of a header: the stage, and (name, text) for what is known of it."""
    stage = f"\n{Path(args.output_dir).name} on {_device(args)}"
    return [stage, *(f"  {name:10}{text}" for name, text in facts(trainer, args, state))]


def facts(trainer: Trainer, args: TrainingArguments, state: TrainerState) -> list[tuple[str, str]]:
    """What a stage is: (name, text)."""
    model = trainer.model
    if hasattr(model, "get_base_model"):  # LoRA
        model = model.get_base_model()
    towers = [tower for tower in model.children() if getattr(tower, "config", None) is not None]
    weights, trained = _count(model), _count(trainer.model, trained=True)
    decay = getattr(args, "average_weights", None)
    memory = ((TRAINED + (WEIGHT if decay else 0)) * trained + WEIGHT * (weights - trained)) / 1e9
    lines = [("towers", ", ".join(map(_tower, towers)))] if towers else []
    lines.append(("trained", f"{_millions(trained)} of {_millions(weights)} weights"))
    if decay:
        lines.append(("average", f"of the weights, which keeps {decay:g} of itself in each step; it is what counts"))
    needed = f"{max(memory, 0.01):.2g} GB for weights, gradients and AdamW"
    lines.append(("memory", f"{needed}; what a batch needs comes on top"))
    lines.append(("data", _data(trainer)))
    each = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
    epochs = state.max_steps * each / max(1, len(trainer.train_dataset))
    begun = f", {state.global_step:,} of them done" if state.global_step else ""
    lines.append(
        ("steps", f"{state.max_steps:,} of {each:,} each, {epochs:.2g} epochs{begun}; {_evaluated(args, state)}")
    )
    return lines


def peak_memory(device: torch.device) -> str:
    """How much memory this process has used at most, in words; empty where nobody knows."""
    if device.type == "cuda":
        return f"at most {torch.cuda.max_memory_allocated(device) / 1e9:.2g} GB of the GPU so far"
    try:
        import resource
    except ImportError:  # Windows
        return ""
    unit = 1 if sys.platform == "darwin" else 1024
    return f"at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9:.2g} GB of memory so far"


def _device(args: TrainingArguments) -> str:
    if args.device.type == "cpu":
        threads = torch.get_num_threads()
        name = f"the CPU, {threads} thread{'s' * (threads > 1)}"
    else:
        name = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else str(args.device)
    precision = next((f", {kind}" for kind in ("bf16", "fp16") if getattr(args, kind)), "")
    return f"{name}{precision}" + (f", {args.world_size} processes" if args.world_size > 1 else "")


def _tower(tower: nn.Module) -> str:
    weights, trained = _count(tower), _count(tower, trained=True)
    if not trained:
        how = "frozen"
    elif 2 * trained > weights:
        how = "trained"
    else:
        how = f"{_millions(trained)} trained"
    return f"{tower.config.model_type} ({_millions(weights)}, {how})"


def _count(model: nn.Module, trained: bool = False) -> int:
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad or not trained)


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count:,}"


def _data(trainer: Trainer) -> str:
    items: Any = trainer.train_dataset
    rows, count = getattr(items, "rows", None), len(items)
    if rows is None:  # a stream
        text = f"{count:,} pairs an epoch"
    else:
        text = f"{len(rows):,} pictures" + (f", {count:,} texts" if len(rows) != count else "")
    held = trainer.eval_dataset
    return text if held is None else f"{text}; {len(held):,} pictures to evaluate"


def _evaluated(args: TrainingArguments, state: TrainerState) -> str:
    strategy = getattr(args.eval_strategy, "value", args.eval_strategy)
    if strategy == "no":
        return "evaluated at the end"
    often = "after each epoch"
    if strategy == "steps":
        every = args.eval_steps if args.eval_steps >= 1 else math.ceil(args.eval_steps * state.max_steps)
        if every * max(1, math.ceil(args.eval_delay / every)) > state.max_steps:
            return f"evaluated at the end alone (--eval_steps {every:g}), so the last counts"
        often = f"every {every:g} steps"
    best = (
        f", the best {args.metric_for_best_model.removeprefix('eval_')} counts" if args.load_best_model_at_end else ""
    )
    return f"evaluated {often}{best}"


__all__ = ["facts", "header_of", "peak_memory"]
