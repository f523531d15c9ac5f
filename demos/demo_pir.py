"""`vsehub demo-pir`: PIR from nothing. Generated overhead scenes, the prior, retrieval under it, belief maps.

Leaves `runs/demo-pir/hub/`, `runs/demo-pir/belief.png` and `runs/demo-pir/metrics.json`.
"""

import argparse
import json
import time
from pathlib import Path

from transformers.utils import logging

from ..data.arguments import DataArguments
from ..evaluation.evaluate import evaluate_model
from ..evaluation.tables import further_lines, table
from ..training import run_pir
from .demo import in_a_clean_process, save_pictures
from .generated_overhead import object_mask, seed_of, write_dataset, write_towers

RECIPE = Path(__file__).parents[1] / "training" / "recipes" / "pir_demo.yaml"
COUNTS = {"train": 2400, "validation": 320, "test": 320}
GRID = 8  # tokens a side


def main(argv: list[str] | None = None) -> int:
    """Train both stages, evaluate on the test split, and explain images from a process without vsehub."""
    parser = argparse.ArgumentParser("vsehub demo-pir", description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/demo-pir", help="where everything goes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    logging.set_verbosity_error()
    root, start = Path(args.out), time.time()
    write_dataset(root / "data", **COUNTS)
    flags = ["--data", str(root / "data"), "--output_dir", str(root), "--seed", str(args.seed)]
    for name, path in write_towers(root / "towers", args.seed).items():
        flags += [f"--{name}", path]
    run_pir.main([str(RECIPE), *flags])
    seconds = time.time() - start
    metrics = evaluate_model(str(root / "hub"), DataArguments(data=str(root / "data")), "test") | {"seconds": seconds}
    accuracy = json.loads((root / "validation.json").read_text())["prior"]["eval_accuracy"]
    (root / "metrics.json").write_text(json.dumps({"PIR": metrics, "prior_accuracy": accuracy}, indent=2))
    seed = seed_of("test")
    masks = [object_mask(seed, index, GRID).tolist() for index in range(COUNTS["test"])]
    save_pictures(root / "data", root / "gallery", [{"objects": mask} for mask in masks])
    in_a_clean_process("demo_belief.py", root / "hub", root / "gallery", root / "belief.png")
    print(f"\n{COUNTS['test']} test scenes, {3 * COUNTS['test']} captions, seed {args.seed}; per cent")
    print("\n".join([table({"PIR": metrics}), *further_lines(metrics)]))
    print(f"the prior knows {accuracy:.1f} % of the validation scenes' classes\n")
    print(f"Hub folder {root / 'hub'}, picture {root / 'belief.png'}, numbers {root / 'metrics.json'}")
    return 0
