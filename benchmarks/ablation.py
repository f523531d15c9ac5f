"""What the ablation scripts share: finished runs as lines of a file, so that a killed script goes on; one table."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path


def read(path: Path) -> list[dict]:
    """The finished runs."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run_once(path: Path, name: str, seed: int, train: Callable[[], dict]):
    """Run a setting unless its line is there, and append the line: name, seed, seconds and metrics."""
    if (name, seed) in {(row["name"], row["seed"]) for row in read(path)}:
        return
    start = time.time()
    metrics = {key.removeprefix("eval_"): value for key, value in train().items()}
    line = {"name": name, "seed": seed, "seconds": round(time.time() - start)}
    line |= {
        key: value
        for key, value in metrics.items()
        if any(word in key for word in ("recall", "rsum", "precision", "ndcg"))
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


def report(path: Path, metric: str, reference: str) -> str:
    """One line a setting: mean and standard deviation over seeds, and the difference to `reference`."""
    by_name: dict[str, list[dict]] = {}
    for row in read(path):
        by_name.setdefault(row["name"], []).append(row)
    base = mean(by_name.get(reference, []), metric)
    lines = [
        f"| setting | seeds | {metric} | - {reference} | I2T R@1 | T2I R@1 | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in by_name.items():
        values = [row[metric] for row in rows]
        spread = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        lines.append(
            f"| {name} | {len(rows)} | {mean(rows, metric):.2f}{spread} | {mean(rows, metric) - base:+.2f} | "
            f"{mean(rows, 'image_to_text_recall@1'):.2f} | {mean(rows, 'text_to_image_recall@1'):.2f} | "
            f"{mean(rows, 'seconds'):.0f} |"
        )
    return "\n".join(lines)


def mean(rows: list[dict], metric: str) -> float:
    """Mean of a metric over runs; NaN without any."""
    return statistics.mean(row[metric] for row in rows) if rows else float("nan")
