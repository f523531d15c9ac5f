"""D2S-VSE's two stages: dense captions first, then short ones under a dense teacher, with a checked hand-over.

Stage 1 (`pretrain`): image + dense text, no decoder. Stage 2 (`finetune`): image + short captions, a fresh mask-token
decoder, and distillation from the frozen text side of stage 1. `baseline` is the alignment of stage 2 alone, from
scratch.
"""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from ..configuration.configuration_d2s_vse import D2SVSEConfig
from ..data.arguments import DataArguments
from ..losses.objectives import D2SObjective
from ..modeling.modeling_d2s_vse import D2SVSEModel
from ..modeling.towers import load_complete, load_errors
from ..processing.processing_d2s_vse import D2SVSEProcessor
from .flags.arguments import D2SModelArguments, D2SObjectiveArguments
from .inputs.dense_teacher import DENSE_TEXT_EMBEDS, add_dense_text_embeds
from .inputs.tower_cache import cache_text
from .pair_stage import selected, train_pairs
from .preflight import cap_text_length
from .splits import Splits
from .stage_arguments import StageArguments
from .trainer import RetrievalTrainer

STAGES = ("pretrain", "finetune", "baseline")


def check_stages(stages: dict[str, StageArguments]):
    """Refuse a stage-1 model that would not be used.

    Raises:
        ValueError: it is named, and the run starts with another stage than `finetune`.
    """
    first, args = next(iter(stages.items()))
    if args.model.stage1_model and first != "finetune":
        raise ValueError(
            f"--stage1_model {args.model.stage1_model}: this run starts with {first} and would not use it; add "
            "--stages finetune, or leave it out"
        )


def needs_dense_text(stages: dict[str, StageArguments]) -> bool:
    """Whether every training row must have a dense text."""
    return "pretrain" in stages or ("finetune" in stages and stages["finetune"].objective.distill_weight > 0)


def train_stage(
    splits: Splits, args: StageArguments, stage1: tuple[D2SVSEModel, D2SVSEProcessor] | None
) -> tuple[D2SVSEModel, D2SVSEProcessor, dict[str, Any]]:
    """Train one stage of a run; return the selected model, its processor and its metrics.

    Args:
        splits: prepared rows.
        args: of this stage.
        stage1: model and processor of the stage before, if this run had one.
    """
    dense_teacher = None
    if args.stage == "finetune":
        dense_teacher, processor = stage1 or stage1_of(args)
        model = add_decoder(dense_teacher, args.model)
        limit = min(processor.tokenizer.model_max_length, args.data.max_text_length)
        processor.tokenizer.model_max_length = limit
    else:
        model, processor = fresh_model(args.model, args.data)
    return selected(run_stage(model, processor, splits, args, dense_teacher))


def load(stage: str, folder: Path | str) -> tuple[D2SVSEModel, D2SVSEProcessor]:
    """Read what a finished stage saved; all stages of D2S-VSE save the same kind of model, whatever `stage` is."""
    with load_errors(folder):
        return load_complete(D2SVSEModel, folder), D2SVSEProcessor.from_pretrained(folder)


def fresh_model(args: D2SModelArguments, data: DataArguments) -> tuple[D2SVSEModel, D2SVSEProcessor]:
    """Build the stage-1 model around pretrained towers, and its processor."""
    model = D2SVSEModel.from_vision_text_pretrained(args.vision, args.text, **args.numbers(), use_decoder=False)
    processor = D2SVSEProcessor.from_vision_text_pretrained(
        args.vision,
        args.text,
        args.image_size,
        max_length=data.max_text_length,
        imagenet=args.imagenet_normalisation,
    )
    cap_text_length(model, processor)
    return model, processor


def stage1_of(args: StageArguments) -> tuple[D2SVSEModel, D2SVSEProcessor]:
    """Load the stage-1 model that `--stage1_model` names; it brings its towers.

    Raises:
        ValueError: none is named, it is another model, or `--vision` or `--text` name other towers.
    """
    source = args.model.stage1_model
    if not source:
        raise ValueError("stage 2 alone needs the result of stage 1: --stage1_model FOLDER, or run both stages")
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if config.model_type != D2SVSEConfig.model_type:
        raise ValueError(f"--stage1_model {source} is a {config.model_type}, not a stage-1 model of D2S-VSE")
    for tower in ("vision", "text"):
        named, own = getattr(args.model, tower), getattr(config, f"{tower}_config")
        if named == getattr(D2SModelArguments, tower):
            continue
        other = AutoConfig.from_pretrained(named, trust_remote_code=False)
        other = getattr(other, f"{tower}_config", other)
        if (own.model_type, _width(own)) != (other.model_type, _width(other)):
            raise ValueError(
                f"--{tower} {named} is a {other.model_type}, but {source} was trained with a {own.model_type} "
                f"(widths {_width(other)} and {_width(own)}): leave --{tower} out, or train stage 1 anew"
            )
    return load("pretrain", source)


def _width(config: PretrainedConfig) -> int | list[int] | None:
    return getattr(config, "hidden_size", None) or getattr(config, "hidden_sizes", None)


def add_decoder(stage1: D2SVSEModel, args: D2SModelArguments) -> D2SVSEModel:
    """Hand over: a stage-2 model with every weight of stage 1 and a fresh decoder.

    Raises:
        ValueError: the two do not fit; the message names the weights.
    """
    if stage1.config.model_type != D2SVSEConfig.model_type or stage1.config.use_decoder:
        raise ValueError(
            f"{stage1.name_or_path or 'this model'} is not a stage-1 model: it must be D2S-VSE without decoder"
        )
    for name in ("projection_dim", "image_size"):  # the processor comes from stage 1, and so its size
        own, asked = getattr(stage1.config, name), getattr(args, name)
        if own != asked:
            raise ValueError(f"stage 1 has {name} {own}, this stage {asked}: set them alike")
    settings = {**stage1.config.to_dict(), **args.numbers(), "use_decoder": True}
    for name in ("auto_map", "architectures", "transformers_version", "model_type", "dtype", "_name_or_path"):
        settings.pop(name, None)
    model = D2SVSEModel(D2SVSEConfig(**settings))
    report = model.load_state_dict(stage1.state_dict(), strict=False)
    fresh = [key for key in report.missing_keys if not key.startswith("mask_token_decoder.")]
    if fresh or report.unexpected_keys:
        raise ValueError(f"stage 1 and stage 2 do not fit: missing {fresh}, left over {report.unexpected_keys}")
    return model


def run_stage(
    model: D2SVSEModel,
    processor: D2SVSEProcessor,
    splits: Splits,
    args: StageArguments,
    dense_teacher: D2SVSEModel | None = None,
) -> RetrievalTrainer:
    """Train one stage, select on the evaluation split, and return the trainer holding the best model.

    Args:
        model, processor: what to train.
        splits: prepared rows.
        args: of this stage.
        dense_teacher: the stage-1 model; `finetune` distils from it.
    """
    distil = args.stage == "finetune" and dense_teacher is not None and args.objective.distill_weight > 0
    online = distil and args.objective.dense_teacher == "online"
    rows = splits.train
    if distil and not online:
        states = None
        if args.training.cache_text and args.model.freeze_text and DENSE_TEXT_EMBEDS not in rows.column_names:
            dense_teacher.to(args.training.device)
            texts = list(rows["dense_text"])  # type: ignore[index]  # a stream has an online teacher
            states = cache_text(dense_teacher, processor, texts, args.root / "cache")
        rows = add_dense_text_embeds(rows, dense_teacher, processor, args.training.device, states)
    return train_pairs(
        model,
        processor,
        rows,
        splits.evaluation,
        args,
        objective_of(args.objective, distil),
        texts="dense_text" if args.stage == "pretrain" else "captions",
        dense_teacher=dense_teacher if online else None,
    )


def objective_of(args: D2SObjectiveArguments, distil: bool) -> D2SObjective:
    """Build the objective that the arguments describe."""
    return D2SObjective(
        align=args.align,
        margin=args.margin,
        temperature=args.temperature,
        mean_warmup_epochs=args.mean_warmup_epochs,
        ramp_epochs=args.ramp_epochs,
        distance=args.distance,
        distill_weight=args.distill_weight if distil else 0.0,
    )
