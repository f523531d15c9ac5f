"""False negatives: captions of other pictures that fit, too, as targets or left out of the negatives of InfoNCE.

    python benchmarks/ablate_targets.py --data $DATA --backbones $BACKBONES --text $MINILM --sets rsicd_aid

Two plain towers on all five captions, frozen and cached as in docs/protocol.md, 300 steps of 128 pairs. How alike two
captions are is the cosine of the mean of their tokens in the frozen text tower. A finished run is a line of
`OUT/results.jsonl`, so a killed script goes on. `--report` prints the tables alone.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from ablation import metrics_table, report, run_once
from arms import PLAIN, Arm, Bench, Claim
from torch.nn import functional as F
from transformers.utils import logging

from vsehub.evaluation.protocols import protocol_outcomes
from vsehub.files.memory import reuse_memory
from vsehub.losses.contrastive import ContrastiveLoss, clamped
from vsehub.training.trainer import RetrievalTrainer

EQUAL = 0.9999  # of a cosine: the same caption
METRICS = ("rsum", "mean_recall", "duplicate_aware_mean_recall")


def shared(above: float, alike: torch.Tensor, own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Captions more alike than that share the target."""
    targets = own | (alike > above)
    return targets.float(), torch.zeros_like(alike)


def left_out(above: float, alike: torch.Tensor, own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Captions more alike than that are no negatives."""
    return own.float(), torch.zeros_like(alike).masked_fill((alike > above) & ~own, -torch.inf)


def softened(share: float, temperature: float, alike: torch.Tensor, own: torch.Tensor):
    """A share of the target goes to all captions, by a softmax of how alike they are."""
    one = own.float() / own.sum(1, keepdim=True)
    return (1 - share) * one + share * (alike / temperature).softmax(1), torch.zeros_like(alike)


def weighed(strength: float, alike: torch.Tensor, own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Negatives weigh exp(-strength * cosine)."""
    return own.float(), torch.where(own, 0, -strength * alike.clamp(min=0))


WAYS: dict[str, Callable] = {
    "plain": partial(left_out, 2.0),
    "equal captions share the target": partial(shared, EQUAL),
    "equal captions are no negatives": partial(left_out, EQUAL),
    "captions alike by 0.9 are no negatives": partial(left_out, 0.9),
    "captions alike by 0.8 are no negatives": partial(left_out, 0.8),
    "captions alike by 0.9 share the target": partial(shared, 0.9),
    "0.3 of the target by likeness, temperature 0.05": partial(softened, 0.3, 0.05),
    "0.3 of the target by likeness, temperature 0.1": partial(softened, 0.3, 0.1),
    "negatives weighed by likeness, 2": partial(weighed, 2.0),
}


class Targets:
    """Puts a way in the place of InfoNCE's targets, while a trainer runs.

    Args:
        way: how alike the captions are (N, N) and which belong to one picture to targets and what is added to the
            scores, both (N, N).
    """

    def __init__(self, way: Callable):
        self.way, self.alike = way, torch.empty(0)

    def __enter__(self):
        compute, targets = RetrievalTrainer.compute_loss, self

        def compute_loss(trainer, model, inputs, *args, **kwargs):
            mask = inputs.attention_mask[..., None].float()
            means = F.normalize((inputs.text_hidden_states.float() * mask).sum(1) / mask.sum(1), dim=-1)
            targets.alike = means @ means.t()
            return compute(trainer, model, inputs, *args, **kwargs)

        def forward(loss, image_embeds, text_embeds, image_ids):
            scores = image_embeds @ text_embeds.t() / clamped(loss.temperature)
            target, added = targets.way(targets.alike, image_ids[:, None] == image_ids)
            target = target / target.sum(1, keepdim=True)
            ways = (both - (both + added).logsumexp(1, keepdim=True) for both in (scores, scores.t()))
            return -sum((target * way).sum(1).mean() for way in ways) / 2

        self.patches = (
            patch.object(RetrievalTrainer, "compute_loss", compute_loss),
            patch.object(ContrastiveLoss, "forward", forward),
        )
        for each in self.patches:
            each.start()

    def __exit__(self, *error):
        for each in self.patches:
            each.stop()


def train(bench: Bench, data: str, way: str, seed: int) -> dict:
    """Train two plain towers one way and return its metrics."""
    system, stage = ("pir", "retrieval") if data == "rsicd_aid" else ("d2s", "baseline")
    arm = Arm(((stage, 300),), PLAIN if system == "pir" else ())
    claim = Claim(f"targets-{data}", data, system, "rsum", "", {"way": arm})
    with Targets(WAYS[way]):
        trainer = bench.train(claim, "way", 100 + seed)
    trainer.evaluate()
    texts = [text for captions in bench.splits[data, 5].evaluation["captions"] for text in captions]
    return protocol_outcomes("recall", *trainer.last_embeds, texts=texts).metrics()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder that holds flickr8k/ and rsicd_aid/ in parquet")
    parser.add_argument("--backbones", help="folder that holds mobilenet_v2/")
    parser.add_argument("--text", help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--out", default="runs/ablate_targets")
    parser.add_argument("--caches", default="runs/results", help="the --out of results.py, whose caches are used again")
    parser.add_argument("--sets", nargs="+", default=["rsicd_aid", "flickr8k"])
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
            run_once(results, name, seed, partial(train, bench, data, name, seed))
        print(data, report(results, "mean_recall", "plain"), metrics_table(results, METRICS), sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
