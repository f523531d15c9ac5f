"""The metric by which a run selects its best checkpoint."""

import difflib
from functools import cache

import torch
from datasets import Dataset
from transformers import TrainingArguments

from ...evaluation.embed import Embeds, labels_of, row_metrics
from ...evaluation.scene_metrics import captions_are_shared

FOLDS, FOLDED = 5, 5000  # the 1K protocol of COCO


@cache
def metric_names() -> tuple[str, ...]:
    """The metrics that an evaluation of pairs can give: those of an evaluation of ten pictures with all that may be."""
    texts = ["one text of two pictures", "one text of two pictures", *(f"text {row}" for row in range(8))]
    rows = Dataset.from_dict({"captions": [[text] for text in texts], "label": ["a", "b"] * 5})
    return tuple(row_metrics(rows, Embeds(torch.eye(10), torch.eye(10), torch.arange(10)), folds=FOLDS))


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
