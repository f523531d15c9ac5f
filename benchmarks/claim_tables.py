"""The tables of docs/results.md, made from the ledger: they stand between `<!-- CLAIM name -->` and `<!-- END -->`."""

import statistics
from pathlib import Path

import ledger
import numpy as np
from arms import CLAIMS, Claim, code_of

from vsehub.evaluation.seeds import gain

PAGE = ledger.ROOT / "docs" / "results.md"
LEVEL = 0.99
GRADED = {
    "images to images": "image_to_image_ndcg@50",
    "texts to texts": "text_to_text_ndcg@50",
    "images to both": "image_to_mixed_ndcg@50",
    "texts to both": "text_to_mixed_ndcg@50",
    "images to both, less the means": "image_to_mixed_ndcg@50, less the means",
    "texts to both, less the means": "text_to_mixed_ndcg@50, less the means",
}
T_995 = (63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250)  # Student's t at 1 to 9 degrees of freedom


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
            shown = table(claim, lines, code)
            if name.startswith("structure"):
                shown = f"{shown}\n\n{graded_table(claim, lines)}".rstrip()
            text = f"{before}{mark}{shown}\n<!-- END -->{after}"
    return text


def table(claim: Claim, lines: list[dict], code: str | None = None) -> str:
    """One line an arm: mean and deviation over seeds, and the gains over the base and its control of equal time."""
    others = [claim.base, *(arm for arm in claim.arms if arm == f"{claim.base}, equal time")]
    clock = "time on a GPU" if claim.gpu else "CPU time"
    gains = " | ".join([f"gain over *{claim.base}* ({LEVEL:.0%} interval)", *(f"over *{arm}*" for arm in others[1:])])
    rows = [f"| arm | seeds | {claim.metric} | {gains} | steps | {clock} |", "|---" * (5 + len(others)) + "|"]
    for arm in claim.arms:
        runs = ledger.runs_of(lines, claim.name, arm)
        if not runs:
            rows.append(f"| {arm} | 0 | not yet measured |" + " |" * (2 + len(others)))
            continue
        values = [run["metrics"][claim.metric] for run in runs]
        spread = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        stale = " *(older than the code)*" if ledger.is_stale(runs, lines, code or code_of(claim, arm)) else ""
        seconds = statistics.median(run["wall_seconds" if claim.gpu else "cpu_seconds"] for run in runs)
        gained = " | ".join(_gain(lines, claim, arm, other) for other in others)
        rows.append(
            f"| {arm}{stale} | {len(runs)} | {statistics.mean(values):.2f}{spread} | {gained} | {runs[0]['steps']} | "
            f"{seconds:.0f} s |"
        )
    return "\n".join(rows)


def _gain(lines: list[dict], claim: Claim, arm: str, other: str) -> str:
    """The gain over another arm and its interval, over the seeds that both have."""
    both = [ledger.runs_of(lines, claim.name, name) for name in (other, arm)]
    common = set.intersection(*({run["seed"] for run in runs} for runs in both))
    if arm in (claim.base, other) or len(common) < 2:
        return ""
    shares = [np.array([run["shares"] for run in runs if run["seed"] in common]) for runs in both]
    result = gain(*shares, level=LEVEL)
    text = f"{result.mean:+.2f} ({result.low:+.2f} to {result.high:+.2f})"
    return f"**{text}**" if result.holds else text


def graded_table(claim: Claim, lines: list[dict]) -> str:
    """NDCG of each arm, and its change against the base with a 99 % interval over seeds (paired t)."""
    rows = ["| NDCG@50 | " + " | ".join(GRADED) + " |", "|---" * (len(GRADED) + 1) + "|"]
    base = {run["seed"]: run["metrics"] for run in ledger.runs_of(lines, claim.name, claim.base)}
    for arm in claim.arms:
        runs = {run["seed"]: run["metrics"] for run in ledger.runs_of(lines, claim.name, arm)}
        if runs:
            cells = [_graded_cell(base, runs, metric, arm == claim.base) for metric in GRADED.values()]
            rows.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(rows) if len(rows) > 2 else ""


def _graded_cell(base: dict[int, dict], runs: dict[int, dict], metric: str, is_base: bool) -> str:
    mean = f"{statistics.mean(run[metric] for run in runs.values()):.1f}"
    pairs = [runs[seed][metric] - base[seed][metric] for seed in sorted(base.keys() & runs.keys())]
    if is_base or len(pairs) < 2:
        return mean
    half = T_995[len(pairs) - 2] * statistics.stdev(pairs) / len(pairs) ** 0.5
    text = f"{statistics.mean(pairs):+.2f} +- {half:.2f}"
    return f"{mean} (**{text}**)" if statistics.mean(pairs) > half else f"{mean} ({text})"
