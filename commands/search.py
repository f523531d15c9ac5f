"""`vsehub search INDEX "a red boat"`: the pictures nearest to a text, a picture, or a picture changed by a text."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..files.numbers import finite, fraction, positive_int
from ..files.outputs import output_file
from ..files.text import printable
from ..files.whole import write_json, write_text
from .flags import (
    add_device,
    add_images,
    add_json,
    add_trust,
    chosen_device,
    loading_options,
    remark,
    tell,
    tell_images,
)
from .parser import Parser
from .quiet import calm

if TYPE_CHECKING:
    from ..search.cutoff import Cutoff


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        "search",
        "Find the pictures of an index that are nearest to a text, a picture, or a picture changed by a text.",
        'search photos.index "a red boat at a pier" --k 5 --html page.html',
    )
    parser.add_place("index", "folder or address of an index")
    parser.add_place("text", "what to look for; several words need no quotes", required=False, joins=True)
    parser.add("--image", help="a picture to look for; with a text, changed by it")
    parser.add(
        "--weight",
        type=fraction,
        default=0.5,
        help="weight of a text that is given with a picture (default: %(default)s)",
    )
    add_parts(parser)
    parser.add("--k", "--top", type=positive_int, default=10, help="maximum number of hits (default: %(default)s)")
    parser.add(
        "--cutoff", type=finite, help="minimum cosine of a hit (default, for texts: the index's, else the model's)"
    )
    parser.add(
        "--no_means",
        action="store_true",
        help="of an index of pictures and texts: do not subtract the means of the modalities",
    )
    parser.add("--no_cutoff", action="store_true", help="no minimum cosine: show the nearest pictures")
    parser.add("--model", help="folder or Hub id of the model of the index, if it was moved")
    parser.add("--html", help="file for a page with thumbnails")
    parser.add("--geojson", help="file for the outlines of hits in scenes")
    add_images(parser)
    add_trust(parser)
    add_device(parser, default="cpu")
    add_json(parser, "query and hits")
    parser.add_need("weight", "a picture (--image) and a text", lambda args: args.image and args.text)
    parser.add_need("images", "--html or --geojson", lambda args: args.html or args.geojson)
    parser.add_rivals("cutoff", "no_cutoff")
    return parser


class Once(argparse.Action):
    """Keep a condition, and refuse a second one: it would take the place of the first, and seem to be added to it."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Keep a value."""
        if getattr(namespace, self.dest) is not None:
            join = ", with `and` between the conditions" if self.dest == "where" else ""
            parser.error(f"--{self.dest} is given twice: give it once{join}")
        setattr(namespace, self.dest, values)


def add_parts(parser: Parser):
    """Add the flags of queries with several parts, and of conditions."""
    more = {"action": "append", "default": []}
    parser.add("--plus", **more, metavar="TEXT", help="a text to add to the query; with a weight: sunset:0.5")
    parser.add("--minus", **more, metavar="TEXT", help="a text to take from the query")
    parser.add("--plus_image", **more, metavar="FILE", help="a picture to add; with a weight: q.jpg:0.5")
    parser.add("--minus_image", **more, metavar="FILE", help="a picture to take from the query")
    parser.add("--like", action=Once, metavar="ID", help="an item of the index as the query, which is itself no hit")
    about = "on fields of the hits: \"width >= 1000 and collection != 'old'\""
    parser.add("--where", action=Once, metavar="CONDITION", help=about)
    parser.add("--path", action=Once, metavar="PATTERN", help='of the files of the hits: "2024/*"')


def parts_of(args) -> dict:
    """`plus` and `minus` of `Retriever.search`, of the command line."""
    from ..processing.scenes import open_any
    from ..search.query import with_weight

    def pictures(words):
        return [(open_any(name), weight) for name, weight in map(with_weight, words)]

    return {
        "plus": [*map(with_weight, args.plus), *pictures(args.plus_image)],
        "minus": [*map(with_weight, args.minus), *pictures(args.minus_image)],
    }


def table(hits: list, cutoff: "Cutoff", searched: bool = True, conditions: bool = False) -> str:
    """Hits as lines: place, cosine, id, caption; without any, why.

    Args:
        hits, cutoff: of the search.
        searched: whether any item met the conditions.
        conditions: whether there were any.
    """
    if not hits and not searched:
        return "no item of the index meets the conditions" if conditions else "the index is empty"
    if not hits:
        return f"nothing comes nearer than the {cutoff}; --no_cutoff shows the nearest"
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
    from ..search.filters import chosen_rows
    from ..search.stores.places import open_index

    index = open_index(args.index)
    now = index.snapshot  # what is wrong is told before torch and the model are loaded
    chosen_rows(now, where=args.where, path=args.path)
    if args.like is not None:
        now.row_of(args.like)
    from ..processing.scenes import open_any
    from ..search.pages import about_search, geojson, html_page, links_from, picture_opener, place_finder
    from ..search.retriever import Retriever

    calm(args.verbose)
    image = open_any(args.image) if args.image else None
    asked = parts_of(args) | {"like": args.like, "where": args.where, "path": args.path}
    retriever = Retriever.open(index, args.model, **loading)
    retriever.encoder.to(chosen_device(args.device))
    given = None if args.no_cutoff else "auto" if args.cutoff is None else args.cutoff
    asked |= {"k": args.k, "weight": args.weight, "cutoff": given, "means": not args.no_means}
    hits, cutoff, searched = retriever.answer(args.text, image, **asked)
    lines = table(hits, cutoff, searched, bool(args.where or args.path or args.like))
    named, place_of = {*retriever.index.named, *args.images}, place_finder(retriever.index, args.images)
    tell_images(args, retriever.index)
    if args.html:
        shown, about = picture_opener(retriever.index, args.images), about_search(retriever.index, cutoff)
        link_of = links_from(args.html, named, place_of)
        page = html_page(title_of(args), hits, shown, image, about, link_of, lines)
        write_text(args.html, page)
    if args.geojson:
        write_json(args.geojson, geojson(hits, named, place_of), indent=1)
    if not hits and args.json:
        remark(args, lines)
    query = {"text": args.text, "image": args.image, "cutoff": cutoff.cosine}
    query |= {} if cutoff.cosine is None else {"cutoff_from": cutoff.origin}
    more = ("plus", "minus", "plus_image", "minus_image", "like", "where", "path")
    query |= {name: getattr(args, name) for name in more if getattr(args, name)}
    tell(args, lines, {"query": query, "hits": [vars(hit) for hit in hits]})
    return 0


def title_of(args) -> str:
    """The query as one line of text."""

    def name_of(path: str) -> str:
        return printable(Path(path).name)  # it may be no UTF-8, and a page is

    parts = [("+", args.image and name_of(args.image)), ("+", args.text), ("+", args.like)]
    parts += [("+", text) for text in args.plus] + [("+", name_of(path)) for path in args.plus_image]
    parts += [("-", text) for text in args.minus] + [("-", name_of(path)) for path in args.minus_image]
    return " ".join(f"{sign} {part}" for sign, part in parts if part).removeprefix("+ ")


def with_json_alone(words: list[str]) -> list[str]:
    """The words, with `--json` spelt so that it takes the word behind it for a file only if that is called so.

    Of `--json "a red boat"` the second word is the query.
    """
    words = list(words)
    for place, word in enumerate(words):
        if word == "--json" and not "".join(words[place + 1 : place + 2]).endswith(".json"):
            words[place] = "--json=-"
    return words
