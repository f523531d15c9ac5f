"""`vsehub check-leakage A B`: images that two sources, or two splits, share. Exit status 1 if there are any."""

from dataclasses import asdict

from ..files.text import printable
from .flags import add_json, tell
from .parser import Parser
from .quiet import calm

SHOWN = 20  # pairs


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        "check-leakage",
        "Find images that two sources or splits share, also resized, re-encoded, turned or mirrored.\n"
        "Exit status: 0 no leak, 1 leaks, 2 bad input.",
        "check-leakage org/pairs --split_a train --split_b test",
    )
    parser.add_place("data", "Hub id, table, imagefolder or json, as for training")
    parser.add_place("other", "the other source (default: the same, for two splits of it)", required=False)
    parser.add("--split_a", default="train", help="default: %(default)s")
    parser.add("--split_b", default="test", help="of OTHER (default: %(default)s)")
    parser.add("--config_a", "--data_config", help="of a dataset that has several configurations: which one")
    parser.add("--config_b", help="of OTHER (default: --config_a, if OTHER is not given)")
    parser.add("--image_root", help="folder of the image files that a manifest names")
    parser.add("--image_column", default="image", help="default: %(default)s")
    add_json(parser, "all pairs")
    return parser


def main(argv: list[str]) -> int:
    """Compare, print, and tell by the exit status."""
    args = parser().parse_args(argv)
    from ..data.leakage import find_leaks, prints_of_split

    calm(args.verbose)

    config_b = args.config_a if args.config_b is None and args.other is None else args.config_b
    first, second = (args.data, args.split_a, args.config_a), (args.other or args.data, args.split_b, config_b)
    sides = [
        prints_of_split(source, split, args.image_root, args.image_column, args.other is not None, config)
        for source, split, config in (first, second)
    ]
    leaks = find_leaks(sides[0], sides[1])
    lines = [line for name, side in zip((args.split_a, args.split_b), sides) for line in left_out(name, side)]
    content = {"leaks": [asdict(leak) for leak in leaks], "unreadable": [side.unreadable for side in sides]}
    tell(args, "\n".join([*lines, table(leaks, len(sides[1].ids))]), content)
    return 1 if leaks else 0


def left_out(name: str, side) -> list[str]:
    """What could not be compared, or not fully: one line for each kind."""
    lines = []
    if side.unreadable:
        lines.append(
            f"{name}: {len(side.unreadable)} images do not decode: {printable(', '.join(side.unreadable[:5]))} ..."
        )
    if side.flat:
        lines.append(f"{name}: {side.flat} images are flat and were compared by their bytes and pixels alone")
    return lines


def table(leaks: list, images: int) -> str:
    """How many pairs there are, and the first of them."""
    exact = sum(leak.kind == "exact" for leak in leaks)
    shared = sum({leak.b_row: 1 + len(leak.b_same) for leak in leaks}.values())
    lines = [f"{len(leaks)} pairs ({exact} exact, {len(leaks) - exact} near); {shared} of {images} images of B"]
    lines += [
        f"  {leak.kind:5} {printable(leak.a_id)} ~ {printable(leak.b_id)}  {leak.transform}, "
        f"correlation {leak.correlation:.3f}"
        for leak in leaks[:SHOWN]
    ]
    return "\n".join(lines)
