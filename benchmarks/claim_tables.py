"""The tables of docs/results.md, made from the ledger: they stand between `<!-- CLAIM name -->` and `<!-- END -->`."""

import statistics
from pathlib import Path

import ledger
import numpy as np
from arms import CLAIMS, Claim, code_of

from vsehub.evaluation.seeds import gain

PAGE = ledger.ROOT / "docs" / "results.md"
LEVEL = 0.99


def write_tables(page: Path = PAGE):
    """Put today's tables into the page."""
    page.write_text(with_tables(page.read_text(encoding="utf-8"), ledger.read()), encoding="utf-8")


def with_tables(text: str, lines: list[dict], code: str | None = None) -> str:
    """The page with its tables made anew.

    Args:
        text: of the page.
        lines: of the ledger.
        code: digest of the code of all arms, instead of today's; rows of other code are marked.
    """
    for name, claim in CLAIMS.items():
        mark = f"<!-- CLAIM {name} -->\n"
        if mark in text:
            before, rest = text.split(mark, 1)
            _, after = rest.split("<!-- END -->", 1)
            text = f"{before}{mark}{table(claim, lines, code)}\n<!-- END -->{after}"
    return text


def table(claim: Claim, lines: list[dict], code: str | None = None) -> str:
    """One line an arm: mean and deviation over seeds, and the gain over the base with its interval."""
    base = ledger.runs_of(lines, claim.name, claim.base)
    shown = f"| arm | seeds | {claim.metric} | gain over *{claim.base}* ({LEVEL:.0%} interval) | steps | CPU time |"
    rows = [shown, "|---|---|---|---|---|---|"]
    for arm in claim.arms:
        runs = ledger.runs_of(lines, claim.name, arm)
        if not runs:
            rows.append(f"| {arm} | 0 | not yet measured | | | |")
            continue
        values = [run["metrics"][claim.metric] for run in runs]
        spread = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        stale = " *(older than the code)*" if ledger.is_stale(runs, lines, code or code_of(claim, arm)) else ""
        seconds = statistics.median(run["cpu_seconds"] for run in runs)
        rows.append(
            f"| {arm}{stale} | {len(runs)} | {statistics.mean(values):.2f}{spread} | {_gain(base, runs, arm, claim)} | "
            f"{runs[0]['steps']} | {seconds:.0f} s |"
        )
    return "\n".join(rows)


def _gain(base: list[dict], runs: list[dict], arm: str, claim: Claim) -> str:
    if arm == claim.base or min(len(base), len(runs)) < 2:
        return ""
    shares = [np.array([run["shares"] for run in both]) for both in (base, runs)]
    result = gain(*shares, level=LEVEL)
    text = f"{result.mean:+.2f} ({result.low:+.2f} to {result.high:+.2f})"
    return f"**{text}**" if result.holds else text
