"""Should the local store be LanceDB? Query, cold open and query, adding 1 %, and bytes, of both on the same vectors.

    python benchmarks/bench_lance.py --rows 100_000       # needs vsehub[lance]; about three minutes

Both sides hold ids, paths and sizes, search exactly (`bypass_vector_index`), run in turn in one process, and must
return the same ids. Adding replaces rows of the same id on both sides: LanceDB's `merge_insert`. LanceDB uses as many
threads as it likes, so CPU milliseconds are given beside wall milliseconds. Prints a markdown table and writes JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa

from vsehub.benchmarks.bench_search import MODEL, clustered, items
from vsehub.search.export import export_schema, vector_batches
from vsehub.search.vector_index import VectorIndex


def table_of(vectors: np.ndarray, start: int) -> pa.Table:
    """Rows as LanceDB takes them, with the columns of ours."""
    index = VectorIndex(MODEL)
    index.add(vectors, items(start, start + len(vectors)))
    return pa.Table.from_batches(vector_batches(index), export_schema(index))


def in_turn(repeats: int, **sides) -> dict:
    """Medians of the wall and CPU milliseconds of each side, without the first run."""
    times = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, run in sides.items():
            start, used = time.perf_counter(), time.process_time()
            run(repeat)
            times[name].append((1000 * (time.perf_counter() - start), 1000 * (time.process_time() - used)))
    medians = {name: np.median(several[1:], axis=0).round(2) for name, several in times.items()}
    return {name: {"ms": float(wall), "cpu_ms": float(cpu)} for name, (wall, cpu) in medians.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", default="runs/bench_lance.json")
    args = parser.parse_args()
    vectors, queries = clustered(args.rows, 512, 1), clustered(50, 512, 2)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "ours"), str(Path(folder, "theirs"))
        VectorIndex.create(ours, MODEL).add(vectors, items(0, args.rows))
        lancedb.connect(theirs).create_table("images", data=table_of(vectors, 0))
        index, table = VectorIndex.open(ours), lancedb.connect(theirs).open_table("images")

        def search_ours(n, opened=None):
            opened = opened or VectorIndex.open(ours)
            return [item["id"] for item in opened.items(opened.search(queries[n : n + 1], 10)[0][0])]

        def search_theirs(n, opened=None):
            opened = opened or lancedb.connect(theirs).open_table("images")
            query = opened.search(queries[n]).distance_type("cosine").bypass_vector_index().limit(10)
            return [row["id"] for row in query.to_list()]

        same = statistics.mean(search_ours(n, index) == search_theirs(n, table) for n in range(20))
        results = {"rows": args.rows, "same_ids": same}
        results["query"] = in_turn(
            3 * args.repeats, ours=lambda n: search_ours(n, index), lance=lambda n: search_theirs(n, table)
        )
        results["cold"] = in_turn(args.repeats, ours=search_ours, lance=search_theirs)
        sizes = {"ours": ours, "lance": Path(theirs)}
        sizes = {k: sum(f.stat().st_size for f in p.rglob("*") if f.is_file()) / 1e6 for k, p in sizes.items()}
        results["mb"] = sizes
        more = args.rows // 100
        parts = [table_of(vectors[:more], args.rows + n * more) for n in range(args.repeats + 1)]

        def add_theirs(n):
            merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(parts[n])

        results["add"] = in_turn(
            args.repeats,
            ours=lambda n: index.add(vectors[:more], items(args.rows + n * more, args.rows + (n + 1) * more)),
            lance=add_theirs,
        )
    print("| 512 numbers, ms wall (CPU) | this store | LanceDB |\n|---|---|---|")
    for name, title in ("query", "query"), ("cold", "open and query"), ("add", "add 1 %"):
        cells = [f"{results[name][side]['ms']:.0f} ({results[name][side]['cpu_ms']:.0f})" for side in ("ours", "lance")]
        print(f"| {args.rows:,} rows: {title} | {' | '.join(cells)} |")
    print(f"| MB on disk | {sizes['ours']:.0f} | {sizes['lance']:.0f} |\nthe same ids in {100 * same:.0f} % of queries")
    Path(args.json).parent.mkdir(parents=True, exist_ok=True)
    Path(args.json).write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
