"""`vsehub evaluate MODEL --data SOURCE --split test`: recalls of a saved model (the only reader of test splits)."""

import argparse
import json
from pathlib import Path

from accelerate import Accelerator
from transformers import AutoModel, AutoProcessor

from ..modeling.modeling_dual_encoder import DualEncoderPreTrainedModel
from ..modeling.towers import weights_of
from ..processing.graded import class_relevance, graded_metrics, rouge_l_relevance
from .arguments import DataArguments
from .data import prepare_rows
from .evaluation import embed_rows, row_metrics


def evaluate_model(
    source: str, data: DataArguments, split: str, folds: int = 0, batch_size: int = 64, graded=None
) -> dict:
    """Embed a split, each image once, and rank it.

    Args:
        source: folder or Hub id of a model of vsehub and its processor.
        data: source and columns.
        split: which split.
        folds: also average over so many consecutive folds (COCO 1K: 5).
        batch_size: images, or texts, at a time.
        graded: `captions` (ROUGE-L) or `classes`: also NDCG within and across modalities (`graded_metrics`).

    Returns:
        What `row_metrics` gives: recalls in per cent, rsum, mean_recall, ...

    Raises:
        ValueError: no model of vsehub, or `classes` where the data have none.
    """
    accelerator = Accelerator()
    if source.startswith(("/", ".", "~")) and not Path(source).is_dir():
        raise FileNotFoundError(f"{source}: no such folder")
    with weights_of(source):
        model = AutoModel.from_pretrained(source).to(accelerator.device)
    if not isinstance(model, DualEncoderPreTrainedModel):
        raise ValueError(f"{source} is a {type(model).__name__}, not an image-text model of vsehub")
    processor = AutoProcessor.from_pretrained(source)
    rows = prepare_rows(data, split, "runs/evaluate", need_dense=False, limit=data.max_eval_images)
    embeds = embed_rows(model, processor, rows, accelerator, batch_size, data.max_text_length)
    metrics = row_metrics(rows, embeds, folds)
    if graded == "captions":
        metrics |= graded_metrics(*embeds, rouge_l_relevance(list(rows["captions"])))
    elif graded == "classes":
        if "label" not in rows.column_names or not all(rows["label"]):
            raise ValueError(f"{data.data} has no scene classes to grade by: name their column with --label_column")
        metrics |= graded_metrics(*embeds, class_relevance(rows["label"], embeds[2]))
    return metrics


def table(rows: dict[str, dict]) -> str:
    """Lay out metrics as a table: one line per name; recalls both ways, their sum, and seconds where known."""
    ks = (1, 5, 10)
    head = f"{'':24}" + "image to text".center(22) + "text to image".center(22) + f"{'rSum':>8}{'mR':>7}{'time':>8}"
    lines = [head, f"{'':24}" + "".join(f"{f'R@{k}':>7}" for k in ks) + " " + "".join(f"{f'R@{k}':>7}" for k in ks)]
    for name, metrics in rows.items():
        cells = [f"{name:24}"]
        for way in ("image_to_text", "text_to_image"):
            cells.append("".join(f"{metrics[f'{way}_recall@{k}']:7.1f}" for k in ks) + " ")
        cells.append(f"{metrics['rsum']:8.1f}{metrics['mean_recall']:7.2f}")
        cells.append(f"{metrics['seconds']:7.0f}s" if "seconds" in metrics else "")
        lines.append("".join(cells))
    return "\n".join(lines)


def further_lines(metrics: dict) -> list[str]:
    """What an evaluation has beyond the table: duplicate-aware recalls and scene precision."""
    lines = []
    for name, prefix, what in (
        ("identical captions count", "duplicate_aware", "recall"),
        ("same scene class", "scene", "precision"),
    ):
        if f"{prefix}_text_to_image_{what}@1" in metrics:
            ways = ("image_to_text", "text_to_image")
            cells = [
                "".join(f"{metrics.get(f'{prefix}_{way}_{what}@{k}', float('nan')):7.1f}" for k in (1, 5, 10))
                for way in ways
            ]
            total = (
                f"{metrics['duplicate_aware_mean_recall']:15.2f}"
                if prefix == "duplicate_aware"
                else f"  {what}@1, 5, 10"
            )
            lines.append(f"{name:24}{cells[0]} {cells[1]} {total}")
    for task in ("image_to_image", "text_to_text", "image_to_mixed", "text_to_mixed"):
        if f"{task}_ndcg@10" in metrics:
            cells = "".join(f"{metrics[f'{task}_ndcg@{k}']:7.1f}" for k in (10, 20, 50))
            lines.append(f"{task.replace('_', ' '):24}{cells}  NDCG@10, 20, 50")
    return lines


def main(argv: list[str] | None = None) -> int:
    """Parse, evaluate, print a table; `--json FILE` keeps the numbers."""
    parser = argparse.ArgumentParser("vsehub evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder or Hub id")
    parser.add_argument("--data", required=True, help="Hub id, parquet, imagefolder, Karpathy json or official folder")
    parser.add_argument("--split", default="test")
    parser.add_argument("--image_root")
    parser.add_argument("--captions_column", default="captions")
    parser.add_argument(
        "--label_column", default="label", help="scene classes, for scene precision; used if it is there"
    )
    parser.add_argument("--on_bad_sample", choices=("error", "quarantine"), default="error")
    parser.add_argument("--folds", type=int, default=0, help="also the mean over so many folds (COCO 1K: 5)")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--graded", choices=("captions", "classes"), help="also NDCG within and across modalities")
    parser.add_argument("--json", help="write the metrics here")
    args = parser.parse_args(argv)
    data = DataArguments(
        data=args.data,
        image_root=args.image_root,
        captions_column=args.captions_column,
        label_column=args.label_column,
        on_bad_sample=args.on_bad_sample,
    )
    metrics = evaluate_model(args.model, data, args.split, args.folds, args.batch_size, args.graded)
    print("\n".join([table({f"{Path(args.model).name} on {args.split}": metrics}), *further_lines(metrics)]))
    if args.json:
        Path(args.json).write_text(json.dumps(metrics, indent=2))
    return 0
