"""`vsehub explain MODEL IMAGE`: which parts of an overhead image PIR believes, and the texts it ranks first."""

from ..files.numbers import positive_int
from ..files.outputs import output_file
from ..files.text import lines_of, printable
from ..files.whole import whole_path
from .flags import add_bands, add_device, add_json, add_trust, chosen_device, loading_options, tell
from .parser import Parser
from .quiet import calm


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        "explain",
        "Draw which parts of an image a PIR model believes, and rank texts for it.",
        'explain runs/pir/hub airport.jpg --text "planes at a terminal" --text "a river"',
    )
    parser.add_place("model", "folder or Hub id of a PIR model")
    parser.add_place("image", "a picture")
    parser.add("--text", action="append", default=[], help="a text to compare with the image; may be repeated")
    parser.add("--texts", help="a file of texts, one a line")
    parser.add("--k", "--top", type=positive_int, default=5, help="number of texts to show (default: %(default)s)")
    add_bands(parser)
    parser.add("--out", default="explain.png", help="file of the picture to write (default: %(default)s)")
    add_trust(parser)
    add_device(parser, default="cpu")
    add_json(parser, "believed boxes and texts")
    return parser


def main(argv: list[str]) -> int:
    """Write the picture; print the believed boxes and the texts."""
    args = parser().parse_args(argv)
    loading = loading_options(args, args.model)
    output_file(args.out)
    texts = [text for text in args.text if text.strip()] + (lines_of(args.texts) if args.texts else [])
    from ..plots.explanation import explain

    calm(args.verbose)

    made = explain(args.model, args.image, texts, args.bands, args.k, chosen_device(args.device), **loading)
    with whole_path(args.out) as draft:
        made.picture.save(draft)
    lines = [f"belief {belief:.3f} at pixels {box}" for box, belief in made.boxes]
    lines += [f"{score:7.3f}  {printable(text)}" for text, score in made.hits]
    lines.append(f"picture: {args.out}")
    content = {
        "picture": args.out,
        "boxes": [{"box": box, "belief": belief} for box, belief in made.boxes],
        "texts": [{"text": text, "score": score} for text, score in made.hits],
    }
    tell(args, "\n".join(lines), content)
    return 0
