"""Several ways of training two plain towers, frozen and cached as in docs/protocol.md: the runs, and their tables.

A finished run is a line of `OUT/SET/results.jsonl`, so a killed script goes on.
"""

import argparse
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import torch
from ablation import metrics_table, report, run_once
from arms import Bench
from transformers.utils import logging

from vsehub.files.memory import reuse_memory


def run_ways(about: str, ways: Collection[str], train: Callable, sets: list[str], metric: str, others: tuple[str, ...]):
    """Read the command line, make the runs that are missing, and print the tables of each set.

    Args:
        about: the docstring of the script.
        ways: their names; the first is what the others are compared with.
        train: bench, set, name of the way and seed -> metrics.
        sets: the default of `--sets`.
        metric: the primary one.
        others: those of the second table.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder that holds flickr8k/ and rsicd_aid/ in parquet")
    parser.add_argument("--backbones", help="folder that holds mobilenet_v2/")
    parser.add_argument("--text", help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--out", default=f"runs/{Path(parser.prog).stem}")
    parser.add_argument("--caches", default="runs/results", help="the --out of results.py, whose caches are used again")
    parser.add_argument("--sets", nargs="+", default=sets)
    parser.add_argument("--only", nargs="*", help="names of ways")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--report", action="store_true", help="the tables alone")
    args = parser.parse_args()
    logging.set_verbosity_error()
    reuse_memory()
    torch.set_num_threads(1)
    bench = Bench(args.data, args.backbones, args.text, args.caches)
    for data in args.sets:
        results = Path(args.out) / data / "results.jsonl"
        jobs = [(name, seed) for seed in range(args.seeds) for name in ways if not args.only or name in args.only]
        for name, seed in () if args.report else jobs:
            run_once(results, name, seed, partial(train, bench, data, name, seed))
        print(data, report(results, metric, next(iter(ways))), metrics_table(results, others), sep="\n")
