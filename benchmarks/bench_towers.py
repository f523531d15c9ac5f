"""B10 (towers): frozen towers on a CPU as caches, `index` and `evaluate` run them, beside a plain call of the tower.

    python benchmarks/bench_towers.py --vision $BACKBONES/mobilenet_v2

Ours runs in float32 and, as with `--dtype bfloat16`, in bfloat16. Each side is a process of its own, since the memory
of a process is set at its start; the sides take turns, and a figure is the median ratio of CPU seconds (user, system)
of REPEATS turns. In float32 the mean tokens of each picture must be equal; of bfloat16, their least cosine is printed.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys

import torch
from transformers import AutoModel, ViTConfig

PICTURES, BATCH = 64, 16
SIDES = ("plain", "float32", "bfloat16")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vision", required=True, help="folder of a convolutional tower")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--side", choices=SIDES, help="run one side (the script calls itself)")
    parser.add_argument("--tower", choices=("vision", "vit"), default="vision")
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args)))
        return 0
    for tower in ("vision", "vit"):
        turns = [{side: run_side(args, side, tower) for side in SIDES} for _ in range(args.repeats)]
        means = {side: torch.tensor(turns[0][side]["means"]) for side in SIDES}
        gap = float((means["plain"] - means["float32"]).abs().max())
        assert gap < 1e-4, f"the two differ by {gap}"
        cosine = float(torch.nn.functional.cosine_similarity(means["plain"], means["bfloat16"]).min())
        print(f"{tower}: plain {rate_of(turns, 'plain'):.0f} pictures/s of CPU time")
        for side in SIDES[1:]:
            ratios = [turn["plain"]["seconds"] / turn[side]["seconds"] for turn in turns]
            spread = f"{statistics.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"{tower}: {side} {rate_of(turns, side):.0f} pictures/s, {spread}", flush=True)
        print(f"{tower}: float32 within {gap:.1e}, least cosine of bfloat16 {cosine:.4f}", flush=True)
    return 0


def rate_of(turns: list[dict], side: str) -> float:
    """Pictures a second of CPU time, the median of all turns."""
    return PICTURES / statistics.median(turn[side]["seconds"] for turn in turns)


def run_side(args, side: str, tower: str) -> dict:
    """The measurement of one side, in a process of its own."""
    words = [sys.executable, __file__, "--vision", args.vision, "--side", side, "--tower", tower]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(args) -> dict:
    """CPU seconds for all pictures after a first batch, and each picture's mean token."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    small = ViTConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=6, intermediate_size=1536)
    tower = AutoModel.from_pretrained(args.vision) if args.tower == "vision" else AutoModel.from_config(small)
    tower.eval()
    pixels = torch.randn(PICTURES, 3, 224, 224)
    batches = [pixels[start : start + BATCH] for start in range(0, PICTURES, BATCH)]
    embed = plain(tower) if args.side == "plain" else ours(tower, args.side)
    list(embed(batches[:1]))
    before = cpu_seconds()
    tokens = embed(batches)
    seconds = cpu_seconds() - before
    means = torch.cat([part.float().flatten(2).mean(2) if part.dim() == 4 else part.float().mean(1) for part in tokens])
    return {"seconds": seconds, "means": means.tolist()}


def plain(tower):
    """Call the tower on each batch as it comes."""

    @torch.no_grad()
    def embed(batches):
        return [tower(pixel_values=batch).last_hidden_state for batch in batches]

    return embed


def ours(tower, dtype: str):
    """What caches, `index` and `evaluate` call."""
    from vsehub.files.memory import reuse_memory
    from vsehub.processing.batching import run_batches
    from vsehub.processing.half_precision import computing_in

    reuse_memory()

    def embed(batches):
        run = run_batches(
            batches, lambda batch: {"pixel_values": batch}, lambda inputs: tower(**inputs).last_hidden_state, "cpu"
        )
        with computing_in(dtype, tower, "cpu"):
            return [tokens for _, tokens in run]

    return embed


def cpu_seconds() -> float:
    """User and system time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    raise SystemExit(main())
