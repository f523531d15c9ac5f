"""`vsehub index remove INDEX SOURCE`: forget a folder, picture or dataset that an index holds."""

from .flags import add_json, add_wait, tell
from .parser import Parser


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        "index remove",
        "Take a source and all that came from it out of an index, as where a folder was renamed; its files stay.",
        "index remove photos.index old-photos/",
    )
    parser.add_place("index", "folder or address of an index")
    parser.add_place("source", "what was indexed: folder, picture, dataset, or DATASET:SPLIT where it has several")
    add_wait(parser)
    add_json(parser, "the source and the number of rows")
    return parser


def main(argv: list[str]) -> int:
    """Remove the source, say how much it was."""
    args = parser().parse_args(argv)
    from ..search.refresh import remove_source
    from ..search.stores.places import open_index

    index = open_index(args.index, args.wait)
    name, gone = remove_source(index, args.source)
    tell(args, f"{args.index}: {name} removed, {gone} rows; {len(index)} are left", {"source": name, "rows": gone})
    return 0
