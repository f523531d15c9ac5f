"""`vsehub index export INDEX --out FILE`: an index for another engine."""

from .flags import add_images, add_json, tell
from .parser import Parser


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        "index export",
        "Write an index for another engine: parquet (datasets, Qdrant), GeoParquet (QGIS), or a LanceDB table.",
        "index export photos.index --to parquet --out vectors.parquet",
    )
    parser.add_place("index", "folder or address of an index")
    parser.add("--to", choices=("parquet", "geoparquet", "lance"), default="parquet", help="default: %(default)s")
    parser.add(
        "--out",
        required=True,
        help="parquet file, folder of the LanceDB database, or lance://... or qdrant://...",
    )
    parser.add("--table", default="images", help="of the database (default: %(default)s)")
    add_images(parser)
    add_json(parser, "what was written")
    parser.add_need("table", "--to lance", lambda args: args.to == "lance")
    parser.add_need("images", "--to geoparquet", lambda args: args.to == "geoparquet")
    parser.add_need("to", "a file or folder as --out", lambda args: args.to != "parquet" or "://" not in args.out)
    parser.add_need("table", "a folder as --out", lambda args: "://" not in args.out)
    return parser


def main(argv: list[str]) -> int:
    """Write the index, say how much it is."""
    args = parser().parse_args(argv)
    from ..search.export import export_index

    index = export_index(args.index, args.out, args.to, args.table, args.images)
    text = f"{args.out}: {len(index)} rows of {index.dimension} numbers; compare them by cosine"
    tell(args, text, {"out": args.out, "rows": len(index), "dimension": index.dimension})
    return 0
