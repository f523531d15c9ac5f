"""Training steps on one GPU: pairs per second, share of the GPU's peak (MFU) and peak memory, in one table.

    python benchmarks/gpu/steps.py --json steps.json          (eager rows: 3 to 4 minutes; compiled ones come last)
    python benchmarks/gpu/steps.py --ways "*compiled"         (the rows with names like one of these)
    python benchmarks/gpu/steps.py --profile                  (which operators the time of one step goes to)
    python benchmarks/gpu/steps.py --waits                    (the lines at which a step waits for the card)

Random weights of the published towers: ViT-B/16 and BERT-base for D2S-VSE with its decoder of 100 mask tokens, Swin-T,
BERT-base and a ResNet-50 prior for PIR. 224 pixels, captions of 20 tokens, dense texts of 200; fused AdamW over all
weights, clipping, gradients set to None. The data lie on the GPU already, so no data loader is waited for.

MFU = pairs/s x (floating-point operations of the model's forward and backward pass over one pair) / peak. Operations
are those of matrix products, convolutions and attention, as `torch.utils.flop_counter` counts them; what is computed
twice to save memory counts once, and an online teacher not at all. The peak is that of dense bfloat16.

Needs torch, transformers and accelerate.
"""

import argparse
import contextlib
import json
import statistics
import time
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from fnmatch import fnmatch

import torch
from accelerate.utils import compile_regions
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, ResNetConfig, SwinConfig, ViTConfig

from vsehub import D2SVSEConfig, D2SVSEModel, PIRConfig, PIRModel
from vsehub.losses.objectives import D2SObjective, PairEmbeddings, PIRObjective
from vsehub.training.gradient_cache import GradientCache
from vsehub.training.inputs.batches import PairBatch

PEAKS = {"H100": 989.4e12, "H200": 989.4e12, "A100": 312e12}  # bfloat16, dense, of the SXM cards
SIZE, CAPTION, DENSE, CLASSES = 224, 20, 200, 30
STAGES = ("D2S-VSE stage 1", "D2S-VSE stage 2", "PIR")


@dataclass(frozen=True)
class Way:
    """What one row measures.

    Args:
        stage: of `STAGES`.
        batch: pairs of a step.
        dtype: of mixed precision; float32 is TF32.
        compiled: each repeated block by itself (`torch.compile`, regional).
        online: the dense teacher reads the dense texts in each step.
        chunk: pairs that go through the model at once (gradient caching); 0: all.
        fused: AdamW in one kernel, instead of one for each operation over all weights (`foreach`).
    """

    stage: str
    batch: int
    dtype: torch.dtype = torch.bfloat16
    compiled: bool = False
    online: bool = False
    chunk: int = 0
    fused: bool = True

    def __str__(self) -> str:
        marks = {
            "compiled": self.compiled,
            "online teacher": self.online,
            f"chunks of {self.chunk}": self.chunk,
            "AdamW not fused": not self.fused,
        }
        kind = "TF32" if self.dtype == torch.float32 else "bf16"
        return ", ".join([self.stage, f"batch {self.batch}", kind, *(mark for mark, on in marks.items() if on)])


WAYS = [
    *(Way("D2S-VSE stage 2", batch) for batch in (128, 256, 512, 1024)),
    Way("D2S-VSE stage 2", 128, dtype=torch.float32),
    Way("D2S-VSE stage 2", 256, fused=False),
    Way("D2S-VSE stage 2", 256, online=True),
    Way("D2S-VSE stage 2", 1024, chunk=256),
    Way("D2S-VSE stage 2", 1024, chunk=512),
    Way("D2S-VSE stage 2", 4096, chunk=256),
    *(Way("D2S-VSE stage 1", batch) for batch in (128, 256)),
    *(Way("PIR", batch) for batch in (128, 256, 512)),
    *(Way("D2S-VSE stage 2", batch, compiled=True) for batch in (512, 256, 1024)),
    Way("D2S-VSE stage 1", 256, compiled=True),
    Way("PIR", 256, compiled=True),
]


class Training:
    """A model, its objective and its optimizer on a device, and one batch."""

    def __init__(self, way: Way, device: str, tiny: bool = False):
        torch.manual_seed(0)
        self.way, self.device = way, device
        with torch.device(device):
            self.model = model_of(way.stage, tiny).train()
        self.objective = (PIRObjective() if way.stage == "PIR" else D2SObjective(mean_warmup_epochs=0)).to(device)
        weights = [p for p in [*self.model.parameters(), *self.objective.parameters()] if p.requires_grad]
        self.weights, self.teacher = weights, None
        if way.online:
            with torch.device(device):
                self.teacher = model_of("D2S-VSE stage 1", tiny).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(weights, lr=1e-5, **({"fused": True} if way.fused else {"foreach": True}))
        self.batch = self.pairs(way.batch)
        self.cache = GradientCache(self.model, way.chunk, self.autocast) if way.chunk else None
        self.run = compile_regions(self.model) if way.compiled else self.model

    def autocast(self):
        """As accelerate does: the model alone runs in mixed precision."""
        half = self.way.dtype != torch.float32
        return torch.autocast(torch.device(self.device).type, self.way.dtype) if half else contextlib.nullcontext()

    def pairs(self, count: int) -> PairBatch:
        """Random pairs of one size."""
        length, tiny = DENSE if self.way.stage == "D2S-VSE stage 1" else CAPTION, self.model.config.projection_dim < 100

        def tokens(of: int) -> torch.Tensor:
            return torch.randint(5, 90 if tiny else 20000, (count, of), device=self.device)

        size = self.model.config.image_size
        batch = PairBatch(
            image_ids=torch.arange(count, device=self.device),
            pixel_values=torch.randn(count, 3, size, size, device=self.device),
            input_ids=tokens(length),
            attention_mask=torch.ones(count, length, dtype=torch.long, device=self.device),
            scene_labels=torch.randint(0, CLASSES, (count,), device=self.device),
        )
        if self.way.stage == "D2S-VSE stage 2":
            width = self.model.config.projection_dim
            batch.dense_text_embeds = torch.randn(count, width, device=self.device)
            batch.dense_input_ids = tokens(DENSE)
            batch.dense_attention_mask = torch.ones_like(batch.dense_input_ids)
        return batch

    def loss(self, batch: PairBatch) -> torch.Tensor:
        """Forward pass and objective."""
        if self.cache is not None:
            images, texts = self.cache.embed(batch)
            embeds = torch.nn.functional.normalize(images, dim=-1), torch.nn.functional.normalize(texts, dim=-1), texts
        else:
            with self.autocast():
                output = self.run(**batch.model_inputs())
            vectors = output.text_model_output.pooler_output
            embeds = tuple(part.float() for part in (output.image_embeds, output.text_embeds, vectors))
        dense = batch.dense_text_embeds
        if self.teacher is not None:
            with torch.no_grad(), self.autocast():
                dense = self.teacher.get_text_features(
                    batch.dense_input_ids, attention_mask=batch.dense_attention_mask
                ).pooler_output.float()
        labels = batch.scene_labels if self.way.stage == "PIR" else None
        return self.objective(PairEmbeddings(*embeds, batch.image_ids, dense, labels), 2.0)[0]

    def step(self) -> torch.Tensor:
        """One step of training."""
        loss = self.loss(self.batch)
        loss.backward()
        if self.cache is not None:
            self.cache.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 2.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def operations(self, pairs: int = 4) -> float:
        """Floating-point operations of the model's forward and backward pass over one pair."""
        with FlopCounterMode(display=False) as counter, self.autocast():
            output = self.model(**self.pairs(pairs).model_inputs())
            (output.image_embeds.sum() + output.text_embeds.sum()).backward()
        self.optimizer.zero_grad(set_to_none=True)
        return counter.get_total_flops() / pairs


def model_of(stage: str, tiny: bool = False):
    """An untrained model with the published towers, or with tiny ones, to try this script on a CPU."""
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    text = BertConfig(vocab_size=100, **small) if tiny else BertConfig()
    if stage == "PIR":
        vision = ViTConfig(image_size=32, patch_size=8, **small) if tiny else SwinConfig()
        sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"} if tiny else {}
        options = {"image_size": 32, "projection_dim": 32, "attention_heads": 2} if tiny else {"image_size": SIZE}
        prior = ResNetConfig(**sizes).to_dict()
        return PIRModel(PIRConfig.from_vision_text_configs(vision, text, instruction_config=prior, **options))
    vision = ViTConfig(image_size=32, patch_size=8, **small) if tiny else ViTConfig()
    options = {"image_size": 32, "projection_dim": 32, "num_mask_tokens": 4} if tiny else {"image_size": SIZE}
    decoder = stage.endswith("2")
    return D2SVSEModel(D2SVSEConfig.from_vision_text_configs(vision, text, use_decoder=decoder, **options))


def measure(way: Way, device: str, steps: int, tiny: bool = False) -> dict:
    """The figures of one row; memory that does not suffice is a row, too."""
    cuda = device == "cuda"
    try:
        training = Training(way, device, tiny)
        operations = training.operations()
        begun = time.perf_counter()
        warm = [training.step() for _ in range(3)]
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        warmup, seconds = time.perf_counter() - begun, []
        for _ in range(steps):
            before = time.perf_counter()
            loss = training.step()
            if cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - before)
        assert torch.isfinite(torch.stack([*warm, loss])).all(), f"{way}: the loss is not finite"
        memory = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0
    except torch.OutOfMemoryError:
        return {"way": str(way), "error": "out of memory"}
    median = statistics.median(seconds)
    name = torch.cuda.get_device_name() if cuda else "cpu"
    peak = next((rate for key, rate in PEAKS.items() if key in name), float("nan"))
    return {
        "way": str(way),
        "ms": 1000 * median,
        "fastest_ms": 1000 * min(seconds),
        "slowest_ms": 1000 * max(seconds),
        "pairs_per_second": way.batch / median,
        "gflop_per_pair": operations / 1e9,
        "mfu": way.batch / median * operations / peak,
        "peak_gib": memory,
        "first_steps_s": warmup,
    }


def line(row: dict) -> str:
    """A row of the table."""
    if "error" in row:
        return f"| {row['way']} | {row['error']} | | | | |"
    spread = f"{row['ms']:.1f} ({row['fastest_ms']:.1f} to {row['slowest_ms']:.1f})"
    cells = f"{row['pairs_per_second']:.0f} | {row['gflop_per_pair']:.0f} | {row['mfu']:.1%} | {row['peak_gib']:.1f}"
    return f"| {row['way']} | {spread} | {cells} |"


def profile(way: Way, device: str):
    """Print the operators of three steps by their own time on the GPU."""
    training = Training(way, device)
    for _ in range(3):
        training.step()
    with torch.profiler.profile(activities=list(torch.profiler.supported_activities())) as recorded:
        for _ in range(3):
            training.step()
        torch.cuda.synchronize()
    print(recorded.key_averages().table(sort_by="self_cuda_time_total", row_limit=40, max_name_column_width=70))


def waits(way: Way, device: str):
    """Print the lines of Python at which a step waits until the card has done what it was given."""
    training = Training(way, device)
    for _ in range(3):
        training.step()
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        training.step()
    torch.cuda.set_sync_debug_mode("default")
    waited = [found for found in caught if "synchronizing" in str(found.message)]
    for place, count in Counter(f"{found.filename}:{found.lineno}" for found in waited).most_common():
        print(f"{way}: {count} x {place}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--stage", choices=STAGES, help="this one alone")
    parser.add_argument("--batch", type=int, help="this size alone")
    parser.add_argument("--ways", nargs="+", default=["*"], metavar="PATTERN", help="the rows whose names are like one")
    parser.add_argument("--profile", action="store_true", help="of a step on 256 pairs, or as --batch says")
    parser.add_argument("--waits", action="store_true", help="the same, of where a step waits")
    parser.add_argument("--tiny", action="store_true", help="tiny towers on the CPU, to try this script")
    parser.add_argument("--json")
    args = parser.parse_args()
    device = "cpu" if args.tiny else "cuda"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    if args.profile or args.waits:
        for stage in [args.stage] if args.stage else STAGES:
            (profile if args.profile else waits)(Way(stage, args.batch or 256), device)
        return 0
    print(torch.cuda.get_device_name() if device == "cuda" else "CPU", "torch", torch.__version__)
    print("| way | ms a step | pairs/s | GFLOP a pair | MFU | peak GiB |\n|---|---|---|---|---|---|")
    rows = []
    for way in WAYS:
        if way.stage != (args.stage or way.stage) or way.batch != (args.batch or way.batch):
            continue
        if not any(fnmatch(str(way), pattern) for pattern in args.ways):
            continue
        if args.tiny and way.compiled:  # minutes on a CPU
            continue
        way = replace(way, batch=8, chunk=way.chunk and 4) if args.tiny else way
        rows.append(measure(way, device, args.steps, args.tiny))
        print(line(rows[-1]), flush=True)
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.compiler.reset()  # another batch would be compiled for any size, which is slower
        if args.json:
            with open(args.json, "w") as file:
                json.dump(rows, file, indent=1)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
