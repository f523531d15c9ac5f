"""`vsehub demo`: D2S-VSE from nothing. Generated scenes, both stages, a Hub folder, a search in a clean process."""

from ..files.numbers import seed
from .flags import Parser, add_json, tell


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        "demo",
        "Train D2S-VSE on generated scenes, write a Hub folder, search it in a process without vsehub.",
        "demo --out runs/demo",
    )
    parser.add("--out", default="runs/demo", help="output folder (default: %(default)s)")
    parser.add("--compare", action="store_true", help="also train a sparse-only baseline, over 3 seeds")
    parser.add("--seed", type=seed, default=0, help="default: %(default)s")
    add_json(parser, "the metrics")
    return parser


def main(argv: list[str]) -> int:
    """Run the demo, or the comparison; print the results."""
    args = parser().parse_args(argv)
    from ..demos.demo import compare, demo

    text, results = compare(args.out, seeds=(0, 1, 2)) if args.compare else demo(args.out, args.seed)
    tell(args, text, results)
    return 0
