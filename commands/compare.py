"""`vsehub compare A.json B.json`: is B better than A? Compare two evaluations of the same queries, with p-values."""

from ..files.numbers import inner_fraction, seed, whole
from ..files.text import printable
from .flags import add_json, tell
from .parser import Parser

HINT = "Lower mean ranks are better. With more metrics, more p-values fall below 0.05 by chance."


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        "compare",
        "Compare two evaluations of the same queries: differences, intervals and p-values of every metric.",
        "compare theirs.json mine.json",
    )
    parser.add_place("a", "JSON of `vsehub evaluate`")
    parser.add_place("b", "another, of the same data, split and protocols")
    parser.add(
        "--samples", type=whole(1, 1_000_000), default=1000, help="bootstrap samples of images (default: %(default)s)"
    )
    parser.add("--permutations", type=whole(1, 10_000_000), default=10_000, help="default: %(default)s")
    parser.add("--level", type=inner_fraction, default=0.95, help="of the intervals (default: %(default)s)")
    parser.add("--seed", type=seed, default=0, help="default: %(default)s")
    add_json(parser, "the numbers")
    return parser


def main(argv: list[str]) -> int:
    """Compare; print a table, or JSON."""
    args = parser().parse_args(argv)
    from ..evaluation.compare import compare_files, comparison_table

    comparisons = compare_files(args.a, args.b, args.samples, args.permutations, args.level, args.seed)
    lines = []
    for name, rows in comparisons.items():
        lines.append(f"{printable(name)}: A is {args.a}, B is {args.b}; by images, {args.permutations} permutations")
        lines.append(comparison_table(rows, args.level) + "\n")
    content = {name: {key: row._asdict() for key, row in rows.items()} for name, rows in comparisons.items()}
    tell(args, "\n".join([*lines, HINT]), content)
    return 0
