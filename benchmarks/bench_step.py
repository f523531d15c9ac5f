"""B10, B11 (steps): a training step of D2S-VSE's second stage and of PIR, beside the algorithms of the official code.

    python benchmarks/bench_step.py --repeats 7

Both sides train the same small towers, 256 wide with 6 layers. D2S-VSE has a decoder that fits them, 128 wide, or the
paper's, which is 512 wide under towers of 768. Same weights and pictures; forward, backward and AdamW, one thread, CPU
seconds, in turn. Captions are as long as those of Flickr8k, dense texts have 100 to 200 tokens. The other side
  - runs the dense teacher in every step, as the official code does; ours has embedded the dense texts before (a second
    figure: without the teacher on either side);
  - pads all captions to the longest, and computes every row of every layer, each GRU once a caption (plain_models.py);
  - has the plain losses, and the affiliation as a loop over rows.
Without dropout, the losses of the two agree over 5 steps. A third figure bounds the first: the other side's time beside
that of the two towers alone (forward, backward, AdamW), which both sides need.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from bench_losses import looped_affiliation
from torch.nn import functional as F
from transformers import BertConfig, ResNetConfig, ViTConfig

from vsehub import D2SVSEConfig, D2SVSEModel, PIRConfig, PIRModel
from vsehub.losses.objectives import D2SObjective, PairEmbeddings, PIRObjective
from vsehub.modeling.towers import image_tokens, run_text_tower

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
import plain_losses  # noqa: E402
import plain_models  # noqa: E402

PAIRS, CLASSES = 16, 8
WIDTHS = {"D2S-VSE, stage 2": 128, "D2S-VSE, stage 2, the paper's decoder": 512}
VISION = ViTConfig(hidden_size=256, num_hidden_layers=6, num_attention_heads=4, intermediate_size=1024)
TEXT = BertConfig(hidden_size=256, num_hidden_layers=6, num_attention_heads=4, intermediate_size=1024)
PRIOR = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 1, 1], layer_type="basic")


class Side:
    """A model that is trained in one of two ways."""

    def __init__(self, model, plain: bool, dense: dict | None, online: bool):
        self.plain, self.dense, self.d2s, self.online = plain, dense, isinstance(model, D2SVSEModel), online
        self.teacher = dense and copy.deepcopy(model).requires_grad_(False)
        if self.teacher:
            self.teacher.mask_token_decoder = None
            self.vectors = self.teacher.eval().get_text_features(**dense).pooler_output
        self.model = (plain_models.plain(model) if plain else model).train()
        self.objective = D2SObjective(mean_warmup_epochs=0) if self.d2s else PIRObjective()
        weights = [p for p in [*self.model.parameters(), *self.objective.parameters()] if p.requires_grad]
        self.optimizer = torch.optim.AdamW(weights, lr=1e-4)

    def step(self, batch: dict, labels: torch.Tensor) -> float:
        output = self.model(**batch)
        ids = torch.arange(len(labels))
        loss = self.plain_loss(output, ids, labels) if self.plain else self.loss(output, ids, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def loss(self, output, ids, labels) -> torch.Tensor:
        vectors, dense = output.text_model_output.pooler_output, self.vectors if self.d2s else None
        pairs = PairEmbeddings(output.image_embeds, output.text_embeds, vectors, ids, dense, labels)
        return self.objective(pairs, 2.0)[0]

    def plain_loss(self, output, ids, labels) -> torch.Tensor:
        images, texts = output.image_embeds, output.text_embeds
        if not self.d2s:
            tau, other = self.objective.contrast.temperature, self.objective.affiliation.temperature
            return plain_losses.contrast(images, texts, ids, tau) + looped_affiliation(images, texts, labels, other)
        dense = self.vectors
        if self.online:
            with torch.no_grad():
                dense = self.teacher.get_text_features(**self.dense).pooler_output
        distance = 1 - F.cosine_similarity(output.text_model_output.pooler_output, dense).mean()
        return plain_losses.hinge(images, texts, ids, True) + distance


class TowersAlone:
    """The vision and the text tower of a model, trained on the sum of their outputs."""

    def __init__(self, model):
        self.vision, self.text = model.vision_model.train(), model.text_model.train()
        weights = [
            weight for tower in (self.vision, self.text) for weight in tower.parameters() if weight.requires_grad
        ]
        self.optimizer = torch.optim.AdamW(weights, lr=1e-4)

    def step(self, batch: dict, labels: torch.Tensor):
        words = {name: batch[name] for name in ("input_ids", "attention_mask")}
        _, hidden = run_text_tower(self.text, **words)
        loss = image_tokens(self.vision, batch["pixel_values"]).mean() + hidden.mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def texts(lengths: torch.Tensor) -> dict[str, torch.Tensor]:
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    return {"input_ids": torch.randint(1000, 20000, mask.shape) * mask, "attention_mask": mask}


def sides(system: str, dropout: bool, online: bool = True) -> dict[str, Side | TowersAlone]:
    """The ways to train one model; every weight is trained, but PIR's prior and the temperatures."""
    torch.manual_seed(0)
    towers = copy.deepcopy(VISION), copy.deepcopy(TEXT)
    if not dropout:
        towers[1].hidden_dropout_prob = towers[1].attention_probs_dropout_prob = 0.0
    dense = None
    if system in WIDTHS:
        off = {} if dropout else {"text_dropout": 0.0, "size_augmentation": 0.0}
        width = WIDTHS[system]
        model = D2SVSEModel(D2SVSEConfig.from_vision_text_configs(*towers, image_size=224, projection_dim=width, **off))
        dense = texts(torch.randint(100, 201, (PAIRS,)))
    else:
        off = {} if dropout else {"dropout": 0.0}
        prior = PRIOR.to_dict()
        model = PIRModel(PIRConfig.from_vision_text_configs(*towers, instruction_config=prior, **off))
    two = {name: Side(copy.deepcopy(model), name == "plain", dense, online) for name in ("plain", "ours")}
    return {**two, "towers": TowersAlone(model)}


def batch_of() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Pairs with captions of 7 to 30 tokens, 14 in the middle, as in Flickr8k."""
    lengths = (14 * torch.randn(PAIRS).mul(0.35).exp()).round().clamp(7, 30).long()
    return {**texts(lengths), "pixel_values": torch.randn(PAIRS, 3, 224, 224)}, torch.randint(0, CLASSES, (PAIRS,))


def measure(system: str, online: bool, repeats: int) -> dict:
    equal, batch = sides(system, dropout=False), batch_of()
    gap = max(abs(a - b) for a, b in ((equal["plain"].step(*batch), equal["ours"].step(*batch)) for _ in range(5)))
    assert gap < 1e-3, f"{system}: the losses differ by {gap}"
    both, seconds = sides(system, dropout=True, online=online), {"plain": [], "ours": [], "towers": []}
    for turn in range(repeats + 1):  # the first one warms up
        batch = batch_of()
        for name, side in sorted(both.items(), reverse=turn % 2 == 0):
            before = time.process_time()
            side.step(*batch)
            seconds[name] += [time.process_time() - before] if turn else []
    ratios = [a / b for a, b in zip(seconds["plain"], seconds["ours"])]
    bound = statistics.median(a / b for a, b in zip(seconds["plain"], seconds["towers"]))
    medians = {name: round(statistics.median(values), 3) for name, values in seconds.items()}
    system += "" if online else ", teacher computed before on both sides"
    row = {"system": system, "ratio": statistics.median(ratios), "ratios": ratios, "bound": bound}
    return {**row, "seconds": medians, "gap": gap}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for system, online in (*((name, way) for name in WIDTHS for way in (True, False)), ("PIR", True)):
        row = measure(system, online, args.repeats)
        low, high = min(row["ratios"]), max(row["ratios"])
        print(
            f"{row['system']}: {row['ratio']:.2f} x faster ({low:.2f} to {high:.2f}); losses within {row['gap']:.0e}; "
            f"{row['bound']:.2f} x if all but the towers took no time"
        )
        print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
