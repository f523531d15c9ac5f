"""Compare two evaluations of the same queries, paired, with intervals and p-values."""

from ..files.text import printable
from .outcomes import Outcomes
from .record import read_record
from .significance import Comparison, compare_outcomes

SAME = {"data_fingerprint": "data", "split": "split", "ties": "the counting of ties"}


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
    (about_a, outcomes_a), (about_b, outcomes_b) = read_record(a), read_record(b)
    for key, what in SAME.items():
        if about_a.get(key) != about_b.get(key):
            raise ValueError(
                f"{a} and {b} cannot be compared: they differ in {what} ({about_a.get(key)}, {about_b.get(key)}). "
                "Evaluate both models on the same"
            )
    if set(outcomes_a) != set(outcomes_b):
        raise ValueError(
            f"{a} and {b} cannot be compared: protocols {', '.join(outcomes_a)} and {', '.join(outcomes_b)}. "
            "Evaluate both models by the same"
        )
    settings = (samples, permutations, level, seed)
    try:
        return {
            name: compare_outcomes(outcomes, _in_order_of(outcomes, outcomes_b[name]), *settings)
            for name, outcomes in outcomes_a.items()
        }
    except ValueError as error:
        raise ValueError(
            f"{a} and {b} cannot be compared: {error}. Evaluate both models again, with one version"
        ) from None


def _in_order_of(first: Outcomes, other: Outcomes) -> Outcomes:
    """`other` with its metrics in the order of `first`, since `compare_outcomes` pairs them by their place.

    A file may hold the same metrics in another order: one that was sorted, for instance.
    """
    values = {name: other.values[name] for name in first.values if name in other.values}
    sums = {name: other.sums[name] for name in first.sums if name in other.sums}
    return Outcomes(values | other.values, other.images, sums | other.sums)


def comparison_table(rows: dict[str, Comparison], level: float = 0.95) -> str:
    """One line per metric."""
    rows = {printable(name): row for name, row in rows.items()}
    width = max(len(name) for name in rows)
    lines = [f"{'':{width}}{'A':>9}{'B':>9}{'B - A':>9}{f'{100 * level:g} % interval':>20}{'p':>9}"]
    for name, row in rows.items():
        interval = f"[{row.low:+.2f}, {row.high:+.2f}]"
        lines.append(f"{name:{width}}{row.a:9.2f}{row.b:9.2f}{row.difference:+9.2f}{interval:>20}{row.p:9.4f}")
    return "\n".join(lines)


__all__ = ["compare_files", "comparison_table"]
