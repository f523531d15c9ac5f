"""`vsehub demo`: D2S-VSE from nothing. Generated scenes, both stages, a Hub folder, a search in a clean process."""

from ..files.numbers import seed, whole
from .flags import add_json, tell
from .parser import Parser
from .quiet import hush


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        "demo",
        "Train D2S-VSE on generated scenes, write a Hub folder, search it in a process without vsehub.",
        "demo --out runs/demo",
    )
    parser.add("--out", default="runs/demo", help="output folder (default: %(default)s)")
    parser.add("--compare", action="store_true", help="train beside a sparse-only baseline, in a harder world")
    parser.add("--seeds", type=whole(2), default=5, help="of --compare: how many (default: %(default)s)")
    parser.add("--seed", type=seed, default=0, help="default: %(default)s")
    add_json(parser, "the metrics")
    return parser


def main(argv: list[str]) -> int:
    """Run the demo, or the comparison; print the results."""
    args = parser().parse_args(argv)
    if not args.verbose:
        hush()
    from ..demos.console import Console
    from ..demos.demo import compare, demo

    console = Console(args.verbose, args.quiet)
    if args.compare:
        text, results = compare(args.out, tuple(range(args.seeds)), console=console)
    else:
        text, results = demo(args.out, args.seed, console=console)
    tell(args, text, results)
    return 0
