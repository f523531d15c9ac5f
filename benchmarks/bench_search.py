"""What the durable index costs over bare faiss: cold open, query, HNSW, and adding one per cent.

    python benchmarks/bench_search.py                    # 100,000 x 512; about two minutes, most of it building HNSW
    python benchmarks/bench_search.py --rows 1_000_000   # 12 GB of memory, 12 GB of disk, most of an hour
    python benchmarks/bench_search.py --rows 1_000_000 --hnsw   # HNSW alone, some twenty minutes
    python benchmarks/bench_search.py --quick            # 20,000 x 128; seconds

Both sides run in turn in one process on the same vectors (clustered, as embeddings are; the page cache is warm). Prints
a row of a markdown table and writes JSON. The ids must be equal, and HNSW's recall@10 is against exact search. The
memory of building is the peak of the process's own pages (RssAnon of Linux), with the array that is given and without
its items; pages of mapped files are not in it, since the system can drop them.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

import faiss
import numpy as np

from vsehub.search import nearest
from vsehub.search.vector_index import VectorIndex

BLOCK = 100_000
MODEL = {"id": "none", "revision": None, "digest": "0" * 64}


def clustered(rows: int, dimension: int, seed: int) -> np.ndarray:
    """Unit vectors around 1,000 centres that span 64 directions."""
    common = np.random.default_rng(0)
    basis = common.standard_normal((64, dimension))
    centres = common.standard_normal((1000, 64)) @ basis
    rng = np.random.default_rng(seed)
    vectors = np.empty((rows, dimension), np.float32)
    for start in range(0, rows, BLOCK):
        count = min(BLOCK, rows - start)
        block = centres[rng.integers(0, 1000, count)] + 0.7 * rng.standard_normal((count, 64)) @ basis
        block += 0.3 * rng.standard_normal((count, dimension))
        vectors[start : start + count] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return vectors


def items(start: int, stop: int) -> list[dict]:
    return [
        {"id": f"/photos/album {n // 500}/{n:07d}.jpg", "path": f"/photos/album {n // 500}/{n:07d}.jpg", "size": n}
        for n in range(start, stop)
    ]


def interleaved(repeats: int, **sides) -> dict:
    """Median and interquartile range of the milliseconds of each side, run in turn."""
    times = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            run(repeat)
            times[name] += [1000 * (time.perf_counter() - start)] if repeat else []  # the first warms up
    quartiles = {name: statistics.quantiles(several, n=4) for name, several in times.items()}
    return {name: {"median_ms": round(q[1], 3), "iqr_ms": round(q[2] - q[0], 3)} for name, q in quartiles.items()}


class PeakMemory:
    """The highest RssAnon of this process inside a `with`, in bytes; `before` is that on entering."""

    def __enter__(self):
        self.before = self.peak = self._now()
        self._end, self._thread = threading.Event(), threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()

    def _watch(self):
        while not self._end.wait(0.02):
            self.peak = max(self.peak, self._now())

    @staticmethod
    def _now() -> int:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("RssAnon:")[2].split()[0])


def exact(folder: Path, vectors, queries, repeats: int) -> dict:
    index = VectorIndex.create(folder / "flat", MODEL)
    index.add(vectors, items(0, len(vectors)))
    bare = faiss.IndexFlatIP(vectors.shape[1])
    bare.add(vectors)
    faiss.write_index(bare, str(folder / "bare.faiss"))
    opened = VectorIndex.open(folder / "flat")

    def ours(n, index=None):
        index = index or VectorIndex.open(folder / "flat")
        rows, _ = index.search(queries[n : n + 1], 10)[0]
        return [item["id"] for item in index.items(rows)]

    def theirs(n, bare=None):
        bare = bare or faiss.read_index(str(folder / "bare.faiss"))
        return bare.search(queries[n : n + 1], 10)[1][0].tolist()

    names = [item["id"] for item in items(0, len(vectors))]
    for n in range(len(queries) // 4):
        assert ours(n, opened) == [names[row] for row in theirs(n, bare)], "other ids than faiss"
    cold = interleaved(repeats, ours=ours, faiss=theirs)
    warm = interleaved(4 * repeats, ours=lambda n: ours(n, opened), faiss=lambda n: theirs(n, bare))
    real, nearest.load_faiss = nearest.load_faiss, lambda: None
    without = interleaved(repeats, numpy=lambda n: ours(n, opened))
    nearest.load_faiss = real
    return {"cold": cold, "warm": {**warm, **without}}


def approximate(folder: Path, vectors, queries, repeats: int, threads: int) -> dict:
    named = items(0, len(vectors))
    faiss.omp_set_num_threads(threads)
    with PeakMemory() as memory:
        start, cpu = time.perf_counter(), time.process_time()
        index = VectorIndex.create(folder / "hnsw", MODEL, "hnsw")
        index.add(vectors, named)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    faiss.omp_set_num_threads(1)
    sizes = {kind: sum(path.stat().st_size for path in (folder / "hnsw").glob(f"{kind}*")) for kind in ("vec", "graph")}
    index = VectorIndex.open(folder / "hnsw")
    pairs = zip(index.search(queries, 10), index.search(queries, 10, exact=True))
    recall = statistics.mean(len(set(found) & set(right)) / 10 for (found, _), (right, _) in pairs)
    speed = interleaved(
        4 * repeats,
        hnsw=lambda n: index.items(index.search(queries[n : n + 1], 10)[0][0]),
        flat=lambda n: index.items(index.search(queries[n : n + 1], 10, exact=True)[0][0]),
    )
    built = {"build_s": round(seconds, 1), "build_cpu_s": round(cpu, 1), "build_threads": threads}
    built |= {"vectors_mb": round(sizes["vec"] / 1e6, 1), "graph_mb": round(sizes["graph"] / 1e6, 1)}
    built["memory_of_array"] = round(1 + (memory.peak - memory.before) / vectors.nbytes, 3)
    return {**built, "recall@10": round(recall, 4), **speed}


def adding(folder: Path, vectors, repeats: int, kind: str) -> dict:
    """One per cent more rows, against making the index of all of them again; vectors are there, nothing is embedded."""
    more, rows = len(vectors) // 100, len(vectors)
    index = VectorIndex.open(folder / kind)

    def add(n):
        index.add(vectors[:more], items(rows + n * more, rows + (n + 1) * more))

    def rebuild(n):
        VectorIndex.create(folder / f"again {n}", MODEL, kind).add(vectors, items(0, rows))
        shutil.rmtree(folder / f"again {n}")

    return interleaved(repeats, add=add, rebuild=rebuild) if repeats else interleaved(7, add=add)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, help="vectors of 512 numbers (default: 100,000)")
    parser.add_argument("--hnsw", action="store_true", help="HNSW beside our own exact query, and nothing else")
    parser.add_argument("--build_threads", type=int, default=1, help="of HNSW; everything else runs on one")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", default="runs/bench_search.json")
    args = parser.parse_args()
    faiss.omp_set_num_threads(1)
    rows, dimension = (20_000, 128) if args.quick else (args.rows or 100_000, 512)
    vectors, queries = clustered(rows, dimension, 1), clustered(200, dimension, 2)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        found = {"rows": rows, "dimension": dimension, "threads": 1}
        found |= {} if args.hnsw else exact(folder, vectors, queries, args.repeats)
        found["hnsw"] = approximate(folder, vectors, queries, args.repeats, args.build_threads)
        found["add_flat"] = {} if args.hnsw else adding(folder, vectors, args.repeats, "flat")
        found["add_hnsw"] = adding(folder, vectors, 0, "hnsw")
    Path(args.json).parent.mkdir(parents=True, exist_ok=True)
    Path(args.json).write_text(json.dumps(found, indent=1))
    print(json.dumps(found["hnsw"], indent=1) if args.hnsw else table(found))
    return 0


def table(found: dict) -> str:
    """A row of a markdown table below its head."""
    cold, warm, hnsw = found["cold"], found["warm"], found["hnsw"]
    share = 100 * found["add_flat"]["add"]["median_ms"] / found["add_flat"]["rebuild"]["median_ms"]
    share_hnsw = 100 * found["add_hnsw"]["add"]["median_ms"] / (1000 * hnsw["build_s"])
    return (
        "| vectors | cold open + query, ms (faiss) | query, ms (faiss; numpy) | HNSW, ms (recall@10) | add 1 % | "
        "HNSW: files, MB; memory / array |\n|---|---|---|---|---|---|\n"
        f"| {found['rows']:,} x {found['dimension']} | "
        f"{cold['ours']['median_ms']:.1f} ({cold['faiss']['median_ms']:.1f}) | "
        f"{warm['ours']['median_ms']:.2f} ({warm['faiss']['median_ms']:.2f}; {warm['numpy']['median_ms']:.2f}) | "
        f"{hnsw['hnsw']['median_ms']:.2f} ({hnsw['recall@10']:.3f}), flat / HNSW "
        f"{hnsw['flat']['median_ms'] / hnsw['hnsw']['median_ms']:.0f} | "
        f"{share:.1f} % of a flat rebuild, {share_hnsw:.2f} % of HNSW's | "
        f"{hnsw['vectors_mb']:.0f} + {hnsw['graph_mb']:.0f}; {hnsw['memory_of_array']:.2f} |"
    )


if __name__ == "__main__":
    raise SystemExit(main())
