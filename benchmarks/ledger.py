"""The ledger of results: one line of JSON for each training run, `docs/runs.jsonl`, from which every table is made.

A line says which code made it. `code` is a digest of the syntax trees of the files that decide a result, without
comments, docstrings and the places of our files: to reword or to move them changes nothing, any other edit makes the
line stale. A stale line becomes current again when `results.py --recheck` trains one of its seeds with today's code and
gets the same figure. Processors round differently, so only runs on equal ones are compared.
"""

import ast
import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import date
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEDGER = ROOT / "docs" / "runs.jsonl"
TEST_LEDGER = ROOT / "docs" / "test_runs.jsonl"  # of the test splits: made once, by `results.py --test`
EQUAL = 0.005  # of a metric in per cent: two runs of one seed that differ by less are the same run

CODE = (  # the files whose edits can move a figure
    "configuration",
    "modeling",
    "losses",
    "processing/batching.py",
    "processing/pixels.py",
    "processing/processing_d2s_vse.py",
    "processing/processing_dual_encoder.py",
    "processing/processing_pir.py",
    "data/columns.py",
    "data/grouping.py",
    "data/rows.py",
    "evaluation/counting.py",
    "evaluation/embed.py",
    "evaluation/outcomes.py",
    "evaluation/protocols.py",
    "evaluation/ranking.py",
    "evaluation/seeds.py",
    "evaluation/significance.py",
    "training/inputs/augmentation.py",
    "training/inputs/batches.py",
    "training/d2s_stages.py",
    "training/inputs/dense_teacher.py",
    "training/pair_stage.py",
    "training/inputs/pairs.py",
    "training/pir_stages.py",
    "training/prior.py",
    "training/inputs/random_order.py",
    "training/inputs/sentences.py",
    "training/inputs/tower_cache.py",
    "training/trainer.py",
    "training/inputs/views.py",
    "training/inputs/vision_tail.py",
)
CODE_OF = {"--average_weights": "training/saving/averaged.py"}  # what only arms with this flag run


@cache
def code_digest(root: Path = ROOT, settings: str = "") -> str:
    """Twelve hexadecimal digits that change with the code and with an arm's settings, but not with comments."""
    digest = hashlib.sha256(settings.encode())
    for name in (*CODE, *(file for flag, file in CODE_OF.items() if flag in settings)):
        path = root / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(_meaning(file.read_text(encoding="utf-8")).encode())
    return digest.hexdigest()[:12]


@cache  # each arm has a digest of its own, over nearly the same files
def _meaning(source: str) -> str:
    """The syntax tree without docstrings and without the places of our files, in the same words on every Python."""
    tree = _without_places(ast.parse(source))
    for node in ast.walk(tree):
        if not getattr(node, "type_params", True):  # 3.12 knows them
            del node.type_params
        body = getattr(node, "body", None)
        if not isinstance(body, list) or not body:
            continue
        first = body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = body[1:]
    return ast.dump(tree, **({"show_empty": True} if sys.version_info >= (3, 13) else {}))


def _without_places(tree: ast.Module) -> ast.Module:
    """Count an import from a file of ours by the names that it brings: a file that moves changes no figure."""
    ours = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    for node in ours:
        node.module, node.level = None, 1
    above = [node for node in tree.body if node in ours]
    names = sorted(
        (alias for node in above for alias in node.names), key=lambda alias: (alias.name, alias.asname or "")
    )
    others = [node for node in tree.body if node not in above]
    tree.body = [*others, *([ast.ImportFrom(None, names, 1)] if names else [])]
    return tree


def read(path: Path | None = None) -> list[dict]:
    """All lines, oldest first; of `LEDGER` unless said otherwise. A repeated run has the shares of the one before."""
    path, shares, lines = path or LEDGER, {}, []
    for text in path.read_text().splitlines() if path.exists() else ():
        line = json.loads(text)
        line["shares"] = shares[_seed_of(line)] = line["shares"] if "shares" in line else shares[_seed_of(line)]
        lines.append(line)
    return lines


def line_of(claim: str, arm: str, seed: int, metric: str, code: str, **measured) -> dict:
    """A line: what was run, by which code, and what was measured (`metrics`, `shares`, `steps`, `texts`, seconds)."""
    import torch
    import transformers

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "claim": claim,
        "arm": arm,
        "seed": seed,
        "metric": metric,
        **measured,
        "code": code,
        "commit": commit.stdout.strip(),
        "date": date.today().isoformat(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "threads": torch.get_num_threads(),
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
    }


def append(line: dict, path: Path | None = None):
    """Add a line, in one write; to `LEDGER` unless said otherwise."""
    path = path or LEDGER
    path.parent.mkdir(parents=True, exist_ok=True)
    before = [other for other in read(path) if _seed_of(other) == _seed_of(line)]
    with path.open("a") as file:
        file.write(written(line, before[-1] if before else None) + "\n")


def written(line: dict, before: dict | None = None) -> str:
    """A line as it stands in the ledger: without blanks, and whole shares without `.0`, which are most of it.

    Args:
        line: to be written.
        before: the line of the same run before it, if any; shares that are equal to its own are left out.
    """
    if before is not None and before["shares"] == line["shares"]:
        kept = {name: value for name, value in line.items() if name != "shares"}
    else:
        kept = line | {"shares": [int(share) if float(share).is_integer() else share for share in line["shares"]]}
    return json.dumps(kept, separators=(",", ":"))


def runs_of(lines: Iterable[dict], claim: str, arm: str) -> list[dict]:
    """The newest line of each seed, by seed."""
    newest = {line["seed"]: line for line in lines if (line["claim"], line["arm"]) == (claim, arm)}
    return [newest[seed] for seed in sorted(newest)]


def equal_codes(lines: Iterable[dict], code: str) -> set[str]:
    """The codes that are known to give what `code` gives: `code` itself, those of which it repeated a run, and so on.

    A code that failed to repeat any run of one of them is not among them.
    """
    figures: dict[tuple, dict[str, float]] = {}  # run -> figure by code
    for line in lines:
        figures.setdefault(_run_of(line), {})[line["code"]] = line["metrics"][line["metric"]]
    equal, found = {code}, True
    while found:
        rest = {other for run in figures.values() for other in run} - equal
        found = {other for other in rest if _repeated(figures.values(), other, equal)}
        equal |= set(sorted(found)[:1])  # one at a time: two of them may differ
    return equal


def _repeated(figures: Iterable[dict[str, float]], code: str, others: set[str]) -> bool:
    """Whether a code shares runs with others, and all of them gave the same figure."""
    pairs = [(run[code], run[other]) for run in figures if code in run for other in others & set(run)]
    return bool(pairs) and all(abs(one - another) <= EQUAL for one, another in pairs)


def _seed_of(line: dict) -> tuple:
    """Which training it was, on whatever machine and by whichever code."""
    return line["claim"], line["arm"], line["seed"]


def _run_of(line: dict) -> tuple:
    """What must be equal for two figures to be equal: also the GPU or the processor, which older lines do not name."""
    return *_seed_of(line), line.get("device") or line.get("processor")


def seeds_to_repeat(runs: list[dict], lines: list[dict], code: str) -> list[int]:
    """One seed for each code that made some of these runs and is not known to give what `code` gives."""
    own = [line for line in lines if (line["claim"], line["arm"]) == (runs[0]["claim"], runs[0]["arm"])] if runs else []
    equal, first = equal_codes(own, code), {}
    for run in runs:
        if run["code"] not in equal:
            first.setdefault(run["code"], run["seed"])
    return sorted(set(first.values()))


def is_stale(runs: list[dict], lines: list[dict], code: str) -> bool:
    """Whether a row of a table, made of these runs, is older than the code."""
    return bool(seeds_to_repeat(runs, lines, code))
