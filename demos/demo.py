"""`vsehub demo`: the main job from nothing. Generated scenes, both stages, a Hub folder, a search in a clean process.

Leaves `runs/demo/hub/`, `runs/demo/search.png` and `runs/demo/metrics.json`. `--compare` trains D2S-VSE and a
sparse-only baseline at equal steps over three seeds and leaves `runs/demo/compare.json`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from datasets import load_dataset
from transformers.utils import logging

from ..data.arguments import DataArguments
from ..evaluation.evaluate import evaluate_model
from ..evaluation.tables import table
from ..training import run_d2s
from .generated_scenes import write_dataset, write_towers

RECIPE = Path(__file__).parents[1] / "training" / "recipes" / "d2s_vse_demo.yaml"
COUNTS = {"train": 2000, "validation": 300, "test": 300}


def main(argv: list[str] | None = None) -> int:
    """Run the demo, or the comparison."""
    parser = argparse.ArgumentParser("vsehub demo", description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/demo", help="where everything goes (default: %(default)s)")
    parser.add_argument("--compare", action="store_true", help="beside a sparse-only baseline, over 3 seeds")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    logging.set_verbosity_error()
    root = Path(args.out)
    write_dataset(root / "data", **COUNTS)
    return compare(root, seeds=(0, 1, 2)) if args.compare else demo(root, args.seed)


def demo(root: Path, seed: int) -> int:
    """Train, evaluate on the test split, and search the Hub folder from a process without vsehub."""
    results = {
        "stage 1 (dense text)": train(root, root, seed, ["pretrain"]),
        "D2S-VSE (both stages)": train(root, root, seed, ["finetune"], root / "pretrain" / "best"),
    }
    results["D2S-VSE (both stages)"]["seconds"] += results["stage 1 (dense text)"]["seconds"]
    (root / "metrics.json").write_text(json.dumps(results, indent=2))
    save_pictures(root / "data", root / "gallery")
    in_a_clean_process("demo_search.py", root / "hub", root / "gallery", root / "search.png")
    print(f"\n{COUNTS['test']} test scenes, {2 * COUNTS['test']} captions, seed {seed}; per cent\n{table(results)}\n")
    print(f"Hub folder {root / 'hub'}, picture {root / 'search.png'}, numbers {root / 'metrics.json'}")
    return 0


def train(data_root: Path, out: Path, seed: int, stages: list[str], stage1: Path | None = None) -> dict:
    """Run stages of the recipe and evaluate the result on the test split."""
    start = time.time()
    vision, text = write_towers(out / "towers", seed)
    flags = ["--data", str(data_root / "data"), "--vision", vision, "--text", text, "--output_dir", str(out)]
    flags += ["--seed", str(seed), *(["--stage1_model", str(stage1)] if stage1 else [])]
    print(f"\n== {' and '.join(stages)}, seed {seed} ==")
    run_d2s.main([str(RECIPE), *flags, "--stages", *stages])
    seconds = time.time() - start
    return {**evaluate_model(str(out / "hub"), DataArguments(data=str(data_root / "data")), "test"), "seconds": seconds}


def compare(root: Path, seeds: tuple[int, ...]) -> int:
    """Train both systems at equal optimisation steps for every seed; print means, deviations and the verdict."""
    runs = {"sparse only": [], "D2S-VSE": []}
    for seed in seeds:
        runs["sparse only"].append(train(root, root / f"compare-{seed}-sparse", seed, ["baseline"]))
        runs["D2S-VSE"].append(train(root, root / f"compare-{seed}-d2s", seed, ["pretrain", "finetune"]))
    named = {f"{name}, seed {seed}": run for name, found in runs.items() for seed, run in zip(seeds, found)}
    print(table(named))
    sums = {name: [run["rsum"] for run in found] for name, found in runs.items()}
    for name, values in sums.items():
        print(
            f"{name:12} rSum {statistics.mean(values):6.1f} +- {statistics.stdev(values):.1f} over seeds {list(seeds)}"
        )
    gain = statistics.mean(sums["D2S-VSE"]) - statistics.mean(sums["sparse only"])
    spread = max(statistics.stdev(values) for values in sums.values())
    print(f"D2S-VSE - sparse only: {gain:+.1f} rSum; the larger standard deviation is {spread:.1f}")
    (root / "compare.json").write_text(json.dumps({"runs": named, "gain": gain, "deviation": spread}, indent=2))
    return 0


def in_a_clean_process(script: str, *words):
    """Run a script of this folder in a process of its own, offline."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    path = Path(__file__).parent / script
    subprocess.run([sys.executable, str(path), *map(str, words)], check=True, env=environment)


def save_pictures(data: Path, folder: Path, facts: list[dict] | None = None):
    """Write the test scenes as files, and what is known of each (and `facts`) to `scenes.json`, for a judge."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, entries = load_dataset(str(data), split="test"), []
    label = rows.features.get("label")
    for index, row in enumerate(rows):
        row.pop("image").save(folder / f"{index:04}.png")
        named = {"label": label.int2str(row["label"])} if label else {}
        entries.append({"file": f"{index:04}.png", **row, **named, **(facts[index] if facts else {})})
    (folder / "scenes.json").write_text(json.dumps(entries))
