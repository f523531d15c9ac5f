"""What a trained D2S-VSE says of itself: the facts for its model card, from the arguments that made it."""

import hashlib
import json
from dataclasses import asdict

RECIPE_FIELDS = ("model", "data", "objective")


def card_of(stages: dict, results: dict, name: str) -> dict:
    """Build the arguments of `write_model_card`.

    Args:
        stages: for each stage that was run, its `StageArguments`, in order.
        results: for each stage, the validation metrics of its selected checkpoint (`eval_...`).
        name: of the model.
    """
    last, args = list(stages.items())[-1]
    recipe = {stage: {part: asdict(getattr(a, part)) for part in RECIPE_FIELDS} for stage, a in stages.items()}
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
    metrics = {
        key.removeprefix("eval_"): value for key, value in results[last].items() if "recall" in key or "rsum" in key
    }
    return {
        "name": name,
        "results": [
            {
                "dataset": args.data.data,
                "split": args.data.eval_split,
                "metrics": {key: round(value, 2) for key, value in metrics.items()},
                "protocol": "all images against all their captions, each image once; per cent, ties by expectation",
                "selected": "rsum on this split",
                "seed": args.training.seed,
            }
        ],
        "training": {"hash of the arguments": digest, **_facts(stages)},
        "base_models": [args.model.vision, args.model.text],
        "datasets": [args.data.data],
    }


def _facts(stages: dict) -> dict:
    facts = {}
    for stage, args in stages.items():
        training, objective = args.training, args.objective
        length = f"{training.max_steps} steps" if training.max_steps > 0 else f"{training.num_train_epochs:g} epochs"
        facts[stage] = (
            f"{length} of {training.per_device_train_batch_size} pairs per process, {objective.align}, learning rate "
            f"{training.learning_rate:g} (towers x {training.tower_lr_scale:g}), weight decay {training.weight_decay:g}"
        )
        if stage == "finetune":
            facts["distillation"] = f"{objective.distance} x {objective.distill_weight:g}, {objective.teacher} teacher"
    facts["dense text"] = args.data.dense_text
    frozen = [name for name in ("vision", "text") if getattr(args.model, f"freeze_{name}")]
    facts["frozen towers"] = ", ".join(frozen) or "none"
    return facts
