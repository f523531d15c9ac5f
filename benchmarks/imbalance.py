"""Does keeping the teachers' geometry help when texts are poor? A synthetic world, small towers, our losses.

    python benchmarks/imbalance.py --out runs/imbalance          (writes results.jsonl; --plot FILE draws it)

An image shows 12 attributes; its captions can name 8 of them, each token is dropped with probability p (and one in ten
is wrong). Contrastive training alone is compared with the paper's objective, with per-modality structure (`own`), with
towers that start as the teachers, and with `own` under a shuffled teacher. Every seed is a fresh world. Relevance is
the squared share of equal attributes. Resumable: a finished run is a line.
"""

import argparse
import math
import statistics
from functools import partial
from pathlib import Path

import numpy as np
import torch
from ablation import read, run_once
from torch import nn
from torch.nn import functional as F

from vsehub.evaluation.graded import graded_metrics
from vsehub.evaluation.ranking import image_text_metrics
from vsehub.losses import ContrastiveLoss
from vsehub.losses.objectives import PairEmbeddings, StructuredObjective
from vsehub.losses.structure import RepresentationLoss, StructureDistillationLoss

ATTRIBUTES, VALUES, MENTIONED, SYNONYMS, SCENES = 12, 8, 8, 3, 40
TRAIN, TEST, CAPTIONS, PIXELS, DIM = 2000, 500, 5, 128, 64
WORDS = 1 + MENTIONED * VALUES * SYNONYMS  # 0 is padding
DROPS = (0.0, 0.3, 0.5, 0.7)
CONFIGS = ("contrastive", "paper", "own", "start as teachers", "own, shuffled teacher")
TASKS = (
    "mean_recall",
    "image_to_image_ndcg@50",
    "text_to_text_ndcg@50",
    "image_to_mixed_ndcg@50",
    "text_to_mixed_ndcg@50",
)


class World:
    """Images, captions and what is true of them."""

    def __init__(self, drop: float, seed: int):
        self.rng = rng = np.random.default_rng((seed, 7))
        scenes = rng.integers(VALUES, size=(SCENES, ATTRIBUTES))
        count = TRAIN + TEST
        own, free = scenes[rng.integers(SCENES, size=count)], rng.integers(VALUES, size=(count, ATTRIBUTES))
        self.facts = np.where(rng.random((count, ATTRIBUTES)) < 0.6, own, free)
        mix = rng.normal(0, 1 / math.sqrt(ATTRIBUTES), (ATTRIBUTES * VALUES, PIXELS))
        hot = np.eye(VALUES)[self.facts].reshape(count, -1)
        self.clean = np.tanh(hot @ mix * 2).astype(np.float32)
        self.images = self.view(self.clean)
        self.captions = np.stack([self.speak(self.facts, drop) for _ in range(CAPTIONS)], 1)  # (count, 5, MENTIONED)

    def view(self, clean):
        """The same things under fresh noise."""
        return clean + self.rng.normal(0, 0.3, clean.shape).astype(np.float32)

    def speak(self, facts, drop):
        """One caption each: a token per mentioned attribute; 0 where it was dropped."""
        shape = (len(facts), MENTIONED)
        said = np.where(self.rng.random(shape) < 0.1, self.rng.integers(VALUES, size=shape), facts[:, :MENTIONED])
        tokens = 1 + (np.arange(MENTIONED) * VALUES + said) * SYNONYMS + self.rng.integers(SYNONYMS, size=shape)
        kept = self.rng.random(shape) >= drop
        kept[np.arange(len(facts)), self.rng.integers(MENTIONED, size=len(facts))] = True  # a caption says something
        return np.where(kept, tokens, 0)


class Tower(nn.Module):
    """An MLP over pixels, or over the mean of word vectors."""

    def __init__(self, words: bool):
        super().__init__()
        self.words = nn.EmbeddingBag(WORDS, PIXELS, mode="mean", padding_idx=0) if words else None
        self.layers = nn.Sequential(
            nn.Linear(PIXELS, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, DIM)
        )

    def forward(self, inputs):
        return self.layers(inputs if self.words is None else self.words(inputs))


def batches(seed: int, epochs: int, size: int = 128):
    """Shuffled (rows, captions) of the training pairs."""
    rng = np.random.default_rng((seed, 11))
    for _ in range(epochs):
        order = rng.permutation(TRAIN * CAPTIONS)
        for start in range(0, len(order) - size + 1, size):
            yield np.divmod(order[start : start + size], CAPTIONS)


def fit(modules, loss_of, seed: int, epochs: int):
    """AdamW over all modules; the rate falls to 0."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    steps = epochs * (TRAIN * CAPTIONS // 128)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for rows, places in batches(seed, epochs):
        loss = loss_of(rows, places)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def teachers(world: World, seed: int, epochs: int) -> tuple[Tower, Tower]:
    """Uni-modal teachers: NT-Xent between two noisy views of an image, between two captions of one."""
    torch.manual_seed(seed)
    image, text, contrast = Tower(False), Tower(True), ContrastiveLoss(0.1, learn_temperature=False)

    def of_images(rows, places):
        first, second = (torch.from_numpy(world.view(world.clean[rows])) for _ in range(2))
        return contrast(F.normalize(image(first), dim=-1), F.normalize(image(second), dim=-1), torch.from_numpy(rows))

    def of_texts(rows, places):
        first, second = world.captions[rows, places], world.captions[rows, (places + 1) % CAPTIONS]
        return contrast(
            *(F.normalize(text(torch.from_numpy(x)), dim=-1) for x in (first, second)), torch.from_numpy(rows)
        )

    fit([image], of_images, seed, epochs)
    fit([text], of_texts, seed, epochs)
    return image.eval(), text.eval()


def train(drop: float, config: str, seed: int, epochs: int) -> dict:
    """Train one system in one world; return its test metrics."""
    world = World(drop, seed)
    taught = teachers(world, seed, epochs)
    with torch.no_grad():
        images = taught[0](torch.from_numpy(world.images[:TRAIN]))
        texts = taught[1](torch.from_numpy(world.captions[:TRAIN].reshape(-1, MENTIONED))).view(TRAIN, CAPTIONS, DIM)
    if "shuffled" in config:
        order = torch.from_numpy(np.random.default_rng(seed).permutation(TRAIN))
        images, texts = images[order], texts[order]
    torch.manual_seed(seed + 1000)
    towers = taught if config == "start as teachers" else (Tower(False), Tower(True))
    objective = objective_of(config, images, texts)
    seen = torch.from_numpy(world.images)

    def loss_of(rows, places):
        image = F.normalize(towers[0](seen[rows]), dim=-1)
        raw = towers[1](torch.from_numpy(world.captions[rows, places]))
        ids = torch.from_numpy(rows)
        text = F.normalize(raw, dim=-1)
        return objective(
            PairEmbeddings(image, text, raw, ids, image_teacher=images[rows], text_teacher=texts[rows, places]), 0.0
        )[0]

    fit([*towers, objective], loss_of, seed, epochs)
    return measured(world, towers)


class Contrast(nn.Module):
    """InfoNCE as an objective."""

    def __init__(self):
        super().__init__()
        self.loss = ContrastiveLoss(0.07)

    def forward(self, pairs, epoch):
        """Return the loss and its parts."""
        loss = self.loss(pairs.image_embeds, pairs.text_embeds, pairs.image_ids)
        return loss, {"contrast": loss}


def objective_of(config: str, images, texts) -> nn.Module:
    """The objective of a configuration; the paper's has its weights and a learned balance."""
    if config in ("contrastive", "start as teachers"):
        return Contrast()
    paper = config == "paper"
    if paper:
        structure = StructureDistillationLoss("fused", learn_text_share=True)
    else:
        structure = StructureDistillationLoss(
            "own", image_mean=images.mean(0), text_mean=texts.flatten(end_dim=1).mean(0)
        )
    representation = {"image": (RepresentationLoss(DIM, DIM), 1.0), "text": (RepresentationLoss(DIM, DIM), 2.0)}
    return StructuredObjective(Contrast(), structure, 2.0, representation if paper else None)


@torch.no_grad()
def measured(world: World, towers) -> dict:
    """Recalls over the test pairs and NDCG by the share of equal attributes."""
    for tower in towers:
        tower.eval()
    images = F.normalize(towers[0](torch.from_numpy(world.images[TRAIN:])), dim=-1)
    texts = F.normalize(towers[1](torch.from_numpy(world.captions[TRAIN:].reshape(-1, MENTIONED))), dim=-1)
    owners, facts = np.repeat(np.arange(TEST), CAPTIONS), world.facts[TRAIN:]
    relevance = (facts[owners][:, None] == facts[None]).mean(-1).astype(np.float32) ** 2
    return {**image_text_metrics(images, texts, owners), **graded_metrics(images, texts, owners, relevance, ks=(50,))}


def interval(values: list[float]) -> str:
    """Mean and the half width of its 95 % interval (Student's t)."""
    t = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}.get(len(values), 1.96)
    return f"{statistics.mean(values):.1f} +- {t * statistics.stdev(values) / math.sqrt(len(values)):.1f}"


def table(path: Path) -> str:
    """One line for each drop and configuration."""
    lines = ["| drop | configuration | mR | I->I | T->T | I->I+T | T->I+T |", "|---|---|---|---|---|---|---|"]
    for drop in DROPS:
        for config in CONFIGS:
            rows = [row for row in read(path) if row["name"] == f"{config} at {drop}"]
            if len(rows) > 1:
                lines.append(
                    f"| {drop} | {config} | " + " | ".join(interval([r[task] for r in rows]) for task in TASKS) + " |"
                )
    return "\n".join(lines)


def plot(path: Path, target: str):
    """Draw mean recall and I->I against the drop."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, task, title in zip(axes, TASKS, ("mean recall, per cent", "image to image NDCG@50, per cent")):
        for config in CONFIGS:
            groups = [[r[task] for r in read(path) if r["name"] == f"{config} at {drop}"] for drop in DROPS]
            means, spread = [np.mean(g) for g in groups], [np.std(g, ddof=1) for g in groups]
            axis.errorbar(DROPS, means, spread, label=config, marker="o", markersize=3, capsize=2)
        axis.set(xlabel="share of dropped caption tokens", title=title)
    axes[0].legend(fontsize=8)
    figure.savefig(target, metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/imbalance")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--drops", type=float, nargs="+", default=DROPS)
    parser.add_argument("--plot", help="file to draw to")
    args = parser.parse_args()
    results = Path(args.out) / "results.jsonl"
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for drop in args.drops:
            for config in CONFIGS:
                run_once(results, f"{config} at {drop}", seed, partial(train, drop, config, seed, args.epochs))
    print(table(results))
    if args.plot:
        plot(results, args.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
