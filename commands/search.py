"""`vsehub search INDEX "a red boat"`: what is nearest to a text, a picture, or a picture changed by a text."""

import argparse
import json
from pathlib import Path

from ..files.outputs import output_file
from ..processing.scenes import open_any
from ..search.collection import Collection
from ..search.pages import THUMBNAIL, geojson, html_page
from ..search.retriever import Hit, Retriever


def picture_opener(index):
    """A function that opens the picture of a hit as it was indexed; None for a text."""
    collections = {}

    def picture_of(hit: Hit):
        if hit.modality == "text" or (hit.path is None and hit.collection is None):
            return None
        settings = index.sources.get(hit.collection)
        if settings is None:  # added from Python, by its path
            return open_any(hit.path, name=hit.id, least_side=THUMBNAIL)
        if hit.collection not in collections:
            collections[hit.collection] = Collection(**settings)
        return collections[hit.collection].picture(vars(hit), THUMBNAIL)

    return picture_of


def table(hits: list[Hit], cutoff: float | None) -> str:
    """Hits as lines: place, cosine, id, caption."""
    if not hits and cutoff is None:
        return "the index is empty"
    if not hits:
        return f"nothing comes nearer than the cut-off, {cutoff:.3f} (--no_cutoff shows the nearest)"
    return "\n".join(
        f"{place:3}. {hit.score:6.3f}  {hit.id}" + (f"  {hit.caption}" if hit.caption else "")
        for place, hit in enumerate(hits, 1)
    )


def main(argv: list[str] | None = None) -> int:
    """Load the model of the index, search, print or write the hits."""
    parser = argparse.ArgumentParser("vsehub search", description=__doc__.splitlines()[0])
    parser.add_argument("index", help="folder of `vsehub index`")
    parser.add_argument("words", nargs="?", metavar="TEXT", help="what to look for")
    parser.add_argument("--text", help="the same")
    parser.add_argument("--image", help="a picture to look for; with a text, changed by it")
    parser.add_argument("--weight", type=float, default=0.5, help="of the text beside a picture (default: %(default)s)")
    parser.add_argument("--k", type=int, default=10, help="at most so many hits (default: %(default)s)")
    parser.add_argument("--cutoff", type=float, help="least cosine (default: the calibrated one, for texts)")
    parser.add_argument("--no_cutoff", action="store_true", help="the nearest, however far")
    parser.add_argument("--model", help="where the model lies now, if it moved")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--html", help="write a page with thumbnails here")
    parser.add_argument("--geojson", help="write the outlines of hits in scenes here")
    args = parser.parse_args(argv)
    if args.words is not None and args.text is not None:
        raise ValueError("the text is given twice: once is enough")
    text = args.words if args.text is None else args.text
    for path in filter(None, (args.html, args.geojson)):
        output_file(path)
    image = open_any(args.image) if args.image else None
    retriever = Retriever.open(args.index, args.model)
    calibrated = (retriever.index.cutoff or {}).get("text") if image is None else None
    cutoff = None if args.no_cutoff else calibrated if args.cutoff is None else args.cutoff
    hits = retriever.search(text, image, args.k, args.weight, cutoff)
    if args.html:
        query = " + ".join(part for part in (args.image and Path(args.image).name, text) if part)
        page = html_page(query, hits, picture_opener(retriever.index), image)
        Path(args.html).write_text(page, encoding="utf-8")
    if args.geojson:
        Path(args.geojson).write_text(json.dumps(geojson(hits), indent=1), encoding="utf-8")
    if args.json:
        query = {"text": text, "image": args.image, "cutoff": cutoff}
        print(json.dumps({"query": query, "hits": [vars(hit) for hit in hits]}, indent=1))
    else:
        print(table(hits, cutoff))
    return 0
