"""False negatives: captions of other pictures that fit, too, as targets or left out of the negatives of InfoNCE.

    python benchmarks/ablate_targets.py --data $DATA --backbones $BACKBONES --text $MINILM --sets rsicd_aid

Two plain towers on all five captions, as in `ways.py`, 300 steps of 128 pairs. How alike two captions are is the cosine
of the mean of their tokens in the frozen text tower.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import torch
from arms import PLAIN, Arm, Bench, Claim
from torch.nn import functional as F
from ways import run_ways

from vsehub.evaluation.protocols import protocol_outcomes
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


@contextmanager
def targets_of(way: Callable) -> Iterator[None]:
    """Put a way in the place of InfoNCE's targets, while a trainer runs.

    Args:
        way: how alike the captions are (N, N) and which belong to one picture (N, N) -> the targets and what is added
            to the scores, both (N, N).
    """
    alike = torch.empty(0)
    compute = RetrievalTrainer.compute_loss

    def compute_loss(trainer, model, inputs, *args, **kwargs):
        nonlocal alike
        mask = inputs.attention_mask[..., None].float()
        means = F.normalize((inputs.text_hidden_states.float() * mask).sum(1) / mask.sum(1), dim=-1)
        alike = means @ means.t()
        return compute(trainer, model, inputs, *args, **kwargs)

    def forward(loss, image_embeds, text_embeds, image_ids):
        scores = image_embeds @ text_embeds.t() / clamped(loss.temperature)
        target, added = way(alike, image_ids[:, None] == image_ids)
        target = target / target.sum(1, keepdim=True)
        ways = (both - (both + added).logsumexp(1, keepdim=True) for both in (scores, scores.t()))
        return -sum((target * each).sum(1).mean() for each in ways) / 2

    with (
        patch.object(RetrievalTrainer, "compute_loss", compute_loss),
        patch.object(ContrastiveLoss, "forward", forward),
    ):
        yield


def train(bench: Bench, data: str, way: str, seed: int) -> dict:
    """Train two plain towers one way and return its metrics."""
    system, stage = ("pir", "retrieval") if data == "rsicd_aid" else ("d2s", "baseline")
    arm = Arm(((stage, 300),), PLAIN if system == "pir" else ())
    claim = Claim(f"targets-{data}", data, system, "rsum", "", {"way": arm})
    with targets_of(WAYS[way]):
        trainer = bench.train(claim, "way", 100 + seed)
    trainer.evaluate()
    texts = [text for captions in bench.splits[data, 5].evaluation["captions"] for text in captions]
    return protocol_outcomes("recall", *trainer.last_embeds, texts=texts).metrics()


if __name__ == "__main__":
    run_ways(__doc__, WAYS, train, ["rsicd_aid", "flickr8k"], "mean_recall", METRICS)
