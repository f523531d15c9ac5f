"""`vsehub demo-pir`: PIR from nothing. Generated overhead scenes, the prior, retrieval under it, belief maps."""

from ..files.numbers import seed
from .flags import add_json, tell
from .parser import Parser
from .quiet import hush


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        "demo-pir",
        "Train PIR on generated overhead scenes, and draw which parts of an image it believes.",
        "demo-pir --out runs/demo-pir",
    )
    parser.add("--out", default="runs/demo-pir", help="output folder (default: %(default)s)")
    parser.add("--seed", type=seed, default=0, help="default: %(default)s")
    add_json(parser, "the metrics")
    return parser


def main(argv: list[str]) -> int:
    """Run the demo; print the results."""
    args = parser().parse_args(argv)
    if not args.verbose:
        hush()
    from ..demos.console import Console
    from ..demos.demo_pir import demo

    text, results = demo(args.out, args.seed, console=Console(args.verbose, args.quiet))
    tell(args, text, results)
    return 0
