"""Approximate search for large indexes: HNSW of faiss, over the first rows of an index.

The graph holds 4-bit codes of its vectors, an eighth of their bytes, and proposes candidates; these are ranked by the
vectors themselves. Rows added later are searched exactly, until there are enough of them to add them to the graph.
"""

import os
from collections.abc import Iterator

import numpy as np

from .nearest import load_faiss
from .vector_types import Vectors

KINDS = ("flat", "hnsw")
LARGE = 200_000  # rows from which `auto` is HNSW; an exact query then takes about 15 ms on one core
LINKS, BUILD_EFFORT, SEARCH_EFFORT = 24, 80, 128  # HNSW: M, efConstruction, efSearch
CANDIDATES = 2  # times as many as are wanted: of 4 bits, a right row may come somewhat later
ROWS_AT_ONCE = 16_384  # decoded, and added to the graph
SAMPLE = 20_000  # rows from which the range of each number's code is taken
WIDER = 0.1  # how much wider than in the sample the range is on both sides
OUTSIDE = 1e-4  # mean squared length of what later rows may have beyond that range; with more, the graph is built anew


def kind_for(kind: str, rows: int) -> str:
    """Resolve `auto` by size.

    Raises:
        ValueError: no such kind.
    """
    if kind not in (*KINDS, "auto"):
        raise ValueError(f"no index kind {kind!r}; there are auto, {', '.join(KINDS)}")
    return ("hnsw" if rows >= LARGE else "flat") if kind == "auto" else kind


def require_faiss():
    """The faiss module.

    Raises:
        ImportError: it is not installed; the message names the extra.
    """
    faiss = load_faiss()
    if faiss is None:
        raise ImportError('HNSW needs faiss: pip install "vsehub[index]", or use --kind flat')
    return faiss


def build(segments: list[Vectors]):
    """Build a graph over the rows of all segments, each (R, D)."""
    faiss = require_faiss()
    dimension, rows = segments[0].shape[1], sum(map(len, segments))
    quantizer = faiss.ScalarQuantizer
    graph = faiss.IndexHNSWSQ(dimension, quantizer.QT_4bit, LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = BUILD_EFFORT
    storage = faiss.downcast_index(graph.storage)
    storage.sq.rangestat, storage.sq.rangestat_arg = quantizer.RS_minmax, WIDER
    step = -(-rows // SAMPLE)
    graph.train(np.concatenate([segment[np.arange(0, len(segment), step)] for segment in segments]))
    extend(graph, segments)
    return graph


def extend(graph, segments: list[Vectors], skip: int = 0):
    """Add the rows of segments to a graph, but for the first ones."""
    storage = require_faiss().downcast_index(graph.storage)
    rows = sum(map(len, segments)) - skip
    # At once: an array that grows is there twice. One row in about LINKS has links above the lowest level, too.
    storage.codes.resize((graph.ntotal + rows) * storage.code_size)
    neighbors, used = graph.hnsw.neighbors, graph.hnsw.neighbors.size()
    neighbors.resize(used + rows * (graph.hnsw.nb_neighbors(0) + 2))
    neighbors.resize(used)
    for block in _blocks(segments, skip):
        graph.add(np.ascontiguousarray(block))


def fits(graph, segments: list[Vectors], skip: int = 0) -> bool:
    """Whether the codes of a graph have the range for the rows of segments, but for the first ones."""
    storage = require_faiss().downcast_index(graph.storage)
    if not hasattr(storage, "sq"):  # of an earlier version: it holds the vectors
        return True
    least, span = require_faiss().vector_to_array(storage.sq.trained).reshape(2, -1)
    total = rows = 0
    for block in _blocks(segments, skip):
        total += float(((block - block.clip(least, least + span)).astype(np.float64) ** 2).sum())
        rows += len(block)
    return total <= OUTSIDE * rows


def _blocks(segments: list[Vectors], skip: int) -> Iterator[np.ndarray]:
    for segment in segments:
        for start in range(min(skip, len(segment)), len(segment), ROWS_AT_ONCE):
            yield segment[start : start + ROWS_AT_ONCE]
        skip = max(0, skip - len(segment))


def copied(graph):
    """A copy of a graph, which may grow while the graph itself is searched."""
    return require_faiss().clone_index(graph)


def search(graph, queries: np.ndarray, count: int, left_out: np.ndarray | None = None) -> np.ndarray:
    """Rows near the queries (Q, D): at least (Q, count) where the graph has them, then -1.

    Args:
        graph: of `build`.
        queries: float32.
        count: how many.
        left_out: boolean (at least the graph's rows,), rows that are not searched.
    """
    faiss = require_faiss()
    selector = None
    if left_out is not None and left_out[: graph.ntotal].any():
        kept = np.packbits(~left_out[: graph.ntotal], bitorder="little")
        selector = faiss.IDSelectorBitmap(kept)
    count = min(CANDIDATES * count, graph.ntotal)  # first, since faiss takes no larger efSearch than 2,147,483,647
    params = faiss.SearchParametersHNSW(sel=selector, efSearch=max(SEARCH_EFFORT, 2 * count))
    return graph.search(queries, count, params=params)[1]


def check(graph, dimension: int, covered: int, rows: int):
    """Refuse a graph that is not of these vectors: faiss would read past their end.

    Raises:
        ValueError: another kind, dimension or number of rows.
    """
    kind = type(graph).__name__
    if (
        kind not in ("IndexHNSWSQ", "IndexHNSWFlat")
        or (graph.d, graph.ntotal) != (dimension, covered)
        or covered > rows
    ):
        raise ValueError(f"its graph is a {kind} over {graph.ntotal} of {rows} rows with {graph.d} numbers")


def write(graph, path):
    """Write a graph to a file."""
    require_faiss().write_index(graph, str(path))


def read(path, memory_map: bool = True):
    """Read a graph from a file; its vectors are memory-mapped where faiss can do so.

    Raises:
        FileNotFoundError: the file was removed.
    """
    faiss = require_faiss()
    flags = faiss.IO_FLAG_MMAP_IFC if memory_map and hasattr(faiss, "IO_FLAG_MMAP_IFC") else 0
    try:
        return faiss.read_index(str(path), flags)
    except RuntimeError:
        os.stat(path)  # raises FileNotFoundError if a writer removed it: faiss gives the same error for a damaged file
        raise


__all__ = [
    "KINDS",
    "build",
    "check",
    "copied",
    "extend",
    "fits",
    "kind_for",
    "read",
    "require_faiss",
    "search",
    "write",
]
