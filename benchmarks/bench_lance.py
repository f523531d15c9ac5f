"""Should the local store be LanceDB? Query, cold open and query, adding 1 %, and bytes, on the same vectors.

    python benchmarks/bench_lance.py --rows 100_000       # needs vsehub[lance]; about three minutes

The sides are this store, LanceDB itself, and an index at `lance://`. They hold ids, paths and sizes, search exactly
(`bypass_vector_index`), run in turn in one process, and must return the same ids. The condition is met by half of the
rows. Adding replaces rows of the same id: LanceDB's `merge_insert`. LanceDB uses as many threads as it likes, so CPU
milliseconds are given beside wall milliseconds. Prints a markdown table and writes JSON.
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
from vsehub.search.exported_rows import export_schema, vector_batches
from vsehub.search.filters import chosen_rows
from vsehub.search.stores.copies import kept_in
from vsehub.search.stores.places import open_index
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
    results = measure(args)
    print_table(results)
    Path(args.json).parent.mkdir(parents=True, exist_ok=True)
    Path(args.json).write_text(json.dumps(results, indent=1))
    return 0


def measure(args) -> dict:
    """Build the three, assert that they answer alike, and time them in turn."""
    vectors, queries = clustered(args.rows, 512, 1), clustered(50, 512, 2)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "ours"), str(Path(folder, "theirs"))
        VectorIndex.create(ours, MODEL).add(vectors, items(0, args.rows))
        lancedb.connect(theirs).create_table("images", data=table_of(vectors, 0))
        index, table = VectorIndex.open(ours), lancedb.connect(theirs).open_table("images")
        address = f"lance://{folder}/address/images"
        there = kept_in(index, address)
        half = f"size >= {int(np.median(index.column('size')))}"

        def search_ours(n, opened=None, place=ours, where=None):
            now = (opened or open_index(place)).snapshot
            rows = now.search(queries[n : n + 1], 10, where=chosen_rows(now, where=where))[0][0]
            return [item["id"] for item in now.items(rows)]

        def search_theirs(n, opened=None, where=None):
            opened = opened or lancedb.connect(theirs).open_table("images")
            query = opened.search(queries[n]).distance_type("cosine").bypass_vector_index().limit(10)
            return [row["id"] for row in (query.where(where) if where else query).to_list()]

        same = statistics.mean(
            search_ours(n, index) == search_theirs(n, table) == search_ours(n, there) for n in range(20)
        )
        results = {"rows": args.rows, "same_ids": same}
        results["query"] = in_turn(
            3 * args.repeats,
            ours=lambda n: search_ours(n, index),
            lance=lambda n: search_theirs(n, table),
            address=lambda n: search_ours(n, there),
        )
        results["condition"] = in_turn(
            args.repeats,
            ours=lambda n: search_ours(n, index, where=half),
            lance=lambda n: search_theirs(n, table, half),
            address=lambda n: search_ours(n, there, where=half),
        )
        results["cold"] = in_turn(
            args.repeats, ours=search_ours, lance=search_theirs, address=lambda n: search_ours(n, place=address)
        )
        sizes = {"ours": ours, "lance": Path(theirs), "address": Path(folder, "address")}
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
            address=lambda n: there.add(vectors[:more], items(args.rows + n * more, args.rows + (n + 1) * more)),
        )
    return results


def print_table(results: dict):
    """The rows of docs/choices.md."""
    print("| 512 numbers, ms wall (CPU) | this store | LanceDB itself | `lance://` |\n|---|---|---|---|")
    titles = {"query": "query", "condition": "query with a condition", "cold": "open and query", "add": "add 1 %"}
    for name, title in titles.items():
        cells = [f"{side['ms']:.0f} ({side['cpu_ms']:.0f})" for side in results[name].values()]
        print(f"| {results['rows']:,} rows: {title} | {' | '.join(cells)} |")
    print(f"| MB on disk | {' | '.join(f'{size:.0f}' for size in results['mb'].values())} |")
    print(f"the same ids in {100 * results['same_ids']:.0f} % of queries")


if __name__ == "__main__":
    raise SystemExit(main())
