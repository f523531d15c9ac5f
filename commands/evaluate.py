"""`vsehub evaluate MODEL --data SOURCE --split test`: retrieval metrics of a saved model on a split."""

from pathlib import Path

from ..files.numbers import natural_int, positive_int
from .flags import (
    add_data_flags,
    add_device,
    add_dtype,
    add_json,
    add_trust,
    chosen_device,
    data_arguments,
    loading_options,
    remark,
    tell,
)
from .parser import Parser
from .quiet import calm


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        "evaluate",
        "Retrieval metrics of a saved model on a split, by named protocols.",
        "evaluate runs/mine/hub --data org/pairs --split test --json mine.json",
    )
    parser.add_place("model", "folder or Hub id")
    add_data_flags(parser, split="test")
    parser.add("--label_column", default="label", help="column of scene classes, for scene precision; optional")
    parser.add("--protocol", default="recall", help="one or several, separated by commas; see docs/evaluation.md")
    parser.add("--ground_truth", help="folder of CxC and ECCV Caption (default: the package eccv_caption)")
    parser.add("--folds", type=natural_int, default=0, help="also the mean over this number of folds (COCO 1K: 5)")
    parser.add("--graded", choices=("captions", "classes"), help="also NDCG within and across modalities")
    parser.add("--no_means", action="store_true", help="of --graded: do not subtract the means of the modalities")
    parser.add("--width", type=positive_int, help="keep the first so many numbers of each embedding (--matryoshka)")
    parser.add("--batch_size", type=positive_int, default=64, help="default: %(default)s")
    add_dtype(parser, "rows are embedded in", default="float32")
    add_trust(parser)
    add_device(parser)
    parser.add("--save_embeddings", metavar="FILE", help="write the embeddings to this safetensors file")
    parser.add(
        "--embeddings",
        metavar="FILE",
        help="read the embeddings from this file; refused if made with another model or data",
    )
    add_json(parser, "metrics, intervals and outcomes, which `vsehub compare` reads,")
    parser.add_need("no_means", "--graded", lambda args: args.graded)
    parser.add_need("ground_truth", "--protocol cxc or eccv", lambda args: {"cxc", "eccv"} & set(names_of(args)))
    parser.add_rivals("embeddings", "batch_size")
    return parser


def names_of(args) -> tuple[str, ...]:
    """The protocols."""
    return tuple(dict.fromkeys(name.strip() for name in args.protocol.split(",")))


def main(argv: list[str]) -> int:
    """Evaluate; print a table, or JSON."""
    args = parser().parse_args(argv)
    from ..evaluation.evaluate import EvaluationOptions, evaluation
    from ..evaluation.record import record_json
    from ..evaluation.tables import few_images, further_lines, protocol_table, table

    chosen_device(args.device)
    calm(args.verbose)
    options = EvaluationOptions(
        protocols=names_of(args),
        folds=args.folds,
        graded=args.graded,
        means=not args.no_means,
        ground_truth=args.ground_truth,
        embeddings=args.embeddings,
        save_embeddings=args.save_embeddings,
        width=args.width,
        dtype=args.dtype,
        batch_size=args.batch_size,
        **loading_options(args, args.model),
    )
    data = data_arguments(args, label_column=args.label_column)
    metrics, record = evaluation(args.model, data, args.split, options)
    lines = [table({f"{Path(args.model).name} on {args.split}": metrics})] if "rsum" in metrics else []
    lines += [*further_lines(metrics), protocol_table(record)]
    if record.get("means_subtracted"):
        lines.append("mixed: means of the modalities subtracted (--no_means: not)")
    if told := few_images(record.get("images", 0)):
        remark(args, told)
    tell(args, "\n".join(lines), {**metrics, "evaluation": record}, record_json)
    return 0
