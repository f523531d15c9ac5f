"""`vsehub index DATA --model MODEL --out INDEX`: embed pictures into an index, or bring one up to date.

Its sub-verbs are `vsehub index export INDEX`, `calibrate` and `remove`. Several processes share the work:
`accelerate launch -m vsehub.commands.index DATA --model MODEL --out INDEX`.
"""

import argparse
import importlib
import os
import sys
from typing import TYPE_CHECKING

from ..files.bad_samples import BAD_SAMPLES
from ..files.numbers import positive_int, whole, workers
from .flags import (
    add_bands,
    add_data_config,
    add_device,
    add_dtype,
    add_json,
    add_trust,
    add_wait,
    chosen_device,
    loading_options,
    remark,
    tell,
)
from .parser import Parser
from .quiet import calm

if TYPE_CHECKING:
    from ..search.collection import Collection

SETTINGS = "tile overlap data_config image_root image_column captions_column bands fast dtype".split()  # of a source
COLUMNS = ("image_root", "image_column", "captions_column")  # of a dataset
SUB_VERBS = {"export": "index_export", "calibrate": "index_calibrate", "remove": "index_remove"}
KINDS = ("auto", "flat", "hnsw")
VECTORS = ("float32", "float16", "int8")


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        "index",
        "Embed pictures into an index that is searched in milliseconds. A killed job loses at most the pictures since "
        "the last\nsave, and the same command goes on. See also: vsehub index export, calibrate, remove.",
        "index photos/ --model org/model --out photos.index",
    )
    parser.add_place("data", "folder of pictures, picture, scene (GeoTIFF), table (parquet, CSV, JSON lines) or Hub id")
    parser.add("--model", help="folder or Hub id; not needed with --update")
    parser.add(
        "--out",
        required=True,
        help="folder of the index, lance://FOLDER/NAME, or qdrant://HOST:6333/NAME",
    )
    parser.add("--update", action="store_true", help="bring an index up to date, or add a source to it")
    parser.add(
        "--width",
        type=positive_int,
        help="keep the first so many numbers of each embedding, best of a model trained with --matryoshka",
    )
    parser.add(
        "--vectors",
        choices=VECTORS,
        help="how they are stored (default: float32); float16 takes half the bytes, int8 a quarter",
    )
    parser.add("--kind", choices=KINDS, help="flat is exact, hnsw approximate; auto is hnsw from 200,000 rows")
    parser.add(
        "--tile",
        type=whole(0, 65_536),
        help="cut scenes (TIFF, JPEG 2000) into squares of this many pixels; 0: do not cut",
    )
    parser.add(
        "--overlap",
        type=whole(0, 65_536),
        help="pixels that neighbouring tiles share (default: 64)",
    )
    add_bands(parser)
    parser.add(
        "--fast", action="store_true", default=None, help="scaled JPEG decoding: faster, nearly the same vectors"
    )
    add_dtype(parser, "pictures are embedded in")
    parser.add("--no_fast", action="store_true", help="with --update: exact pixels again")
    parser.add("--split", help="index this split of a dataset (default of datasets: train)")
    add_data_config(parser)
    parser.add("--image_root", help="folder of the image files that a manifest names")
    parser.add("--image_column", help="default: image")
    parser.add("--captions_column", help="shown with hits, not searched")
    parser.add("--batch_size", type=positive_int, default=32, help="default: %(default)s")
    parser.add("--workers", type=workers, help="decoding threads (default: one per core, at most 8)")
    add_wait(parser)
    add_trust(parser)
    add_device(parser)
    add_json(parser, "what was done")
    parser.add_need("no_fast", "--update", lambda args: args.update)
    parser.add_rivals("fast", "no_fast")
    return parser


def main(argv: list[str]) -> int:
    """Embed what is new, save, and print what was done; or run a sub-verb."""
    if argv and argv[0] in SUB_VERBS:
        return importlib.import_module(f".{SUB_VERBS[argv[0]]}", __package__).main(argv[1:])
    args = parser().parse_args(argv)
    args.fast = False if args.no_fast else args.fast
    loading = loading_options(args, args.model)
    from ..processing.half_precision import resolved_dtype
    from ..search.filters import of_dataset
    from ..search.refresh import index_collection
    from ..search.stores.address import is_address
    from ..search.stores.places import holds_index, open_index, reports_at

    device = chosen_device(args.device)
    calm(args.verbose)
    args.dtype = args.dtype and resolved_dtype(args.dtype, device)
    known = open_index(args.out).sources if args.update and holds_index(args.out) else {}
    collection = collection_of(args, known)
    check_meaning(args, collection.files)
    check_tiles(args, collection)
    done = index_collection(
        collection,
        args.out,
        model=args.model,
        update=args.update,
        kind=args.kind,
        batch_size=args.batch_size,
        workers=args.workers,
        width=args.width,
        wait=args.wait,
        vectors=args.vectors,
        as_kept=(lambda sources: collection_of(args, sources)) if args.update else None,
        **loading,
    )
    if done is not None:  # on the first process
        listed = reports_at(args.out) / BAD_SAMPLES if is_address(args.out) else BAD_SAMPLES
        text = (
            f"{args.out}: {done.rows} rows; {done.embedded} embedded, {done.unchanged} unchanged, "
            f"{done.removed} removed"
            + (f"; {done.bad} bad, listed in {listed}" if done.bad else "")
            + (f"; {done.blank} blank tiles left out" if done.blank else "")
            + (f"; no pictures: {done.others}" if done.others else "")
        )
        if hidden := collection.hidden:
            ways = ", ".join(map(of_dataset, hidden))
            remark(
                args, f"fields of the index are called {', '.join(hidden)}, too: for the data's, --where takes {ways}"
            )
        tell(args, text, {"index": args.out, **vars(done)})
    return 0


def check_meaning(args: argparse.Namespace, files: bool):
    """Refuse flags that would change nothing.

    Args:
        args: of the command line.
        files: whether the source is read as files, and not as rows of a dataset.

    Raises:
        ValueError: columns of files, or tiles of rows.
    """
    columns = [name for name in COLUMNS if getattr(args, name) is not None]
    if files and columns:
        raise ValueError(
            f"--{columns[0]} goes with a dataset, and {args.data} is read as files: leave it out, or add --split train"
        )
    if not files and args.tile:
        raise ValueError(f"--tile {args.tile}: rows of a dataset are not cut into tiles; leave it out, or name files")


def check_tiles(args: argparse.Namespace, collection: "Collection"):
    """Refuse what is said of tiles where nothing is cut; a folder may get its scenes later, so that is only told.

    Raises:
        ValueError: an overlap without tiles, tiles of one picture that is no scene.
    """
    if args.overlap is not None and not collection.settings["tile"]:
        raise ValueError(f"--overlap {args.overlap} changes nothing without --tile: add that, or leave --overlap out")
    if not args.tile or any(map(collection.tiled, collection.folder.pictures)):
        return
    told = f"--tile {args.tile}: {args.data} has no scene (TIFF, JPEG 2000), and other pictures are not cut"
    if not os.path.isdir(collection.name):
        raise ValueError(f"{told}; leave it out, or convert the picture to TIFF")
    remark(args, told)


def collection_of(args: argparse.Namespace, known: dict[str, dict]) -> "Collection":
    """The source that the flags name, read as they say, and where they say nothing, as an index read it before.

    Args:
        args: of the command line.
        known: settings of the sources of the index.
    """
    from ..search.collection import Collection

    collection = Collection(args.data, args.split, known=known, **settings_of(args))
    if collection.name not in known:
        return collection
    return Collection(args.data, args.split, known=known, **settings_of_update(args, known[collection.name]))


def settings_of(args: argparse.Namespace) -> dict:
    """How a source is read, as the flags say."""
    return {name: getattr(args, name) for name in SETTINGS} | {"fast": bool(args.fast)}


def settings_of_update(args: argparse.Namespace, kept: dict) -> dict:
    """How a source is read: as the flags say, and where they say nothing, as it was read before."""
    given = settings_of(args)
    before = {name: value for name, value in kept.items() if name in SETTINGS}
    if "tile" in before:
        before["tile"] = before["tile"] or 0  # without: a source that is one scene would be cut
    said = {name: value for name in SETTINGS if (value := getattr(args, name)) is not None}
    return given | before | said


if __name__ == "__main__":  # accelerate launch -m vsehub.commands.index ...
    from ..__main__ import main as vsehub

    sys.exit(vsehub(["index", *sys.argv[1:]]))
