"""`vsehub analyse MODEL ... --data SOURCE`: what the embeddings of one or several models are like, side by side."""

from pathlib import Path

from ..files.numbers import positive_int
from ..files.outputs import output_file
from .flags import (
    add_data_flags,
    add_device,
    add_json,
    add_trust,
    chosen_device,
    data_arguments,
    loading_options,
    remark,
    tell,
)
from .parser import Parser, words_first
from .quiet import calm

PICTURES = ("analysis.png", "analysis.svg")


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        "analyse",
        "Effective rank and spectrum of embeddings, alignment, uniformity, modality gap, recall by length of the\n"
        "caption and by what it mentions, and how much of a dense text a short caption finds.",
        "analyse runs/sparse/hub runs/d2s/hub --data org/pairs --split validation --plots pictures/",
    )
    parser.add("--model", nargs="+", action="extend", default=[], metavar="MODEL", help="folders or Hub ids")
    parser.first = "--model"
    add_data_flags(parser, split="validation")
    parser.add(
        "--dense_text",
        help="dense texts: a column, a table, or `union`, as for training (default: the column dense_text, if any)",
    )
    parser.add(
        "--widths",
        type=positive_int,
        nargs="+",
        default=[],
        help="also rSum of the first so many numbers (default: the widths of --matryoshka in training)",
    )
    parser.add("--plots", metavar="FOLDER", help=f"write {' and '.join(PICTURES)} there (needs vsehub[plot])")
    parser.add("--batch_size", type=positive_int, default=64, help="default: %(default)s")
    add_trust(parser)
    add_device(parser)
    add_json(parser, "all figures")
    return parser


def main(argv: list[str]) -> int:
    """Analyse; print a table, or JSON; draw."""
    args = parser().parse_args(words_first(argv, "--model"))
    if not args.model:
        raise ValueError("say which models: vsehub analyse MODEL ... --data SOURCE (folders or Hub ids)")
    loading = {model: loading_options(args, model) for model in args.model}
    pictures = [Path(args.plots, name) for name in PICTURES] if args.plots else []
    for path in pictures:
        output_file(path)
    from ..evaluation.analyse import analysis
    from ..evaluation.tables import analysis_table, few_images
    from ..plots.analysis import draw_analysis
    from ..plots.curves import load_figure

    if pictures:
        load_figure()  # a missing extra is told before hours of embedding
    chosen_device(args.device)
    calm(args.verbose)
    data = data_arguments(args, **({"dense_text": args.dense_text} if args.dense_text else {}))
    results = analysis(
        args.model,
        data,
        args.split,
        need_dense=args.dense_text is not None,
        widths=tuple(args.widths),
        batch_size=args.batch_size,
        loading=loading,
    )
    table = analysis_table(results)
    if told := few_images(next((each["images"] for each in results.values()), 0)):
        remark(args, told)
    try:
        if pictures:
            draw_analysis(results, pictures)
    except Exception:  # as of a full disk
        tell(args, table, results)  # what hours of embedding have found is not lost with the picture
        raise
    tell(args, "\n".join([table, *(f"picture: {path}" for path in pictures)]), results)
    return 0
