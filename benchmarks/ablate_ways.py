"""Ways to more recall on photographs, one at a time: larger batches, averaged weights, views, nested widths.

    python benchmarks/ablate_ways.py --data $DATA --backbones $BACKBONES --text $MINILM --sets flickr8k rsicd_aid

Two plain towers on all five captions, frozen and cached as in docs/protocol.md; 300 steps of 128 pairs unless a way
says otherwise. A finished run is a line of `OUT/results.jsonl`, so a killed script goes on. `--report` prints the
tables alone.
"""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from ablation import metrics_table, report, run_once
from arms import Arm, Bench, Claim
from torch.nn import functional as F
from transformers.utils import logging

from vsehub.evaluation.protocols import protocol_outcomes
from vsehub.files.memory import reuse_memory

WIDTHS = (16, 32, 64)
CONSTANT = ("--lr_scheduler_type", "constant")
CROPS = ("--cache_views", "4", "--image_augmentation", "crop")


@dataclass(frozen=True)
class Way:
    """What is changed: steps and flags."""

    steps: int = 300
    flags: tuple[str, ...] = ()


WAYS = {
    "plain": Way(),
    "600 steps": Way(600),
    "batch 256": Way(flags=("--per_device_train_batch_size", "256")),
    "batch 512": Way(flags=("--per_device_train_batch_size", "512")),
    "batch 512, as many pairs": Way(75, ("--per_device_train_batch_size", "512")),
    "moving average of the weights, 0.98": Way(flags=("--average_weights", "0.98")),
    "constant rate": Way(flags=CONSTANT),
    "moving average, 0.98, constant rate": Way(flags=(*CONSTANT, "--average_weights", "0.98")),
    "moving average, 0.98, constant rate, 600 steps": Way(600, (*CONSTANT, "--average_weights", "0.98")),
    "moving average, 0.99, constant rate, 600 steps": Way(600, (*CONSTANT, "--average_weights", "0.99")),
    "moving average, 0.98, rate x 2": Way(flags=(*CONSTANT, "--average_weights", "0.98", "--learning_rate", "2e-3")),
    "four views": Way(flags=CROPS),
    "four views, 600 steps": Way(600, CROPS),
    "nested widths 16, 32, 64": Way(flags=("--matryoshka", *map(str, WIDTHS))),
    "hinge": Way(flags=("--align", "hinge", "--mean_warmup_epochs", "1")),
    "temperature 0.03": Way(flags=("--temperature", "0.03")),
    "width 512": Way(flags=("--projection_dim", "512")),
}


def train(bench: Bench, data: str, way: Way, seed: int) -> dict:
    """Train one way and return its metrics, those of the first numbers of the embeddings, too."""
    arm = Arm((("baseline", way.steps),), way.flags)
    claim = Claim(f"ways-{data}", data, "d2s", "rsum", "", {"way": arm})
    trainer = bench.train(claim, "way", seed)
    trainer.evaluate()
    images, texts, owners = trainer.last_embeds
    metrics = protocol_outcomes("recall", images, texts, owners).metrics()
    for width in WIDTHS:
        nested = (F.normalize(torch.as_tensor(embeds)[:, :width].float(), dim=1) for embeds in (images, texts))
        metrics[f"rsum, first {width}"] = protocol_outcomes("recall", *nested, owners).metrics()["rsum"]
    return metrics


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder that holds flickr8k/ and rsicd_aid/ in parquet")
    parser.add_argument("--backbones", help="folder that holds mobilenet_v2/")
    parser.add_argument("--text", help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--out", default="runs/ablate_ways")
    parser.add_argument("--caches", default="runs/results", help="the --out of results.py, whose caches are used again")
    parser.add_argument("--sets", nargs="+", default=["flickr8k", "rsicd_aid"])
    parser.add_argument("--only", nargs="*", help="names of ways")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    logging.set_verbosity_error()
    reuse_memory()
    torch.set_num_threads(1)
    bench = Bench(args.data, args.backbones, args.text, args.caches)
    for data in args.sets:
        results = Path(args.out) / data / "results.jsonl"
        jobs = [(name, seed) for seed in range(args.seeds) for name in WAYS if not args.only or name in args.only]
        for name, seed in () if args.report else jobs:
            run_once(results, name, seed, partial(train, bench, data, WAYS[name], seed))
        print(data, report(results, "rsum", "plain"), sep="\n")
        print(metrics_table(results, ("rsum", *(f"rsum, first {width}" for width in WIDTHS))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
