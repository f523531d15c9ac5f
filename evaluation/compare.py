"""`vsehub compare A.json B.json`: is B better than A? Two evaluations of the same queries, paired, with p-values."""

import argparse
import json
from pathlib import Path

from ..files.outputs import output_file
from .record import read_record
from .significance import Comparison, compare_outcomes

SAME = {"data_fingerprint": "data", "split": "split", "ties": "way of counting ties"}


def compare_files(
    a: str, b: str, samples: int = 1000, permutations: int = 10_000, level: float = 0.95, seed: int = 0
) -> dict[str, dict[str, Comparison]]:
    """Compare what `vsehub evaluate --json` wrote of two models, by protocol and metric.

    Args:
        a, b: the files.
        samples, level: of the bootstrap interval of the difference.
        permutations: of the test.
        seed: of both.

    Raises:
        ValueError: other data, split or protocols, so that the queries cannot be paired.
    """
    (about_a, found_a), (about_b, found_b) = read_record(a), read_record(b)
    for key, what in SAME.items():
        if about_a.get(key) != about_b.get(key):
            raise ValueError(
                f"{a} and {b} cannot be compared: another {what} ({about_a.get(key)}, {about_b.get(key)}). "
                "Evaluate both models on the same"
            )
    if set(found_a) != set(found_b):
        raise ValueError(f"{a} and {b} cannot be compared: protocols {', '.join(found_a)} and {', '.join(found_b)}")
    return {
        name: compare_outcomes(outcomes, found_b[name], samples, permutations, level, seed)
        for name, outcomes in found_a.items()
    }


def comparison_table(rows: dict[str, Comparison], level: float = 0.95) -> str:
    """One line per metric."""
    width = max(len(name) for name in rows)
    lines = [f"{'':{width}}{'A':>9}{'B':>9}{'B - A':>9}{f'{100 * level:g} % interval':>20}{'p':>9}"]
    for name, row in rows.items():
        interval = f"[{row.low:+.2f}, {row.high:+.2f}]"
        lines.append(f"{name:{width}}{row.a:9.2f}{row.b:9.2f}{row.difference:+9.2f}{interval:>20}{row.p:9.4f}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Compare and print; bad input is an error of the caller."""
    parser = argparse.ArgumentParser("vsehub compare", description=__doc__.splitlines()[0])
    parser.add_argument("a", help="json of `vsehub evaluate`")
    parser.add_argument("b", help="another, of the same data, split and protocols")
    parser.add_argument("--samples", type=int, default=1000, help="bootstrap samples of images (default: %(default)s)")
    parser.add_argument("--permutations", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="write the numbers here")
    args = parser.parse_args(argv)
    if args.samples < 1 or args.permutations < 1 or not 0 < args.level < 1:
        raise ValueError("--samples and --permutations are at least 1, --level is between 0 and 1")
    if args.json:
        output_file(args.json)
    found = compare_files(args.a, args.b, args.samples, args.permutations, args.level, args.seed)
    for name, rows in found.items():
        print(f"{name}: A is {args.a}, B is {args.b}; by images, {args.permutations} permutations")
        print(comparison_table(rows, args.level) + "\n")
    print("Lower mean ranks are better. The more metrics one looks at, the more p-values fall below 0.05 by chance.")
    if args.json:
        content = {name: {key: row._asdict() for key, row in rows.items()} for name, rows in found.items()}
        Path(args.json).write_text(json.dumps(content, indent=2), encoding="utf-8")
    return 0
