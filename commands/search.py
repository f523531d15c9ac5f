"""`vsehub search INDEX "a red boat"`: the pictures nearest to a text, a picture, or a picture changed by a text."""

from pathlib import Path

from ..files.numbers import finite, fraction, positive_int
from ..files.outputs import output_file
from ..files.text import printable
from ..files.whole import write_json, write_text
from .flags import Parser, add_device, add_images, add_json, add_trust, chosen_device, loading_options, tell


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        "search",
        "Find the pictures of an index that are nearest to a text, a picture, or a picture changed by a text.",
        'search photos.index "a red boat at a pier" --k 5 --html page.html',
    )
    parser.add_place("index", "folder of `vsehub index`")
    parser.add_place("text", "what to look for", required=False)
    parser.add("--image", help="a picture to look for; with a text, changed by it")
    parser.add(
        "--weight",
        type=fraction,
        default=0.5,
        help="weight of a text that is given with a picture (default: %(default)s)",
    )
    parser.add("--k", "--top", type=positive_int, default=10, help="maximum number of hits (default: %(default)s)")
    parser.add("--cutoff", type=finite, help="minimum cosine of a hit (default: the calibrated one, for texts)")
    parser.add("--no_cutoff", action="store_true", help="no minimum cosine: show the nearest pictures")
    parser.add("--model", help="folder or Hub id of the model of the index, if it was moved")
    parser.add("--html", help="file for a page with thumbnails")
    parser.add("--geojson", help="file for the outlines of hits in scenes")
    add_images(parser)
    add_trust(parser)
    add_device(parser, default="cpu")
    add_json(parser, "query and hits")
    return parser


def table(hits: list, cutoff: float | None) -> str:
    """Hits as lines: place, cosine, id, caption."""
    if not hits and cutoff is None:
        return "the index is empty"
    if not hits:
        return f"nothing comes nearer than the cut-off, {cutoff:.3f} (--no_cutoff shows the nearest)"
    return "\n".join(
        f"{place:3}. {hit.score:6.3f}  {printable(hit.id)}" + (f"  {printable(hit.caption)}" if hit.caption else "")
        for place, hit in enumerate(hits, 1)
    )


def main(argv: list[str]) -> int:
    """Load the model of the index, search, print or write the hits."""
    args = parser().parse_args(with_json_alone(argv))
    loading = loading_options(args, args.model)
    for path in filter(None, (args.html, args.geojson)):
        output_file(path)
    from ..processing.scenes import open_any
    from ..search.pages import geojson, html_page, picture_opener
    from ..search.retriever import Retriever

    image = open_any(args.image) if args.image else None
    retriever = Retriever.open(args.index, args.model, **loading)
    retriever.encoder.to(chosen_device(args.device))
    cutoff = None if args.no_cutoff else retriever.cutoff_for(image, "auto" if args.cutoff is None else args.cutoff)
    hits = retriever.search(args.text, image, args.k, args.weight, cutoff)
    if args.html:
        query = " + ".join(part for part in (args.image and Path(args.image).name, args.text) if part)
        page = html_page(query, hits, picture_opener(retriever.index, args.images), image)
        write_text(args.html, page)
    if args.geojson:
        write_json(args.geojson, geojson(hits, {*retriever.index.named, *args.images}), indent=1)
    query = {"text": args.text, "image": args.image, "cutoff": cutoff}
    tell(args, table(hits, cutoff), {"query": query, "hits": [vars(hit) for hit in hits]})
    return 0


def with_json_alone(words: list[str]) -> list[str]:
    """The words, with `--json` spelt so that it takes the word behind it for a file only if that is called so.

    Of `--json "a red boat"` the second word is the query.
    """
    words = list(words)
    for place, word in enumerate(words):
        if word == "--json" and not "".join(words[place + 1 : place + 2]).endswith(".json"):
            words[place] = "--json=-"
    return words
