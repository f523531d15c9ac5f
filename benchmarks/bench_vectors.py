"""What float16 and int8 vectors cost: bytes on disk, recall@10 against float32, time and memory of an exact query.

    python benchmarks/bench_vectors.py                     # 1,000,000 x 512; 4 GB of memory, 4 GB of disk
    python benchmarks/bench_vectors.py --rows 200_000

Two sets of vectors: those of `bench_search.clustered` (1,000 centres in 64 directions, plus noise in all), and the
same with two numbers that are large in every vector, as in CLIP's embeddings. Random vectors would say little: their
neighbours are all equally far. Queries are made like the rows. One thread; the kinds are asked in turn. Memory is what
a query adds to the process's own pages. Prints a markdown table and writes JSON.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np

from vsehub.benchmarks.bench_search import BLOCK, MODEL, PeakMemory, clustered
from vsehub.search.vector_index import VectorIndex
from vsehub.search.vector_types import TYPES

LARGE = (0.5, -0.35)  # added to the first two numbers of unit vectors


def with_large_numbers(vectors: np.ndarray) -> np.ndarray:
    """The vectors, changed in place, with two numbers that are large in each, of length 1."""
    vectors[:, :2] += np.array(LARGE, np.float32)
    for start in range(0, len(vectors), BLOCK):
        vectors[start : start + BLOCK] /= np.linalg.norm(vectors[start : start + BLOCK], axis=1, keepdims=True)
    return vectors


def built(folder: Path, vectors: np.ndarray, name: str) -> VectorIndex:
    index = VectorIndex.create(folder / name, MODEL, vectors=name)
    for start in range(0, len(vectors), BLOCK):
        part = vectors[start : start + BLOCK]
        index.add(part, [{"id": str(n)} for n in range(start, start + len(part))], merge=False)
    return VectorIndex.open(folder / name)


def measured(folder: Path, vectors: np.ndarray, queries: np.ndarray, repeats: int) -> dict:
    """For each type: bytes of the vectors, recall@10, and medians of a query."""
    indexes = {name: built(folder, vectors, name) for name in TYPES}
    right = [set(rows) for rows, _ in indexes["float32"].search(queries, 10)]
    times, cpu = {name: [] for name in TYPES}, {name: [] for name in TYPES}
    for repeat in range(repeats + 1):
        for name, index in indexes.items():
            start, used = time.perf_counter(), time.process_time()
            index.search(queries[repeat : repeat + 1], 10)
            times[name].append(1000 * (time.perf_counter() - start))
            cpu[name].append(1000 * (time.process_time() - used))
    results = {}
    for name, index in indexes.items():
        rows = [set(rows) for rows, _ in index.search(queries, 10)]
        with PeakMemory() as memory:
            for query in queries[:5]:
                index.search(query[None], 10)
        results[name] = {
            "mb": sum(path.stat().st_size for path in (folder / name).glob("vectors-*")) / 1e6,
            "recall@10": statistics.mean(len(a & b) / 10 for a, b in zip(rows, right)),
            "query_ms": statistics.median(times[name][1:]),
            "query_cpu_ms": statistics.median(cpu[name][1:]),
            "query_memory_mb": (memory.peak - memory.before) / 1e6,
        }
        shutil.rmtree(folder / name)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", default="runs/bench_vectors.json")
    args = parser.parse_args()
    faiss.omp_set_num_threads(1)
    results = {}
    vectors, queries = clustered(args.rows, args.dimension, 1), clustered(args.queries, args.dimension, 2)
    print("| vectors | stored as | MB on disk | recall@10 | query, ms (CPU) | memory of a query, MB |")
    print("|---|---|---|---|---|---|")
    for title in ("clustered", "two large numbers"):
        if title != "clustered":
            vectors, queries = with_large_numbers(vectors), with_large_numbers(queries)
        with tempfile.TemporaryDirectory() as folder:
            results[title] = measured(Path(folder), vectors, queries, args.repeats)
        for name, row in results[title].items():
            print(
                f"| {args.rows:,} x {args.dimension}, {title} | {name} | {row['mb']:,.0f} | {row['recall@10']:.3f} | "
                f"{row['query_ms']:.0f} ({row['query_cpu_ms']:.0f}) | {row['query_memory_mb']:.0f} |",
                flush=True,
            )
    Path(args.json).parent.mkdir(parents=True, exist_ok=True)
    Path(args.json).write_text(json.dumps({"rows": args.rows, "dimension": args.dimension, **results}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
