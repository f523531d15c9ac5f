"""The files of the package, without what lies beside it: tests, benchmarks, environments, what runs wrote."""

from collections.abc import Iterator
from pathlib import Path

APART = ("tests", "benchmarks", "docs", "build", "dist", "runs", "site")


def package_files(root: Path) -> Iterator[Path]:
    """Below the root of the repository, in order; those at the top, too."""
    for path in sorted(root.rglob("*.py")):
        first = path.relative_to(root).parts[0]
        if first not in APART and not first.startswith("."):
            yield path
