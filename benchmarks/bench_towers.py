"""B10 (towers): frozen towers on a CPU as caches, `index` and `evaluate` run them, beside a plain call of the tower.

    python benchmarks/bench_towers.py --vision $BACKBONES/mobilenet_v2

Each side is a process of its own, since the memory of a process is set at its start; the sides take turns, and the
figure is the median ratio of CPU seconds (user and system) of REPEATS turns. Both must give equal tokens.
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
SIDES = ("plain", "ours")


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
        gap = max(abs(turn["plain"]["mean"] - turn["ours"]["mean"]) for turn in turns)
        assert gap < 1e-5, f"the two differ by {gap}"
        ratios = [turn["plain"]["seconds"] / turn["ours"]["seconds"] for turn in turns]
        rates = {side: PICTURES / statistics.median(turn[side]["seconds"] for turn in turns) for side in SIDES}
        shown = ", ".join(f"{side} {rate:.0f} pictures/s of CPU time" for side, rate in rates.items())
        print(
            f"{tower}: {statistics.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f}); {shown}", flush=True
        )
    return 0


def run_side(args, side: str, tower: str) -> dict:
    """The measurement of one side, in a process of its own."""
    words = [sys.executable, __file__, "--vision", args.vision, "--side", side, "--tower", tower]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(args) -> dict:
    """CPU seconds for all pictures after a first batch, and the mean absolute token."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    small = ViTConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=6, intermediate_size=1536)
    tower = AutoModel.from_pretrained(args.vision) if args.tower == "vision" else AutoModel.from_config(small)
    tower.eval()
    pixels = torch.randn(PICTURES, 3, 224, 224)
    batches = [pixels[start : start + BATCH] for start in range(0, PICTURES, BATCH)]
    embed = ours(tower) if args.side == "ours" else plain(tower)
    list(embed(batches[:1]))
    before = cpu_seconds()
    total = sum(float(tokens.abs().mean()) for tokens in embed(batches))
    return {"seconds": cpu_seconds() - before, "mean": total / len(batches)}


def plain(tower):
    """Call the tower on each batch as it comes."""

    @torch.no_grad()
    def embed(batches):
        return [tower(pixel_values=batch).last_hidden_state for batch in batches]

    return embed


def ours(tower):
    """What caches, `index` and `evaluate` call."""
    from vsehub.files.memory import reuse_memory
    from vsehub.processing.batching import run_batches

    reuse_memory()

    def embed(batches):
        run = run_batches(
            batches, lambda batch: {"pixel_values": batch}, lambda inputs: tower(**inputs).last_hidden_state, "cpu"
        )
        return [tokens for _, tokens in run]

    return embed


def cpu_seconds() -> float:
    """User and system time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    raise SystemExit(main())
