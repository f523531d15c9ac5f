"""What the ablation scripts share: finished runs as lines of a file, so that a killed script goes on; one table."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path


def results_file(args, *facts: str) -> Path:
    """Where the runs of these arguments are kept: `OUT/results.jsonl`, beside `settings.json`.

    Args:
        args: of the script; `data`, `vision`, `text` and `steps` count.
        facts: names of further arguments that count.

    Raises:
        SystemExit: OUT holds runs of other data, towers or steps; their rows and features would pass for these.
    """
    path = Path(args.out) / "settings.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    asked = {name: getattr(args, name) for name in ("data", "vision", "text", "steps", *facts)}
    asked = {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()}
    for name, value in asked.items():
        if None not in (value, kept.get(name)) and value != kept[name]:
            raise SystemExit(f"{args.out} holds runs with --{name} {kept[name]}, not {value}: name another --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept | {name: value for name, value in asked.items() if value is not None}))
    return path.with_name("results.jsonl")


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
    by_name = _by_name(path)
    base = mean(by_name.get(reference, []), metric)
    lines = [
        f"| setting | seeds | {metric} | - {reference} | I2T R@1 | T2I R@1 | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in by_name.items():
        value = mean(rows, metric)
        lines.append(
            f"| {name} | {len(rows)} | {value:.2f}{_spread(rows, metric)} | {value - base:+.2f} | "
            f"{mean(rows, 'image_to_text_recall@1'):.2f} | {mean(rows, 'text_to_image_recall@1'):.2f} | "
            f"{mean(rows, 'seconds'):.0f} |"
        )
    return "\n".join(lines)


def metrics_table(path: Path, metrics: tuple[str, ...]) -> str:
    """One line a setting: mean and standard deviation over seeds of several metrics, of those that it has."""
    by_name = _by_name(path)
    metrics = [metric for metric in metrics if any(metric in row for rows in by_name.values() for row in rows)]
    lines = ["| setting | seeds | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 2) + "|"]
    for name, rows in by_name.items():
        known = [all(metric in row for row in rows) for metric in metrics]
        cells = [f"{mean(rows, name):.2f}{_spread(rows, name)}" if has else "" for name, has in zip(metrics, known)]
        lines.append(f"| {name} | {len(rows)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _by_name(path: Path) -> dict[str, list[dict]]:
    groups: dict[str, list[dict]] = {}
    for row in read(path):
        groups.setdefault(row["name"], []).append(row)
    return groups


def _spread(rows: list[dict], metric: str) -> str:
    return f" +- {statistics.stdev(row[metric] for row in rows):.2f}" if len(rows) > 1 else ""


def mean(rows: list[dict], metric: str) -> float:
    """Mean of a metric over runs; NaN without any."""
    return statistics.mean(row[metric] for row in rows) if rows else float("nan")
