"""PIR's two stages: the prior, a scene classifier, then retrieval under its instruction."""

from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers.image_processing_utils import BaseImageProcessor

from ..losses.objectives import PIRObjective
from ..modeling.modeling_pir import PIRModel
from ..modeling.towers import load_complete, load_errors
from ..processing.processing_pir import PIRProcessor
from .flags.arguments import PIRObjectiveArguments
from .pair_stage import selected, train_pairs
from .preflight import cap_text_length
from .prior import train_prior
from .splits import Splits
from .stage_arguments import StageArguments

STAGES = ("prior", "retrieval")


def check_stages(stages: dict[str, StageArguments]):
    """Refuse a prior that would not be used.

    Raises:
        ValueError: both stages, and a model without instruction.
    """
    if len(stages) < 2:
        return
    model = stages["retrieval"].model
    if not (model.use_instruction and model.instruction_layers):
        raise ValueError("a model without instruction would not use the prior: add --stages retrieval")


def needs_label(stages: dict[str, StageArguments]) -> bool:
    """Whether every training row must have a scene class."""
    return "prior" in stages or stages["retrieval"].objective.affiliation_weight > 0


def train_stage(splits: Splits, args: StageArguments, prior: tuple | None) -> tuple[Any, Any, dict[str, Any]]:
    """Train one stage of a run; return the selected model, its processor and its metrics.

    Args:
        splits: prepared rows.
        args: of this stage.
        prior: classifier and image processor of the stage before, if this run had one.
    """
    if args.stage == "prior":
        return train_prior(splits, args)
    # From its folder, which the first process wrote: every process then loads the same encoder.
    instruction = args.model.instruction if prior is None else args.root / "prior" / "best"
    return train_retrieval(splits, args, instruction)


def load(stage: str, folder: Path | str) -> tuple[Any, Any]:
    """Read what a finished stage saved."""
    with load_errors(folder):
        if stage == "prior":
            pictures = AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
            return AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=False), pictures
        return load_complete(PIRModel, folder), PIRProcessor.from_pretrained(folder)


def train_retrieval(
    splits: Splits, args: StageArguments, instruction: str | Path | None
) -> tuple[PIRModel, PIRProcessor, dict[str, Any]]:
    """Build PIR around its towers, train it, and return model, processor and metrics."""
    model, processor = fresh_model(args, instruction)
    objective = objective_of(args.objective, legacy=args.model.legacy)
    return selected(train_pairs(model, processor, splits.train, splits.evaluation, args, objective))


def fresh_model(args: StageArguments, instruction: str | Path | None) -> tuple[PIRModel, PIRProcessor]:
    """The untrained model around pretrained towers, and its processor.

    Args:
        args: of the stage `retrieval`.
        instruction: Hub id or folder of the instruction encoder, or None.
    """
    processor = PIRProcessor.from_vision_text_pretrained(
        args.model.vision,
        args.model.text,
        args.model.image_size,
        max_length=args.data.max_text_length,
        imagenet=args.model.imagenet_normalisation,
    )
    numbers = args.model.numbers()
    if args.model.use_instruction and args.model.instruction_layers and instruction is not None:
        pictures = AutoImageProcessor.from_pretrained(instruction, backend="pil", trust_remote_code=False)
        numbers |= normalisation_between(processor.image_processor, pictures)
    source = None if instruction is None else str(instruction)
    model = PIRModel.from_vision_text_pretrained(args.model.vision, args.model.text, source, **numbers)
    cap_text_length(model, processor)
    return model, processor


def normalisation_between(
    vision_processor: BaseImageProcessor, instruction_processor: BaseImageProcessor
) -> dict[str, list[float]]:
    """`instruction_scale` and `instruction_shift` of [`PIRConfig`]: from the one's normalisation to the other's."""
    ours, theirs = vision_processor, instruction_processor
    scale = [a / b for a, b in zip(ours.image_std, theirs.image_std)]
    shift = [(a - b) / s for a, b, s in zip(ours.image_mean, theirs.image_mean, theirs.image_std)]
    if np.allclose(scale, 1) and np.allclose(shift, 0):
        return {}
    return {"instruction_scale": scale, "instruction_shift": shift}


def objective_of(args: PIRObjectiveArguments, legacy: bool) -> PIRObjective:
    """Build the objective that the arguments describe."""
    return PIRObjective(
        contrast=args.contrast,
        temperature=args.temperature,
        margin=args.margin,
        affiliation_weight=args.affiliation_weight,
        affiliation_temperature=args.affiliation_temperature,
        legacy=legacy,
    )
