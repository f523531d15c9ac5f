"""One plot a claim, docs/pictures/claim-NAME.svg: a dot for each run, and the mean of each arm.

A picture names the digest of the runs that it shows, so a test can see that it is older than the ledger.
Needs matplotlib: `pip install "vsehub[plot]"`.
"""

import hashlib
import json
import statistics
import textwrap
from pathlib import Path

import ledger
from arms import CLAIMS, Claim

PICTURES = ledger.ROOT / "docs" / "pictures"


def picture_of(claim: str) -> Path:
    """Where the plot of a claim lies."""
    return PICTURES / f"claim-{claim}.svg"


def values_of(claim: Claim, lines: list[dict]) -> dict[str, list[float]]:
    """The primary metric of the runs of each arm that has any."""
    runs = {arm: ledger.runs_of(lines, claim.name, arm) for arm in claim.arms}
    return {arm: [run["metrics"][claim.metric] for run in several] for arm, several in runs.items() if several}


def digest(values: dict[str, list[float]]) -> str:
    """Twelve hexadecimal digits of what a plot shows."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]


def write_plots(lines: list[dict]):
    """Draw the claims that have runs, unless the picture shows these runs already."""
    for claim in CLAIMS.values():
        values, path = values_of(claim, lines), picture_of(claim.name)
        if values and not (path.exists() and digest(values) in path.read_text(encoding="utf-8")):
            draw(claim, values, path)


def draw(claim: Claim, values: dict[str, list[float]], path: Path):
    """Draw one claim."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = claim.name  # the same runs give the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.5 * len(values) + 0.9), layout="constrained")
    for place, (arm, several) in enumerate(values.items()):
        colour = "#888888" if arm.startswith(claim.base) else "#2a6fbb"
        axes.plot(several, [place] * len(several), "o", color=colour, alpha=0.5, markeredgewidth=0)
        mean = statistics.mean(several)
        axes.plot([mean, mean], [place - 0.3, place + 0.3], color=colour, linewidth=2)
        axes.annotate(f"{mean:.1f}", (mean, place - 0.32), ha="center", va="bottom", fontsize=8)
    axes.set_yticks(range(len(values)), [textwrap.fill(arm, 34) for arm in values])
    axes.set_ylim(len(values) - 0.4, -0.8)
    axes.set_xlabel(f"{claim.metric}, validation; a dot is one seed, a bar the mean", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None, "Description": f"runs {digest(values)}"})
    pyplot.close(figure)
