"""The JSON record of an evaluation: metrics at the top level and, under `evaluation`, what a comparison needs.

For each protocol: metrics, their intervals, and the outcome of every query. Values are per cent, or ranks from 1.
"""

import json
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np

from .. import __version__
from .outcomes import WAYS, Outcomes
from .significance import intervals

FORMAT = 1
PACKAGES = ("torch", "transformers", "numpy")


def evaluation_record(by_protocol: dict[str, Outcomes], about: dict, samples: int = 1000, level: float = 0.95) -> dict:
    """Describe an evaluation.

    Args:
        by_protocol: the outcomes.
        about: model, revision, data, split, ...
        samples, level: of the bootstrap intervals.
    """
    protocols = {
        name: {
            "metrics": outcomes.metrics(),
            "intervals": {key: list(pair) for key, pair in intervals(outcomes, samples, level).items()},
            "outcomes": _packed(outcomes),
        }
        for name, outcomes in by_protocol.items()
    }
    bootstrap = {"of": "images", "samples": samples, "level": level, "seed": 0}
    return {"format": FORMAT, **about, "versions": _versions(), "intervals": bootstrap, "protocols": protocols}


def record_json(content: dict) -> str:
    """Metrics and, under `evaluation`, a record as JSON: one line per metric and one for the record."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_record(path: str | Path) -> tuple[dict, dict[str, Outcomes]]:
    """Read a record and its outcomes by protocol.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not the json of an evaluation, or of another format.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder: name the json in it that `vsehub evaluate ... --json FILE` wrote")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))["evaluation"]
        if record["format"] != FORMAT:
            raise ValueError(f"its format is {record['format']}, this version reads {FORMAT}")
        by_protocol = {name: _unpacked(part["outcomes"]) for name, part in record["protocols"].items()}
        if not by_protocol:
            raise ValueError("it has no protocol")
        return record, by_protocol
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{path}: not the json of an evaluation ({error}); write it with `vsehub evaluate ... --json FILE`"
        ) from None


def _packed(outcomes: Outcomes) -> dict:
    """Outcomes as lists; medians are left out, because they use the same ranks as the means."""
    return {
        "images": {way: rows.tolist() for way, rows in outcomes.images.items()},
        "values": {name: _numbers(values) for name, values in outcomes.values.items() if "median" not in name},
        "sums": outcomes.sums,
    }


def _numbers(values: np.ndarray) -> list:
    return [int(value) if value == int(value) else value for value in values.tolist()]


def _unpacked(packed: dict) -> Outcomes:
    values = {name: np.array(numbers, np.float64) for name, numbers in packed["values"].items()}
    images = {way: np.array(rows, np.int64) for way, rows in packed["images"].items()}
    for name, each in [*values.items(), *images.items()]:
        if each.ndim != 1 or not each.size:
            raise ValueError(f"{name!r} is not one list of numbers")
        if not any(way in name and way in images for way in WAYS):
            raise ValueError(f"{name!r} is an outcome of neither {' nor '.join(WAYS)} of its images")
    for name, parts in packed["sums"].items():
        if not isinstance(parts, list) or not parts or not all(part in values for part in parts):
            raise ValueError(f"the parts of {name!r} are {parts!r}, not names of its outcomes")
    outcomes = Outcomes(values, images, packed["sums"])
    if any(len(each) != len(outcomes.images_of(name)) for name, each in values.items()):
        raise ValueError("some outcomes are missing")
    if not all(np.isfinite(each).all() for each in values.values()):
        raise ValueError("some outcomes are not finite")
    return outcomes


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "vsehub": __version__, **{name: version(name) for name in PACKAGES}}


__all__ = ["evaluation_record", "read_record", "record_json"]
