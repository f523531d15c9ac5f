"""PIR from nothing. Generated overhead scenes, the prior, retrieval under it, belief maps.

Leaves `hub/`, `belief.png` and `metrics.json` in its folder.
"""

import json
import time
from pathlib import Path

from transformers.utils import logging

from ..data.arguments import DataArguments
from ..evaluation.evaluate import evaluate_model
from ..evaluation.tables import further_lines, table
from ..files.whole import write_json
from ..training import run_pir
from .demo import in_a_clean_process, save_pictures
from .generated_overhead import object_mask, seed_of, write_dataset, write_towers

RECIPE = Path(__file__).parents[1] / "training" / "recipes" / "pir_demo.yaml"
COUNTS = {"train": 2400, "validation": 320, "test": 320}
GRID = 8  # tokens a side


def demo(out: str | Path, seed: int = 0) -> tuple[str, dict]:
    """Train both stages, evaluate on the test split, and explain images from a process without vsehub.

    Returns:
        The results in words, and as numbers.
    """
    logging.set_verbosity_error()
    root, start = Path(out), time.time()
    write_dataset(root / "data", **COUNTS)
    flags = ["--data", str(root / "data"), "--output_dir", str(root), "--seed", str(seed)]
    for name, path in write_towers(root / "towers", seed).items():
        flags += [f"--{name}", path]
    run_pir.main([str(RECIPE), *flags])
    seconds = time.time() - start
    metrics = evaluate_model(str(root / "hub"), DataArguments(data=str(root / "data")), "test") | {"seconds": seconds}
    accuracy = json.loads((root / "validation.json").read_text())["prior"]["eval_accuracy"]
    results = {"PIR": metrics, "prior_accuracy": accuracy}
    write_json(root / "metrics.json", results)
    drawn = seed_of("test")
    masks = [object_mask(drawn, index, GRID).tolist() for index in range(COUNTS["test"])]
    save_pictures(root / "data", root / "gallery", [{"objects": mask} for mask in masks])
    in_a_clean_process("demo_belief.py", root / "hub", root / "gallery", root / "belief.png")
    lines = [f"\n{COUNTS['test']} test scenes, {3 * COUNTS['test']} captions, seed {seed}; per cent"]
    lines += [table({"PIR": metrics}), *further_lines(metrics)]
    lines.append(f"the prior knows {accuracy:.1f} % of the validation scenes' classes\n")
    lines.append(f"Hub folder {root / 'hub'}, picture {root / 'belief.png'}, numbers {root / 'metrics.json'}")
    return "\n".join(lines), results
