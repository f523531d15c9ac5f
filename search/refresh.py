"""`vsehub index SOURCE --model MODEL --out INDEX`: embed pictures into an index that is searched in milliseconds.

SOURCE is a folder of pictures, a scene (GeoTIFF), a parquet file or any dataset that `vsehub train` reads. A killed job
loses at most the pictures since the last save; `--update` goes on, and later brings the index up to date: what is
unchanged is not embedded again. `vsehub index export|calibrate INDEX ...` say more with --help.
"""

import argparse
import contextlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from tqdm.auto import tqdm

from . import export as index_commands
from .approximate import KINDS, require_faiss
from .collection import Collection
from .embedding_stream import embed_stream
from .index_store import IndexFolderError, Store
from .retriever import Retriever
from .vector_index import VectorIndex

SAVED_AT_ONCE = 2048  # files or rows between two saves
REPORT = "bad_images.jsonl"


@dataclass
class Done:
    """What a run did, in rows of the index (tiles count each) and files or rows that could not be used."""

    embedded: int = 0
    unchanged: int = 0
    removed: int = 0
    bad: int = 0


def refresh(retriever: Retriever, collection: Collection, accelerator, batch_size=32, workers=None) -> Done:
    """Bring the collection's part of the index up to date; every process embeds its share, process 0 writes."""
    index, plan, fresh = retriever.index, [None], not len(retriever.index)
    if accelerator.is_main_process:
        if index.sources.get(collection.name) != collection.settings:
            index.delete(_rows_of(index, collection))  # made in another way; killed from here on, they are just missing
            index.note(sources={**index.sources, collection.name: collection.settings})
        plan = [_plan(index, collection)]
    chunks, stale, unchanged = broadcast_object_list(plan)[0]
    done, problems = Done(unchanged=unchanged), []
    for chunk in tqdm(chunks, desc="indexing", disable=not accelerator.is_main_process or not chunks):
        found = _embedded(retriever, collection, chunk, accelerator, batch_size, workers)
        if accelerator.is_main_process:
            vectors, items, bad = found
            problems += bad
            stale -= {item["id"] for item in items}
            index.add(vectors, items, merge=not fresh)  # into a large index: few rows are copied, none is moved
            done.embedded += len(items)
    if accelerator.is_main_process:
        done.removed, done.bad = index.delete(stale), len(problems)
        if fresh and chunks:
            index.compact()
        report(index.folder, collection.name, problems)
    accelerator.wait_for_everyone()
    return done


def _rows_of(index: VectorIndex, collection: Collection, *names):
    """Fields of the collection's rows; ids alone without names."""
    columns = zip(*(index.column(name) for name in names or ("id",)))
    owned = zip(index.alive, index.column("collection"), columns)
    found = [values for alive, owner, values in owned if alive and owner == collection.name]
    return found if names else [name for (name,) in found]


def _plan(index: VectorIndex, collection: Collection):
    """(chunks of units to embed, ids that must go unless they are embedded again, rows that stay as they are)."""
    known: dict[str, list] = {}
    for item in _rows_of(index, collection, "id", "path", "size", "stamp"):
        known.setdefault(item[1] if collection.files else item[0], []).append((item[0], *item[2:]))
    todo, unchanged = [], 0
    for unit in collection.units():
        rows = known.get(unit.key)
        if rows and all(row[1:] == (unit.size, unit.stamp) for row in rows):
            unchanged += len(known.pop(unit.key))
        else:
            todo.append(unit)
    chunks, current = [], []
    for unit in todo:  # a scene is saved as a whole, or it would pass for unchanged when a part of it is there
        current.append(unit)
        if len(current) == SAVED_AT_ONCE or collection.tiled(unit.path):
            chunks, current = [*chunks, current], []
    return [*chunks, current] if current else chunks, {row[0] for rows in known.values() for row in rows}, unchanged


def _embedded(retriever, collection, chunk, accelerator, batch_size, workers):
    """Vectors, items and problems of some units, from all processes, in the order of the units."""
    share, of = accelerator.process_index, accelerator.num_processes
    numbered = enumerate(entry for unit in chunk for entry in collection.entries(unit))
    mine = (({**item, "number": n}, source) for n, (item, source) in numbered if n % of == share)
    fast, bands = bool(collection.settings.get("fast")), collection.settings.get("bands")
    found = list(embed_stream(retriever.model, retriever.processor, mine, batch_size, workers, fast, bands))
    found = gather_object(found)
    problems = [problem for *_, several in found for problem in several]
    torn = {problem["path"] for problem in problems if collection.tiled(problem["path"])}
    rows = [(item, vector) for items, vectors, _ in found for item, vector in zip(items, vectors)]
    rows = sorted((row for row in rows if row[0]["path"] not in torn), key=lambda row: row[0]["number"])
    items = [{name: value for name, value in item.items() if name != "number"} for item, _ in rows]
    return np.stack([vector for _, vector in rows]) if rows else np.zeros((0, 0), np.float32), items, problems


def report(folder: Path, collection: str, problems: list[dict]):
    """List a collection's bad pictures in `bad_images.jsonl`, in place of what an earlier run found there."""
    path, lines = folder / REPORT, []
    if path.exists():
        with contextlib.suppress(ValueError, KeyError, TypeError):  # damaged: what is still bad is found again
            found = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
            lines = [line for line in found if line["collection"] != collection]
    lines += [{**problem, "collection": collection} for problem in problems]
    draft = folder / f"{REPORT}.tmp"
    draft.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    os.replace(draft, path)


def opened(args, accelerator) -> Retriever:
    """The index to write to, made by process 0 if there is none, and its model."""
    there = Store(args.out).exists()
    accelerator.wait_for_everyone()  # before anyone makes it
    if there and not args.update:
        raise IndexFolderError(f"{args.out} holds an index: --update brings it up to date, or name another --out")
    if there:
        retriever = Retriever.open(args.out, args.model)
        if args.kind is not None and args.kind != retriever.index.kind and accelerator.is_main_process:
            retriever.index.note(kind=args.kind)
    else:
        if args.model is None:
            raise ValueError("say which model embeds the pictures: --model FOLDER or Hub id")
        retriever = Retriever.from_pretrained(args.model)
        retriever.index.kind = args.kind or "flat"
        if accelerator.is_main_process:
            retriever.save(args.out)
    retriever.model.to(accelerator.device)
    return retriever


def parser() -> argparse.ArgumentParser:
    """The flags of `vsehub index`."""
    parser = argparse.ArgumentParser("vsehub index", description=__doc__.splitlines()[0])
    parser.add_argument("source", help="folder of pictures, picture, scene, parquet, json or Hub id")
    parser.add_argument("--model", help="folder or Hub id; an index that is updated knows its own")
    parser.add_argument("--out", required=True, help="folder of the index")
    parser.add_argument("--update", action="store_true", help="bring an index up to date, or add a source to it")
    parser.add_argument("--kind", choices=("auto", *KINDS), help="flat is exact; auto is HNSW for large ones")
    parser.add_argument("--tile", type=int, help="cut TIFF scenes into squares of so many pixels (0: do not)")
    parser.add_argument("--overlap", type=int, default=64, help="pixels that tiles share (default: %(default)s)")
    parser.add_argument("--bands", type=int, nargs=3, help="of multi-band TIFF, counted from 1, as red, green, blue")
    parser.add_argument("--fast", action="store_true", help="scaled JPEG decoding: faster, nearly the same vectors")
    parser.add_argument("--split", help="index this split of a dataset (default of datasets: train)")
    parser.add_argument("--image_root")
    parser.add_argument("--image_column")
    parser.add_argument("--captions_column", help="shown with hits, not searched")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--workers", type=int, help="decoding threads (default: one per core, at most 8)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Embed what is new, save, say what happened."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in index_commands.COMMANDS:
        return index_commands.COMMANDS[argv[0]](argv[1:])
    args = parser().parse_args(argv)
    names = ("image_root", "image_column", "captions_column", "bands", "fast")
    settings = {name: getattr(args, name) for name in names}
    collection = Collection(args.source, args.split, args.tile, args.overlap, **settings)
    if args.kind in ("hnsw", "ivf"):
        require_faiss()
    if args.batch_size < 1 or (args.workers or 1) < 1:
        raise ValueError(f"--batch_size and --workers must be at least 1, not {args.batch_size} and {args.workers}")
    collection.check(may_be_empty=args.update)
    accelerator = Accelerator()
    retriever = opened(args, accelerator)
    with retriever.index.lock() if accelerator.is_main_process else contextlib.nullcontext():
        done = refresh(retriever, collection, accelerator, args.batch_size, args.workers)
    if accelerator.is_main_process:
        print(
            f"{args.out}: {len(retriever.index)} rows; {done.embedded} embedded, {done.unchanged} unchanged, "
            f"{done.removed} removed" + (f"; {done.bad} bad, listed in {REPORT}" if done.bad else "")
        )
    return 0


if __name__ == "__main__":  # accelerate launch -m vsehub.search.refresh ...
    sys.exit(main())
