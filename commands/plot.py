"""`vsehub plot RUN ...`: losses, metrics and learning rates of one or several training runs, as a picture."""

import math

from ..files.outputs import output_file
from .flags import add_json, tell
from .parser import Parser, words_first

FORMATS = (".png", ".svg", ".pdf")


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        "plot",
        "Draw losses, metrics and learning rates of training runs (needs vsehub[plot]).",
        "plot runs/d2s runs/baseline --out curves.png --metrics rsum i2t_recall@1",
    )
    parser.add(
        "--runs",
        nargs="+",
        action="extend",
        default=[],
        metavar="RUN",
        help="folders of runs, of stages or of checkpoints",
    )
    parser.first = "--runs"
    parser.add("--out", default="curves.png", help=".png, .svg or .pdf (default: %(default)s)")
    parser.add("--metrics", nargs="+", default=[], help="of the evaluations, as rsum; default: rSum, or what there is")
    add_json(parser, "the points of all curves")
    return parser


def main(argv: list[str]) -> int:
    """Read the runs, draw, say where the picture is."""
    args = parser().parse_args(words_first(argv, "--runs"))
    if not args.runs:
        raise ValueError("say which runs: vsehub plot RUN ... (folders that `vsehub train` wrote)")
    if not args.out.lower().endswith(FORMATS):
        raise ValueError(f"--out {args.out}: end its name in {', '.join(FORMATS)}")
    output_file(args.out)
    from ..plots.curves import draw_curves, read_curves

    curves = read_curves(args.runs)
    draw_curves(curves, args.out, args.metrics)
    lines = [f"{each.name}: {len(each.series)} curves" for each in curves]
    tell(args, "\n".join([*lines, f"picture: {args.out}"]), {each.name: _plain(each.series) for each in curves})
    return 0


def _plain(series: dict) -> dict:
    """Points that JSON has: null for a value that is no finite number."""
    return {
        name: [[step, value if math.isfinite(value) else None] for step, value in points]
        for name, points in series.items()
    }
