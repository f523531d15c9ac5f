"""Ways to more recall on photographs, one at a time: larger batches, averaged weights, views, nested widths.

    python benchmarks/ablate_ways.py --data $DATA --backbones $BACKBONES --text $MINILM --sets flickr8k rsicd_aid

Two plain towers on all five captions, as in `ways.py`; 300 steps of 128 pairs unless a way says otherwise.
"""

from dataclasses import dataclass

import torch
from arms import Arm, Bench, Claim
from torch.nn import functional as F
from ways import run_ways

from vsehub.evaluation.protocols import protocol_outcomes

WIDTHS = (16, 32, 64)
NESTED = "rsum, first {}"
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


def train(bench: Bench, data: str, name: str, seed: int) -> dict:
    """Train one way and return its metrics, those of the first numbers of the embeddings, too."""
    way = WAYS[name]
    arm = Arm((("baseline", way.steps),), way.flags)
    claim = Claim(f"ways-{data}", data, "d2s", "rsum", "", {"way": arm})
    trainer = bench.train(claim, "way", seed)
    trainer.evaluate()
    images, texts, owners = trainer.last_embeds
    metrics = protocol_outcomes("recall", images, texts, owners).metrics()
    for width in WIDTHS:
        nested = (F.normalize(torch.as_tensor(embeds)[:, :width].float(), dim=1) for embeds in (images, texts))
        metrics[NESTED.format(width)] = protocol_outcomes("recall", *nested, owners).metrics()["rsum"]
    return metrics


if __name__ == "__main__":
    run_ways(__doc__, WAYS, train, ["flickr8k", "rsicd_aid"], "rsum", ("rsum", *(NESTED.format(w) for w in WIDTHS)))
