"""Ways to train two plain towers better on overhead images: shared targets, averaged weights, larger batches.

    python benchmarks/ablate_ways.py --data $DATA --backbones $BACKBONES --text $MINILM --out runs/ways

The base is the arm "two plain towers" of docs/protocol.md: frozen towers, 300 steps of 128 pairs. Each other setting
changes one thing:

- equal captions share targets: pairs of one wording are no longer each other's negatives (of 9,000 validation captions,
  2,848 are distinct);
- averaged weights: the mean of the weights after each step of the last third, or an exponential mean (0.98 a step);
- batches of 256 and 512: as many steps, so two and four times the pairs.

Resumable: a finished run is a line of `OUT/ways/results.jsonl`. `--report` prints the table alone.
"""

import argparse
import copy
from functools import partial
from pathlib import Path

import torch
from ablation import metrics_table, run_once
from arms import CLAIMS, PLAIN, Arm, Bench, Claim
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import set_seed
from transformers.utils import logging

from vsehub.files.memory import reuse_memory
from vsehub.training.pair_stage import train_pairs
from vsehub.training.pir_stages import objective_of

STEPS = 300
SAME = 1 - 1e-5  # cosine of two texts of one wording: their towers are frozen, and nothing is dropped
SETTINGS = {
    "two plain towers": {},
    "equal captions share targets": {"share": True},
    "averaged weights, last third": {"average": "mean"},
    "averaged weights, exponential": {"average": "ema"},
    "batches of 256": {"batch": 256},
    "batches of 512": {"batch": 512},
}
METRICS = ("mean_recall", "image_to_text_recall@1", "text_to_image_recall@1", "seconds")


class SharedTargets(nn.Module):
    """The objective, for which equal captions are captions of one image."""

    def __init__(self, objective: nn.Module):
        super().__init__()
        self.objective = objective

    def forward(self, pairs, epoch):
        """The objective of the same pairs, whose ids are the first pair of each wording or image."""
        texts, ids = pairs.text_embeds.detach(), pairs.image_ids
        alike = (texts @ texts.t() > SAME) | (ids[:, None] == ids[None])
        pairs = copy.copy(pairs)
        pairs.image_ids = alike.float().argmax(1)  # of the first that is alike
        return self.objective(pairs, epoch)


class Averaging(nn.Module):
    """The objective, which also averages the weights that it meets: those after each step but the last."""

    def __init__(self, objective: nn.Module, model: nn.Module, kind: str):
        super().__init__()
        self.objective, self.kind, self.step = objective, kind, 0
        function = get_ema_multi_avg_fn(0.98) if kind == "ema" else None
        self.kept = [model, AveragedModel(model, multi_avg_fn=function)]  # a list: neither is a part of the objective

    def forward(self, pairs, epoch):
        """The objective."""
        self.step += 1
        if self.kind == "ema" or self.step > STEPS * 2 // 3:
            self.kept[1].update_parameters(self.kept[0])
        return self.objective(pairs, epoch)


def train(bench: Bench, setting: dict, seed: int) -> dict:
    """Train one setting; its validation metrics."""
    flags = (*PLAIN, "--per_device_train_batch_size", str(setting.get("batch", 128)))
    arm = Arm((("retrieval", STEPS),), flags)
    claim: Claim = CLAIMS["pir"]
    args = bench.arguments(claim, arm, "retrieval", seed, STEPS)
    splits = bench.rows(claim, 5, args)
    set_seed(seed)
    model, processor = bench.fresh(claim, args)
    objective = objective_of(args.objective, legacy=False)
    if setting.get("share"):
        objective = SharedTargets(objective)
    if setting.get("average"):
        objective = Averaging(objective, model, setting["average"])
    trainer = train_pairs(model, processor, splits.train, splits.evaluation, args, objective)
    if setting.get("average"):
        trainer.model.load_state_dict(objective.kept[1].module.state_dict())
    return trainer.evaluate()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder that holds rsicd_aid/ in parquet")
    parser.add_argument("--backbones", required=True, help="folder that holds mobilenet_v2/")
    parser.add_argument("--text", required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--out", default="runs/results", help="caches and working files, as of results.py")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="names of settings")
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    results = Path(args.out) / "ways" / "results.jsonl"
    if not args.report:
        logging.set_verbosity_error()
        reuse_memory()
        torch.set_num_threads(1)
        bench = Bench(args.data, args.backbones, args.text, args.out)
        for seed in range(100, 100 + args.seeds):
            for name, setting in SETTINGS.items():
                if not args.only or name in args.only:
                    run_once(results, name, seed, partial(train, bench, setting, seed))
    print(metrics_table(results, METRICS))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
