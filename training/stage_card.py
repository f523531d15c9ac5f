"""The Hub folder of a run: its model card, made from the arguments of the run, and examples."""

from dataclasses import asdict
from functools import partial
from pathlib import Path

from datasets import Dataset

from ..data.rows import row_image
from ..files.digests import settings_digest
from ..modeling.modeling_dual_encoder import DualEncoderPreTrainedModel
from ..processing.processing_dual_encoder import DualEncoderProcessor
from .stages import StageArguments, publish

RECIPE_FIELDS = ("model", "data", "objective")
METRICS = ("recall", "rsum", "precision", "accuracy")


def card_of(stages: dict[str, StageArguments], results: dict, name: str) -> dict:
    """Build the arguments of `write_model_card`.

    Args:
        stages: for each stage that was run, its arguments, in order.
        results: for each stage, the validation metrics of its selected checkpoint (`eval_...`).
        name: of the model.
    """
    last, args = list(stages.items())[-1]
    recipe = {stage: {part: asdict(getattr(a, part)) for part in RECIPE_FIELDS} for stage, a in stages.items()}
    metrics = {
        key.removeprefix("eval_"): value for key, value in results[last].items() if any(m in key for m in METRICS)
    }
    model = args.model
    towers = [model.vision, model.text, *(getattr(model, source) for source in model.sources)]
    return {
        "name": name,
        "results": [
            {
                "dataset": args.data.data,
                "split": args.data.eval_split,
                "metrics": {key: round(value, 2) for key, value in metrics.items()},
                "protocol": "all images against all their captions, each image once; per cent, ties by expectation",
                "intervals": results[last].get("eval_intervals", {}),
                "selected": "rsum on this split",
                "seed": args.training.seed,
            }
        ],
        "training": {"hash of the arguments": settings_digest(recipe, 12), **_facts(stages, results)},
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


def _facts(stages: dict[str, StageArguments], results: dict) -> dict:
    facts = {}
    for stage, args in stages.items():
        training = args.training
        length = f"{training.max_steps} steps" if training.max_steps > 0 else f"{training.num_train_epochs:g} epochs"
        facts[stage] = (
            f"{length} of {training.per_device_train_batch_size} pairs per process, learning rate "
            f"{training.learning_rate:g} (towers x {training.tower_lr_scale:g}), weight decay {training.weight_decay:g}"
        )
        if "eval_accuracy" in results[stage]:
            facts[stage] += f"; accuracy {results[stage]['eval_accuracy']:.1f} % on {args.data.eval_split}"
    facts["objective"] = ", ".join(f"{name} {value}" for name, value in asdict(args.objective).items())
    if "pretrain" in stages or "finetune" in stages:
        source = args.data.dense_text  # the name of a file, not its path on somebody's machine
        facts["dense text"] = Path(source).name if "/" in source else source
    facts["image augmentation"] = args.data.image_augmentation
    frozen = [name for name in ("vision", "text") if getattr(args.model, f"freeze_{name}")]
    facts["frozen towers"] = ", ".join(frozen) or "none"
    return facts
