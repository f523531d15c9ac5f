"""Measure the claims of docs/protocol.md; make the tables and plots of docs/results.md from the ledger, runs.jsonl.

    make results DATA=... BACKBONES=... MINILM=...           # the runs that are missing, then the tables
    python benchmarks/results.py --claims d2s --seeds 10 --data $DATA --backbones $BACKBONES --text $MINILM
    python benchmarks/results.py --jobs 8 ...                # as many runs at a time, each in a process of its own
    python benchmarks/results.py --recheck ...               # one seed of each row again, with today's code
    python benchmarks/results.py --again --seeds 1 ...       # a seed again, whatever is there (see below)
    python benchmarks/results.py --tables                    # the tables alone
    make results-test DATA=...                               # the kept weights on the test splits, each run once

Resumable: a finished run is a line of the ledger. A seed decides heads, order of the pairs and dropout. Towers are
frozen, and their outputs are cached before the clock starts. Claims that train towers are left out without a GPU.
Figures of two kinds of processors differ by rounding. To recheck rows on another kind than theirs, repeat a seed on it
with the code of the rows, too: `--again` in a checkout of that commit.
"""

import argparse
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import kept_runs
import ledger
import torch
from accelerate import Accelerator
from arms import CLAIMS, Bench, Claim, code_of, texts_read
from claim_plots import write_plots
from claim_tables import table, write_tables
from transformers.utils import logging

from vsehub.evaluation.embed import RowInputs, embed_rows
from vsehub.evaluation.protocols import protocol_outcomes
from vsehub.evaluation.seeds import shares_of_images
from vsehub.files.memory import reuse_memory


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder that holds flickr8k/ and rsicd_aid/ in parquet")
    parser.add_argument("--backbones", help="folder that holds mobilenet_v2/")
    parser.add_argument("--text", help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--out", default="runs/results", help="caches and working files")
    parser.add_argument("--claims", nargs="*", default=list(CLAIMS), choices=list(CLAIMS))
    parser.add_argument("--arms", nargs="*", help="names of arms; default all of the claims")
    parser.add_argument("--seeds", type=int, help="of each claim; default as many as the protocol asks for")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--jobs", type=int, default=1, help="runs at a time; their times are then those of a busy machine"
    )
    parser.add_argument("--channels_last", action="store_true", help="the layout of convolutions, for a GPU")
    parser.add_argument("--recheck", action="store_true", help="a seed again for each older code of a row")
    parser.add_argument("--again", action="store_true", help="run the seeds, whether their lines are there or not")
    parser.add_argument("--tables", action="store_true", help="write the tables, run nothing")
    parser.add_argument("--test", action="store_true", help="the kept weights on the test splits; trains nothing")
    args = parser.parse_args()
    if not args.tables:
        if not (args.data and args.backbones and args.text):
            parser.error("runs need --data, --backbones and --text; --tables needs none of them")
        jobs = [
            (CLAIMS[name], arm, CLAIMS[name].first_seed + seed)
            for seed in range(args.seeds or max(CLAIMS[name].seeds for name in args.claims))
            for name in args.claims
            if seed < (args.seeds or CLAIMS[name].seeds)
            if args.test or torch.cuda.is_available() or not CLAIMS[name].gpu
            for arm in CLAIMS[name].arms
            if not args.arms or arm in args.arms
        ]
        if args.test:
            bench = prepare(args)
            for job in jobs:
                run_test(bench, *job)
        else:
            missing = (job for job in jobs if is_missing(*job, args.recheck, args.again))  # each asked before its run
            for line in lines_of(missing, args):
                ledger.append(line)
                value = f"{line['metric']} {line['metrics'][line['metric']]:.2f}, {line['cpu_seconds']} s"
                print(f"{line['claim']} | {line['arm']} | seed {line['seed']}: {value}", flush=True)
    if args.test:
        print_test_tables(args.claims)
        return 0
    write_tables()
    write_plots(ledger.read())
    return 0


def prepare(args: argparse.Namespace) -> Bench:
    """What a process needs for its runs."""
    logging.set_verbosity_error()
    reuse_memory()
    torch.set_num_threads(args.threads)
    BENCHES.append(Bench(args.data, args.backbones, args.text, args.out, args.channels_last))
    return BENCHES[-1]


def lines_of(jobs: Iterable[tuple[Claim, str, int]], args: argparse.Namespace) -> Iterator[dict]:
    """Train each arm and seed, the first ones first; the lines as they come."""
    if args.jobs == 1:
        bench = prepare(args)
        yield from (run(bench, *job) for job in jobs)
        return
    with ProcessPoolExecutor(args.jobs, get_context("spawn"), prepare, (args,)) as pool:
        yield from (done.result() for done in as_completed([pool.submit(run_here, *job) for job in jobs]))


def run_here(claim: Claim, arm: str, seed: int) -> dict:
    """`run` in a process that is one of several."""
    return run(BENCHES[0], claim, arm, seed)


def is_missing(claim: Claim, arm: str, seed: int, recheck: bool = False, again: bool = False) -> bool:
    """Whether a run is to be made: its line is not there, or `recheck` asks for the seed, or `again` for any."""
    lines = ledger.read()
    runs = ledger.runs_of(lines, claim.name, arm)
    if recheck:
        return seed in ledger.seeds_to_repeat(runs, lines, code_of(claim, arm))
    return again or all(line["seed"] != seed for line in runs)


def run(bench: Bench, claim: Claim, arm: str, seed: int) -> dict:
    """Train one arm with one seed: its line of the ledger."""
    code = code_of(claim, arm)
    if not claim.gpu:
        fill_caches(bench, claim, arm)
    start, wall = time.process_time(), time.time()
    trainer = bench.train(claim, arm, seed)
    seconds, wall = time.process_time() - start, time.time() - wall
    trainer.evaluate()
    measured = measures(claim, trainer.last_embeds)
    rows = trainer.eval_dataset
    if claim.gpu:
        measured["device"] = torch.cuda.get_device_name()
    else:
        measured["metrics"] |= bench.graded(claim.data, rows, trainer.last_embeds, trainer.model.config)
    measured |= {"steps": sum(steps for _, steps in claim.arms[arm].stages), "texts": texts_read(claim, arm)}
    measured |= {"cpu_seconds": round(seconds), "wall_seconds": round(wall)}
    kept_runs.keep(trainer.model, kept_runs.file_of(bench.out, claim.name, arm, seed), code)
    return ledger.line_of(claim.name, arm, seed, claim.metric, code, **measured)


def measures(claim: Claim, embeds: tuple) -> dict:
    """Fields of a line: the metrics, and what each picture adds to the primary one.

    Where a claim has a gallery, it makes the metrics, and those over all pictures have `all_` before their names.
    """
    outcomes = protocol_outcomes("recall", *claim.searched(*embeds))
    shares = [round(float(share), 3) for share in shares_of_images(outcomes, claim.metric)]
    metrics = outcomes.metrics()
    if claim.gallery:
        metrics |= {f"all_{name}": value for name, value in protocol_outcomes("recall", *embeds).metrics().items()}
    return {"metrics": {name: round(value, 4) for name, value in metrics.items()}, "shares": shares}


def run_test(bench: Bench, claim: Claim, arm: str, seed: int):
    """Evaluate the kept weights of a run on the test split, unless that was done: a test split is read once."""
    path = kept_runs.file_of(bench.out, claim.name, arm, seed)
    if any(line["seed"] == seed for line in ledger.runs_of(ledger.read(ledger.TEST_LEDGER), claim.name, arm)):
        return
    trained = [line for line in ledger.runs_of(ledger.read(), claim.name, arm) if line["seed"] == seed]
    if not trained or not path.exists():
        print(f"{claim.name} | {arm} | seed {seed}: no kept weights in {path.parent}, left out", flush=True)
        return
    model, processor = bench.untrained(claim, arm)
    kept_runs.restore(model, path)
    rows = bench.test_rows(claim, arm)
    embeds = embed_rows(model, RowInputs(processor, rows), Accelerator(cpu=True))
    measured = measures(claim, embeds)
    measured["metrics"] |= bench.graded(f"{claim.data}-test", rows, embeds, model.config)
    measured |= {name: trained[0][name] for name in ("steps", "texts", "cpu_seconds", "wall_seconds")}
    line = ledger.line_of(claim.name, arm, seed, claim.metric, kept_runs.code_of_file(path), **measured)
    ledger.append(line | {"split": "test"}, ledger.TEST_LEDGER)


def print_test_tables(names: list[str]):
    """The tables of docs/results.md, of the test splits."""
    lines = ledger.read(ledger.TEST_LEDGER)
    for name in names:
        print(f"\n{name}, test split\n\n{table(CLAIMS[name], lines)}")


BENCHES: list[Bench] = []  # of this process: one
FILLED = set()


def fill_caches(bench: Bench, claim: Claim, arm: str):
    """Run one step of each stage, once a process, so that no run pays for the outputs of the frozen towers."""
    key = claim.data, claim.system, claim.arms[arm].captions, claim.arms[arm].stages[0][0], claim.arms[arm].flags
    if key not in FILLED:
        bench.train(claim, arm, 0, steps=1)
        FILLED.add(key)


if __name__ == "__main__":
    raise SystemExit(main())
