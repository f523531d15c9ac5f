"""B7: gradient caching: memory of a step on a large batch beside a chunk's, and its time beside the plain step's.

    python benchmarks/bench_gradient_cache.py

For D2S-VSE's two stages and PIR, with towers that are trained: a step (forward, loss, backward) on `--batch` pairs in
chunks of `--chunk`, a plain step on as many pairs as a chunk, and a plain step on the whole batch. Each way runs in a
process of its own, in turn, `--repeats` times. Time is CPU time of one thread; peak memory is that of the process above
what it held before the step. Gradients must agree within 1e-4 of their largest number. Writes
runs/bench_gradient_cache.json, prints rows of docs/benchmarks.md.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import BertConfig, ViTConfig

from vsehub import D2SVSEModel, PIRModel
from vsehub.losses.objectives import D2SObjective, PairEmbeddings, PIRObjective
from vsehub.training.gradient_cache import GradientCache
from vsehub.training.inputs.batches import PairBatch

SYSTEMS = ("D2S-VSE, stage 1", "D2S-VSE, stage 2", "PIR")
SIDE, LENGTH = 96, 20  # pixels, tokens
# Big tensors are mapped one by one, so that what is freed leaves the process at once.
MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def build(system: str) -> torch.nn.Module:
    """A model without anything random."""
    shape = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    vision = ViTConfig(image_size=SIDE, patch_size=16, num_hidden_layers=6, **shape, **off)
    text = BertConfig(vocab_size=1000, num_hidden_layers=4, max_position_embeddings=64, **shape, **off)
    torch.manual_seed(0)
    if system == "PIR":
        kind, own = PIRModel, {"use_instruction": False, "dropout": 0.0, "filter_size": 10}
    else:
        own = {"use_decoder": system.endswith("2"), "text_dropout": 0.0, "size_augmentation": 0.0}
        kind, own = D2SVSEModel, own | {"decoder_layers": 2, "num_mask_tokens": 20}
    config = kind.config_class.from_vision_text_configs(vision, text, projection_dim=256, image_size=SIDE, **own)
    return kind(config).train()


def make_batch(size: int) -> PairBatch:
    """Random pairs, of which two share a picture."""
    draw = torch.Generator().manual_seed(1)
    lengths = torch.randint(5, LENGTH + 1, (size, 1), generator=draw)
    return PairBatch(
        image_ids=torch.arange(size) // 2,
        pixel_values=torch.randn(size, 3, SIDE, SIDE, generator=draw),
        input_ids=torch.randint(5, 1000, (size, LENGTH), generator=draw),
        attention_mask=(torch.arange(LENGTH) < lengths).long(),
        scene_labels=torch.randint(0, 30, (size,), generator=draw),
        dense_text_embeds=torch.randn(size, 256, generator=draw),
    )


def step(model: torch.nn.Module, batch: PairBatch, chunk: int | None):
    """Gradients of all weights."""
    objective = PIRObjective() if isinstance(model, PIRModel) else D2SObjective("infonce", ramp_epochs=0)
    model.zero_grad()
    cache = GradientCache(model, chunk) if chunk else None
    if cache is None:
        outputs = model(**batch.model_inputs())
        images, texts = outputs.vision_model_output.pooler_output, outputs.text_model_output.pooler_output
    else:
        images, texts = cache.embed(batch)
    pairs = PairEmbeddings(
        F.normalize(images, dim=-1), F.normalize(texts, dim=-1), texts, batch.image_ids, batch.dense_text_embeds,
        batch.scene_labels,
    )  # fmt: skip
    objective(pairs, 1.0)[0].backward()
    if cache is not None:
        cache.backward()


def measure(system: str, size: int, chunk: int | None, steps: int, out: str):
    """One process: seconds of each step and bytes above what it held before; gradients go to a file."""
    torch.set_num_threads(1)
    model, batch = build(system), make_batch(size)
    step(model, batch.rows(0, 4), None)  # gradients exist, kernels are chosen
    held = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    seconds = []
    for _ in range(steps):
        start = time.process_time()
        step(model, batch, chunk)
        seconds.append(time.process_time() - start)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) * 1024
    torch.save(
        {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}, out
    )
    print(json.dumps({"seconds": statistics.median(seconds), "bytes": peak - held}))


def in_process(*words: str) -> dict:
    """Measure in new processes."""
    command = [sys.executable, __file__, "--worker", *words]
    measured = {}
    for key, settings in (("seconds", {}), ("bytes", MEMORY)):  # mapping and unmapping takes time
        done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **settings})
        measured[key] = json.loads(done.stdout.splitlines()[-1])[key]
    return measured


def compare(system: str, args: argparse.Namespace, folder: Path) -> dict:
    """All three ways in turn."""
    ways = {"chunked": (args.batch, args.chunk), "chunk": (args.chunk, 0), "whole": (args.batch, 0)}
    results = {way: [] for way in ways}
    for _ in range(args.repeats):
        for way, (size, chunk) in ways.items():
            results[way].append(in_process(system, str(size), str(chunk), str(args.steps), str(folder / f"{way}.pt")))
    wanted, got = (torch.load(folder / f"{way}.pt") for way in ("whole", "chunked"))
    most = max(gradient.abs().max() for gradient in wanted.values())
    off = max(((got[name] - wanted[name]).abs().max() / most).item() for name in wanted)
    assert wanted.keys() == got.keys() and off < 1e-4, off
    medians = {
        way: {key: statistics.median(run[key] for run in runs) for key in ("seconds", "bytes")}
        for way, runs in results.items()
    }
    return {"system": system, "off": off, **medians}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--chunk", type=int, default=32)
    parser.add_argument("--steps", type=int, default=1, help="steps a process")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", default="runs/bench_gradient_cache.json")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        system, size, chunk, steps, out = args.worker
        measure(system, int(size), int(chunk) or None, int(steps), out)
        return 0
    folder = Path(args.out).parent
    folder.mkdir(parents=True, exist_ok=True)
    rows = [compare(system, args, folder) for system in SYSTEMS]
    for row in rows:
        memory = {way: row[way]["bytes"] / (1 << 20) for way in ("chunked", "chunk", "whole")}
        print(
            f"| B7 | {row['system']}: {args.batch} pairs in chunks of {args.chunk} | {memory['chunked']:.0f} MiB, "
            f"{memory['chunked'] / memory['chunk']:.2f} x of {args.chunk} pairs, whole {memory['whole']:.0f} MiB | "
            f"{row['chunked']['seconds'] / row['whole']['seconds']:.2f} x the plain step's time | "
            f"gradients within {row['off']:.1e} |"
        )
    Path(args.out).write_text(json.dumps(rows, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
