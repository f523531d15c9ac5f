"""The main job from nothing. Generated scenes, both stages, a Hub folder, a search in a clean process.

`demo` leaves `hub/`, `search.png` and `metrics.json` in its folder. `compare` trains D2S-VSE and a sparse-only baseline
at equal steps over several seeds and leaves `compare.json`.
"""

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
from ..files.whole import whole_folder, write_json
from ..training import run_d2s
from .generated_scenes import write_dataset, write_towers

RECIPE = Path(__file__).parents[1] / "training" / "recipes" / "d2s_vse_demo.yaml"
COUNTS = {"train": 2000, "validation": 300, "test": 300}


def demo(out: str | Path, seed: int = 0) -> tuple[str, dict]:
    """Train, evaluate on the test split, and search the Hub folder from a process without vsehub.

    Returns:
        The results in words, and the metrics of each stage.
    """
    root = Path(out)
    logging.set_verbosity_error()
    write_dataset(root / "data", **COUNTS)
    results = {
        "stage 1 (dense text)": train(root, root, seed, ["pretrain"]),
        "D2S-VSE (both stages)": train(root, root, seed, ["finetune"], root / "pretrain" / "best"),
    }
    results["D2S-VSE (both stages)"]["seconds"] += results["stage 1 (dense text)"]["seconds"]
    write_json(root / "metrics.json", results)
    save_pictures(root / "data", root / "gallery")
    in_a_clean_process("demo_search.py", root / "hub", root / "gallery", root / "search.png")
    text = f"""
{COUNTS["test"]} test scenes, {2 * COUNTS["test"]} captions, seed {seed}; per cent
{table(results)}

Hub folder {root / "hub"}, picture {root / "search.png"}, numbers {root / "metrics.json"}"""
    return text, results


def train(data_root: Path, out: Path, seed: int, stages: list[str], stage1: Path | None = None) -> dict:
    """Run stages of the recipe and evaluate the result on the test split."""
    start = time.time()
    vision, text = write_towers(out / "towers", seed)
    flags = ["--data", str(data_root / "data"), "--vision", vision, "--text", text, "--output_dir", str(out)]
    flags += ["--seed", str(seed), *(["--stage1_model", str(stage1)] if stage1 else [])]
    print(f"\n== {' and '.join(stages)}, seed {seed} ==", file=sys.stderr)
    run_d2s.main([str(RECIPE), *flags, "--stages", *stages])
    seconds = time.time() - start
    return {**evaluate_model(str(out / "hub"), DataArguments(data=str(data_root / "data")), "test"), "seconds": seconds}


def compare(out: str | Path, seeds: tuple[int, ...]) -> tuple[str, dict]:
    """Train both systems at equal optimisation steps for every seed.

    Returns:
        Table, means, deviations and the verdict in words; and the same as numbers.
    """
    root, runs = Path(out), {"sparse only": [], "D2S-VSE": []}
    logging.set_verbosity_error()
    write_dataset(root / "data", **COUNTS)
    for seed in seeds:
        runs["sparse only"].append(train(root, root / f"compare-{seed}-sparse", seed, ["baseline"]))
        runs["D2S-VSE"].append(train(root, root / f"compare-{seed}-d2s", seed, ["pretrain", "finetune"]))
    named = {f"{name}, seed {seed}": run for name, of_seeds in runs.items() for seed, run in zip(seeds, of_seeds)}
    sums = {name: [run["rsum"] for run in of_seeds] for name, of_seeds in runs.items()}
    gain = statistics.mean(sums["D2S-VSE"]) - statistics.mean(sums["sparse only"])
    spread = max(statistics.stdev(values) for values in sums.values())
    lines = [table(named)]
    for name, values in sums.items():
        mean, deviation = statistics.mean(values), statistics.stdev(values)
        lines.append(f"{name:12} rSum {mean:6.1f} +- {deviation:.1f} over seeds {list(seeds)}")
    lines.append(f"D2S-VSE - sparse only: {gain:+.1f} rSum; the larger standard deviation is {spread:.1f}")
    results = {"runs": named, "gain": gain, "deviation": spread}
    write_json(root / "compare.json", results)
    return "\n".join(lines), results


def in_a_clean_process(script: str, *words):
    """Run a script of this folder in a process of its own, offline, with the files of `plots/` to draw with.

    What it says is progress, and goes where progress goes.
    """
    here = Path(__file__).parent
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    environment["PYTHONPATH"] = str(here.parent / "plots")
    command = [sys.executable, str(here / script), *map(str, words)]
    subprocess.run(command, check=True, env=environment, stdout=sys.stderr)


def save_pictures(data: Path, folder: Path, facts: list[dict] | None = None):
    """Write the test scenes as files, and what is known of each (and `facts`) to `scenes.json`, for a judge."""
    rows, entries = load_dataset(str(data), split="test"), []
    label = rows.features.get("label")
    with whole_folder(folder) as draft:
        for index, row in enumerate(rows):
            row.pop("image").save(draft / f"{index:04}.png")
            named = {"label": label.int2str(row["label"])} if label else {}
            entries.append({"file": f"{index:04}.png", **row, **named, **(facts[index] if facts else {})})
        (draft / "scenes.json").write_text(json.dumps(entries))
