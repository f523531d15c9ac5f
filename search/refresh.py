"""Build an index of a collection, and update it later; unchanged pictures are not embedded again.

A killed job loses at most the pictures since the last save. Several processes (`accelerate launch`) share the work.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from tqdm.auto import tqdm

from ..files.bad_samples import BadSample, report_bad_samples
from ..files.text import printable
from ..processing.half_precision import computing_in
from .approximate import require_faiss
from .collection import Collection
from .embedding_stream import embed_stream
from .index import Index
from .index_store import IndexFolderError
from .retriever import Retriever
from .stores.address import is_address
from .stores.places import check_options, holds_index, open_index

logger = logging.getLogger(__name__)
SAVED_AT_ONCE = 2048  # at most so many files or rows between two saves
SAVED_EVERY = 15.0  # seconds between two saves that are aimed at; with a slower batch or scene it is longer
FIRST_AT_ONCE = 64  # before the speed is known


@dataclass
class Done:
    """What a run did: numbers of rows of the index (each tile is one), and of files or rows that could not be used."""

    embedded: int = 0
    unchanged: int = 0
    removed: int = 0
    bad: int = 0
    blank: int = 0  # empty tiles
    others: str = ""  # number of files that are not pictures, by suffix
    rows: int = 0  # of the whole index afterwards


def index_collection(
    collection: Collection,
    out,
    model: str | None = None,
    update: bool = False,
    kind: str | None = None,
    batch_size: int = 32,
    workers: int | None = None,
    width: int | None = None,
    wait: float = 0.0,
    vectors: str | None = None,
    as_kept: Callable[[dict[str, dict]], Collection] | None = None,
    **loading,
) -> Done | None:
    """Embed a collection into the index of a folder, which is made if there is none.

    Args:
        collection: what to index.
        out: folder of the index, or its address (`stores.address`).
        model: folder or Hub id; an index that is updated knows its own.
        update: bring an index up to date, or add a collection to it; without, a folder that holds one is refused.
        kind: of `approximate.KINDS`, or `auto`; None is the kind of the index, `flat` for a new one.
        batch_size: pictures at a time, in each process.
        workers: decoding threads; default one per core, at most 8.
        width: keep the first so many numbers of each embedding; None: all, or as the index that is updated.
        wait: seconds to wait for another writer of the folder, infinity for as long as it takes; 0: be refused at once.
        vectors: how a new index stores them: of `vector_types.TYPES`, default float32; an index that is updated keeps
            its own.
        as_kept: makes the collection of the settings that the index keeps of its sources; another writer may have
            changed these since `collection` was made.
        **loading: of `Retriever.from_pretrained`, such as `revision`.

    Returns:
        What was done; None on all processes but the first.

    Raises:
        IndexFolderError: the folder holds an index and `update` is not set, or one of another model or width, or
            another process writes it.
        ValueError: no model, an unreadable collection, a number below 1.
        ImportError: a kind that needs faiss, without it.
    """
    if kind not in (None, "auto", "flat") and not is_address(out):
        require_faiss()
    if batch_size < 1 or (workers or 1) < 1:
        raise ValueError(f"batch_size and workers must be at least 1, not {batch_size} and {workers}")
    check_options(out, kind, vectors)
    collection.check(may_be_empty=update)
    accelerator = Accelerator()
    loading |= {"width": width, "wait": wait, "vectors": vectors}
    retriever = _opened(collection, out, model, update, kind, accelerator, loading)
    with retriever.index.lock() if accelerator.is_main_process else contextlib.nullcontext():
        collection = _of_now(collection, as_kept, retriever.index)
        done = refresh(retriever, collection, accelerator, batch_size, workers)
    done.rows = len(retriever.index)
    return done if accelerator.is_main_process else None


def _of_now(collection: Collection, as_kept, index: Index) -> Collection:
    """The collection, read as the index that process 0 has locked says by now."""
    if as_kept is None:
        return collection
    now = as_kept(broadcast_object_list([index.sources])[0])
    if (now.name, now.settings) == (collection.name, collection.settings):
        return collection  # which may have read its rows already
    now.check(may_be_empty=True)
    return now


def _opened(
    collection: Collection, out, model: str | None, update: bool, kind: str | None, accelerator, loading: dict
) -> Retriever:
    """The index to write to, made by process 0 if there is none, and its model."""
    there = holds_index(out)
    accelerator.wait_for_everyone()  # all processes have looked before process 0 makes it
    retriever = None if there else _made(out, model, kind, accelerator, loading)
    if retriever is None:
        if not update:
            _check_begun(collection, out, raced=not there)
        retriever = Retriever.open(out, model, **loading)
        _check_apart(collection, retriever.index.sources, out)
        if kind is not None and kind != retriever.index.kind and accelerator.is_main_process:
            retriever.index.note(kind=kind)
    retriever.encoder.to(accelerator.device)
    return retriever


def _check_begun(collection: Collection, out, raced: bool):
    """Refuse an index that is finished, or of other sources: only an interrupted job goes on without `update`, and one
    that waited for another that had the same to do (`raced`).
    """
    begun = open_index(out)
    mine = not begun.sources or collection.name in begun.sources
    if not mine or (len(begun) and not begun.unfinished and not raced):
        raise IndexFolderError(f"{out} holds an index: --update brings it up to date, or name another --out")
    logger.info("going on with %s, which was not finished", out)


def _check_apart(collection: Collection, sources: dict[str, dict], out):
    """Refuse files that lie in a folder of the index, or around one: each update would take their rows to and fro."""
    if not collection.files or collection.name in sources:
        return
    mine = Path(collection.name)
    for name, kept in sources.items():
        inside = mine.is_relative_to(name) or Path(name).is_relative_to(mine)
        if inside and kept.get("split") is None and kept.get("tile") == collection.settings["tile"]:
            raise IndexFolderError(
                f"{mine} and {name}, which is in {out}, share pictures: --update {name} reads those that are new; or "
                f"take it out first (`vsehub index remove {out} {name}`), or name another --out"
            )


def _made(out, model: str | None, kind: str | None, accelerator, loading: dict) -> Retriever | None:
    """The model with an empty index, which process 0 writes; None where another writer, for whom this one waits, was
    quicker.
    """
    if model is None:
        raise ValueError(
            f"{out} holds no index; to make one, --model is missing: name the folder or Hub id of the model that "
            "embeds the pictures"
        )
    retriever = Retriever.from_pretrained(model, **loading)
    retriever.index.kind = kind or "flat"
    if not accelerator.is_main_process:
        return retriever
    try:
        retriever.save(out)
    except IndexFolderError:
        if not loading["wait"] or not holds_index(out):
            raise
        return None
    return retriever


def refresh(retriever: Retriever, collection: Collection, accelerator, batch_size=32, workers=None) -> Done:
    """Bring the collection's part of the index up to date; every process embeds its share, process 0 writes."""
    index, plan = retriever.index, [None]
    fresh = not len(index) or index.unfinished
    of_another = index.unfinished and next(iter(index.sources), collection.name) != collection.name
    if accelerator.is_main_process:
        index.allow(collection.named)
        if index.sources.get(collection.name) != collection.settings:
            index.delete(_rows_of(index, collection.name))  # other settings; if killed now, these rows are only missing
            kept = {**index.sources, collection.name: collection.settings}
            if fresh and not index.unfinished:  # the job that is not finished is that of the first source
                kept = {collection.name: collection.settings, **kept}
            index.note(sources=kept, unfinished=fresh)
        index.remember()
        plan = [_plan(index, collection)]
    todo, stale, unchanged, known = broadcast_object_list(plan)[0]
    done, problems = Done(unchanged=unchanged), []
    hidden = {} if accelerator.is_main_process and todo else {"disable": True}  # False would overrule --quiet
    with tqdm(total=len(todo), desc="indexing", **hidden) as bar:
        for chunk in _chunks(todo, collection, accelerator):
            vectors, items, bad = _embedded(retriever, collection, chunk, accelerator, batch_size, workers, bar)
            if accelerator.is_main_process:
                problems += bad
                stale -= {item["id"] for item in items}
                index.add(vectors, items)
                done.embedded += len(items)
    if accelerator.is_main_process:
        problems += collection.left_out()
        done.removed, done.bad, done.blank = index.delete(stale), len(problems), collection.blank
        if fresh:
            index.note(unfinished=of_another)
            index.compact()
        others = collection.folder.others if collection.files else {}
        done.others = collection.folder.told if collection.files else ""
        notes = [
            {"id": f"*{kind}", "path": None, "problem": f"{n} files that are not pictures"}
            for kind, n in others.items()
        ]
        _report(index.reports, collection.name, problems + collection.notes + notes, known)
    accelerator.wait_for_everyone()
    return done


def remove_source(index: Index, source: str) -> tuple[str, int]:
    """Forget a source of an index and all rows that came from it.

    Args:
        index: what is changed.
        source: a key of `index.sources`, or what was given to `vsehub index`, where one source alone has that name.

    Returns:
        The key and how many rows are gone.

    Raises:
        ValueError: no such source, or several.
    """
    here = os.path.abspath(os.path.expanduser(source))
    named = [name for name, kept in index.sources.items() if kept.get("data") in (source, here)]
    named = [source] if source in index.sources else named
    if len(named) != 1:
        known = ", ".join(printable(name) for name in (named or index.sources))
        raise ValueError(
            f"{index.name} has {'several such sources' if named else 'no such source'}: "
            + (f"name one of {known}" if known else "`vsehub index` has added none to it")
        )
    (name,) = named
    gone = index.delete(_rows_of(index, name))
    index.note(sources={key: kept for key, kept in index.sources.items() if key != name})
    index.compact()
    _report(index.reports, name, [], set())
    return name, gone


def _rows_of(index: Index, source: str, *names):
    """Fields of a source's rows; ids alone without names."""
    columns = zip(*(index.column(name) for name in names or ("id",)))
    owned = zip(index.alive, index.column("collection"), columns)
    rows = [values for alive, owner, values in owned if alive and owner == source]
    return rows if names else [name for (name,) in rows]


def _chunks(todo: list, collection: Collection, accelerator):
    """Yield units that are saved together: as many as take about `SAVED_EVERY` seconds, by the speed of those before.

    A scene is saved at once: with a part of its tiles it would seem unchanged.
    """
    start, size = 0, min(FIRST_AT_ONCE * accelerator.num_processes, SAVED_AT_ONCE)
    while start < len(todo):
        end = start + 1
        while end < min(start + size, len(todo)) and not collection.tiled(todo[end - 1].path):
            end += 1
        began = time.monotonic()
        yield todo[start:end]
        wanted = (end - start) * SAVED_EVERY / max(time.monotonic() - began, 1e-3)
        size = broadcast_object_list([max(1, min(int(wanted), 4 * size, SAVED_AT_ONCE))])[0]  # the same everywhere
        start = end


def _plan(index: Index, collection: Collection):
    """(units to embed, ids to delete unless embedded again, number of rows that stay, their files)."""
    rest = () if collection.files else ("path", "row", "caption", "fields")  # may change while size and stamp stay
    known: dict[str, list] = {}
    for item in _rows_of(index, collection.name, "id", "path", "size", "stamp", *rest):
        known.setdefault(item[1] if collection.files else item[0], []).append((item[0], *item[2:]))
    todo, unchanged, files = [], 0, set()
    for unit in collection.units():
        rows, same = known.get(unit.key), (unit.size, unit.stamp, *(getattr(unit, name) for name in rest))
        if rows and all(row[1:] == same for row in rows):
            unchanged += len(known.pop(unit.key))
            files.add(unit.key)
        else:
            todo.append(unit)
    return todo, {row[0] for rows in known.values() for row in rows}, unchanged, files


def _embedded(retriever, collection, chunk, accelerator, batch_size, workers, bar):
    """Vectors, items and problems of some units, from all processes, in the order of the units; the bar moves on."""
    share, of = accelerator.process_index, accelerator.num_processes
    numbered = enumerate(entry for unit in chunk for entry in collection.entries(unit))
    mine = (({**item, "number": n}, source) for n, (item, source) in numbered if n % of == share)
    fast, bands = bool(collection.settings.get("fast")), collection.settings.get("bands")
    batches, end, tiled = [], bar.n + len(chunk), any(collection.tiled(unit.path) for unit in chunk)
    encoder, dtype = retriever.encoder, collection.settings.get("dtype", "float32")
    with computing_in(dtype, encoder.model, encoder.device):
        for batch in embed_stream(encoder, mine, batch_size, workers, fast, bands):
            batches.append(batch)
            if not tiled:
                bar.update(min(of * (len(batch[0]) + len(batch[2])), end - bar.n))
    bar.update(end - bar.n)
    batches = gather_object(batches)
    problems = [problem for *_, several in batches for problem in several]
    torn = {problem["path"] for problem in problems if collection.tiled(problem["path"])}
    rows = [(item, vector) for items, vectors, _ in batches for item, vector in zip(items, vectors)]
    rows = sorted((row for row in rows if row[0]["path"] not in torn), key=lambda row: row[0]["number"])
    items = [{name: value for name, value in item.items() if name != "number"} for item, _ in rows]
    return np.stack([vector for _, vector in rows]) if rows else np.zeros((0, 0), np.float32), items, problems


def _report(folder: Path, collection: str, problems: list[dict], known: set[str]):
    """List a collection's bad pictures; entries of files that were not read again (`known`) stay."""
    samples = [BadSample(problem["id"], problem["problem"], path=problem["path"]) for problem in problems]
    report_bad_samples(folder, f"collection {collection}", samples, known, before="bad_images.jsonl")


__all__ = ["Done", "index_collection", "refresh", "remove_source"]
