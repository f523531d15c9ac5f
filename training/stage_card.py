"""The Hub folder of a run: its model card, made from the arguments of the run, and examples."""

import json
from functools import partial
from pathlib import Path

from datasets import Dataset

from ..data.rows import row_image
from ..files.whole import write_json
from ..modeling.modeling_dual_encoder import DualEncoderPreTrainedModel
from ..processing.processing_dual_encoder import DualEncoderProcessor
from .flags.arguments import D2SObjectiveArguments, PIRObjectiveArguments
from .saving.checkpoints import HISTORY
from .stage_arguments import StageArguments
from .stages import TRAINING_FILE, publish

METRICS = ("recall", "rsum", "precision", "accuracy")


def card_of(stages: dict[str, StageArguments], results: dict, name: str) -> dict:
    """Build the arguments of `write_model_card`.

    Args:
        stages: for each stage that was run, its arguments, in order.
        results: for each stage, the validation metrics of its selected checkpoint (`eval_...`).
        name: of the model.
    """
    last, args = list(stages.items())[-1]
    metrics = {
        key.removeprefix("eval_"): value for key, value in results[last].items() if any(m in key for m in METRICS)
    }
    model = args.model
    sources = [source for source in model.sources if source != "stage1_model"]  # which is no tower
    towers = [model.vision, model.text, *(getattr(model, source) for source in sources)]
    return {
        "name": name,
        "results": [
            {
                "dataset": args.data.data,
                "split": args.data.eval_split,
                "metrics": {key: round(value, 2) for key, value in metrics.items()},
                "protocol": "all images against all their captions, each image once; per cent, ties by expectation",
                "intervals": results[last].get("eval_intervals", {}),
                "selected": _selection(args),
                "seed": args.training.seed,
            }
        ],
        "training": _facts(stages, results),
        "base_models": [tower for tower in towers if tower],
        "datasets": [args.data.data],
    }


def publish_run(
    stages: dict[str, StageArguments],
    model: DualEncoderPreTrainedModel,
    processor: DualEncoderProcessor,
    results: dict[str, dict],
    rows: Dataset,
):
    """Write the Hub folder of a run, on its first process.

    Args:
        stages: for each stage that was run, its arguments, in order.
        model, processor: of the last stage.
        results: for each stage, its metrics.
        rows: of the evaluation split; `--card_images` of its pictures become examples of the card.
    """
    args = list(stages.values())[-1]
    if args.training.process_index != 0:
        return
    for stage, each in stages.items():
        write_json(each.folder / TRAINING_FILE, {stage: _training_fact(each, results[stage])})
    examples = partial(widget_examples, model=model, processor=processor, rows=rows, count=args.training.card_images)
    publish(args.root, model, processor, card_of(stages, results, args.root.name), results, examples)


def widget_examples(
    folder: Path, model: DualEncoderPreTrainedModel, processor: DualEncoderProcessor, rows: Dataset, count: int
) -> list[dict]:
    """Put `count` pictures of the evaluation rows into a Hub folder, each with the model's scores of four captions.

    Returns:
        `examples` of `write_model_card`: the picture's own first caption, three other rows', and their scores.
    """
    examples = []
    for number in range(min(count, len(rows))):
        image = row_image(rows[number])
        image.thumbnail((512, 512))
        name = f"example_{number}.jpg"
        image.save(folder / name, quality=85)
        others = [(number + step * max(1, len(rows) // 4)) % len(rows) for step in range(4)]
        labels = list(dict.fromkeys(rows[other]["captions"][0] for other in others))
        cosines = model.encode_image([image], processor=processor) @ model.encode_text(labels, processor=processor).t()
        scores = (cosines[0] * model.config.logit_scale).softmax(0).tolist()
        output = sorted(({"label": x, "score": y} for x, y in zip(labels, scores)), key=lambda row: -row["score"])
        examples.append({"src": name, "labels": labels, "output": output})
    return examples


def _facts(stages: dict[str, StageArguments], results: dict) -> dict[str, str]:
    """Training in a few lines: each stage, also one that an earlier run finished, the objective, the data."""
    args = list(stages.values())[-1]
    facts = _earlier_stages(args) | {stage: _training_fact(each, results[stage]) for stage, each in stages.items()}
    facts["objective"] = _objective(args.objective)
    data = [f"augmentation of pictures: {args.data.image_augmentation}"]
    if "pretrain" in facts or "finetune" in facts:
        source = args.data.dense_text  # the name of a file, not its path on somebody's machine
        data.insert(0, f"dense text: {Path(source).name if '/' in source else source}")
    frozen = [name for name in ("vision", "text") if getattr(args.model, f"freeze_{name}")]
    facts["data and towers"] = "; ".join([*data, f"frozen towers: {', '.join(frozen) or 'none'}"])
    return facts


def _training_fact(args: StageArguments, metrics: dict) -> str:
    """How a stage was trained, in one line: its length, its rates and, of the prior, its accuracy."""
    training = args.training
    length = f"{training.max_steps} steps" if training.max_steps > 0 else f"{training.num_train_epochs:g} epochs"
    fact = (
        f"{length} of {training.per_device_train_batch_size} pairs per process, learning rate "
        f"{training.learning_rate:g} (towers x {training.tower_lr_scale:g}), weight decay {training.weight_decay:g}"
    )
    if training.average_weights:
        fact += f"; a moving average of the weights ({training.average_weights:g})"
    if "eval_accuracy" in metrics:
        fact += f"; accuracy {metrics['eval_accuracy']:.1f} % on {args.data.eval_split}"
    return fact


def _selection(args: StageArguments) -> str:
    """What chose the checkpoint of a stage; of one that is shorter than `--eval_steps`, nothing did."""
    metric = str(args.training.metric_for_best_model)
    if not args.training.load_best_model_at_end or not _was_compared(args.folder / HISTORY, metric):
        return "its place: the last of the stage"
    return f"{metric.removeprefix('eval_')} on this split"


def _was_compared(history: Path, metric: str) -> bool:
    """Whether a stage was evaluated before its end, as far as what it logged is there."""
    try:
        return any(metric in entry for entry in json.loads(history.read_text(encoding="utf-8"))["log_history"])
    except (OSError, ValueError, KeyError, TypeError):
        return True


def _objective(objective: D2SObjectiveArguments | PIRObjectiveArguments) -> str:
    """The losses and their weights."""
    kind = getattr(objective, "align", None) or getattr(objective, "contrast", "")
    number = f"temperature {objective.temperature:g}" if kind == "infonce" else f"margin {objective.margin:g}"
    parts = [f"{kind} ({number})"]
    for name, word in (("distill_weight", "distillation"), ("affiliation_weight", "affiliation")):
        if weight := getattr(objective, name, 0):
            parts.append(f"{word} x {weight:g}")
    if objective.structure_weight:
        parts.append(f"structure x {objective.structure_weight:g} ({objective.structure_relation})")
    return ", ".join(parts)


def _earlier_stages(args: StageArguments) -> dict[str, str]:
    """What the run of `--stage1_model` wrote about its stage, if it is there."""
    source = getattr(args.model, "stage1_model", None)
    path = Path(source).parent / TRAINING_FILE if source else None
    if path is None or not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return {str(stage): str(fact) for stage, fact in facts.items()}
    except (ValueError, AttributeError):  # a card is no place to stop for a damaged note
        return {}
