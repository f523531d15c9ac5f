"""The main job from nothing. Generated scenes, both stages, a Hub folder, a search in a clean process.

`demo` leaves `hub/`, `search.png`, `metrics.json` and `index.html` in its folder. `compare` trains D2S-VSE and a
sparse-only baseline at equal steps over several seeds and leaves `compare.json`. They learn different worlds: one that
is learned well in two minutes, and one in which captions are few, so that dense text helps most.
"""

import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from datasets import load_dataset

from ..data.arguments import DataArguments
from ..evaluation.evaluate import evaluate_model
from ..evaluation.tables import table
from ..files.whole import whole_folder, write_json, write_text
from ..search.off_topic import off_topic_queries
from ..training import run_d2s
from ..training.flags.recipe import read_recipe
from .console import Console
from .generated_scenes import CLEAR, CROWDED, QUERIES, World, write_dataset, write_towers
from .page import Figures, Picture, recall_figures, write_page

RECIPES = Path(__file__).parents[1] / "training" / "recipes"
STAGE_1, BOTH = "stage 1 (dense text)", "D2S-VSE (both stages)"


@dataclass(frozen=True)
class Job:
    """What is learned, and how."""

    recipe: Path
    world: World
    counts: dict[str, int]
    widths: tuple[int, ...]  # of the vision tower's blocks

    def steps(self, *stages: str) -> int:
        """Optimisation steps of some stages."""
        recipe = read_recipe(str(self.recipe))
        return sum(recipe[stage]["max_steps"] for stage in stages)


DEMO = Job(RECIPES / "d2s_vse_demo.yaml", CLEAR, {"train": 6000, "validation": 300, "test": 300}, (32, 128))
COMPARISON = Job(
    RECIPES / "d2s_vse_compare.yaml", CROWDED, {"train": 2000, "validation": 300, "test": 300}, (32, 64, 128)
)
TOLERANCE = (
    "Between machines and seeds, rSum of this demo moves by about 15, and the mean number of right hits among the "
    "first five by about 0.3; on one machine, equal seeds give equal figures."
)


def demo(out: str | Path, seed: int = 0, console: Console | None = None, job: Job = DEMO) -> tuple[str, dict]:
    """Train, evaluate on the test split, and search the Hub folder from a process without vsehub.

    Returns:
        The results in words, and the metrics of each stage and of the search.
    """
    root, console = Path(out), console or Console(quiet=True)
    console.header("D2S-VSE from nothing: search pictures by words", _facts(job))
    with console.libraries():
        write_dataset(root / "data", **job.counts, world=job.world)
        with console.training(job.steps("pretrain", "finetune")):
            first = train(job, root, root, seed, ["pretrain"])
            both = train(job, root, root, seed, ["finetune"], root / "pretrain" / "best")
        save_pictures(root / "data", root / "gallery")
    both["seconds"] += first["seconds"]
    tell_tolerance(root / "hub", TOLERANCE)
    write_json(root / "gallery" / "queries.json", QUERIES)
    scenes = json.loads((root / "gallery" / "scenes.json").read_text())
    named = off_topic_queries(text for scene in scenes for text in scene["captions"])
    write_json(root / "gallery" / "off_topic.json", named)
    in_a_clean_process("demo_search.py", root / "hub", root / "gallery", root / "search.png", heard=console.verbose)
    search = search_figures(json.loads((root / "search.json").read_text()))
    search["off_topic"] = json.loads((root / "nothing.json").read_text())
    results = {STAGE_1: first, BOTH: both, "search": search}
    write_json(root / "metrics.json", results)
    return _end(root, job, results, seed, console), results


def _facts(job: Job) -> list[tuple[str, str]]:
    counts = job.counts
    return [
        ("what", "stage 1 learns from dense texts, stage 2 from short captions"),
        ("data", f"{counts['train']:,} generated scenes, 2 captions each; {counts['test']} others to test"),
        ("towers", f"a ResNet of {len(job.widths)} blocks and a BERT of 2 layers, both untrained"),
        ("time", f"2 to 6 minutes on two cores; {job.steps('pretrain', 'finetune')} steps"),
    ]


def search_figures(counts: list[dict]) -> dict:
    """Right hits among the first five: their mean, and for how many queries they are at least four.

    Args:
        counts: of `demo_search.py`: `query`, `right` hits of the first five, right pictures `there`.
    """
    full = [entry["right"] for entry in counts if entry["there"] >= 5]
    return {
        "queries": {entry["query"]: {"right": entry["right"], "there": entry["there"]} for entry in counts},
        "mean_right_of_5": float(statistics.mean(full)) if full else None,
        "with_4_or_more": sum(right >= 4 for right in full),
        "with_5_right_pictures": len(full),
    }


def _end(root: Path, job: Job, results: dict, seed: int, console: Console) -> str:
    """Write the page, say where everything lies; the results in words."""
    steps, hits = next_steps(root), results["search"]
    parts: list[Figures | Picture] = [
        recall_figures(
            f"Retrieval over {job.counts['test']} test scenes, per cent", [STAGE_1, BOTH], f"Seed {seed}. {TOLERANCE}"
        ),
        Picture(
            root / "search.png",
            "Search",
            "Some of the queries, and last a picture that is answered with captions. Green is right, which means that "
            "the query is true of the picture; grey is wrong. The number is the cosine.",
            "Rows of five pictures, each row the answer to one query",
        ),
        Figures(
            "All queries",
            ["right of the first 5", "right pictures there are"],
            [(query, [("search", "queries", query, key) for key in ("right", "there")]) for query in hits["queries"]],
        ),
        Figures("Over all queries", ["right of the first 5, mean"], [("", [("search", "mean_right_of_5")])]),
        Figures(
            "Queries about things that are in no picture",
            ["asked", "find nothing"],
            [("", [("search", "off_topic", key) for key in ("asked", "nothing")])],
            "A search finds nothing where no picture reaches the model's default cut-off, which is on its card.",
        ),
    ]
    about = (
        "A model that was trained from nothing on generated scenes: first on dense texts that list every object, then "
        "on short captions. The pictures below were searched in a process that cannot import vsehub."
    )
    write_page(root / "index.html", "vsehub demo: D2S-VSE", about, results, parts, steps)
    console.next_steps(
        [("this run as a page", str(root / "index.html")), ("model, a Hub folder", str(root / "hub"))]
        + [("numbers", str(root / "metrics.json")), ("contact sheet", str(root / "search.png"))],
        steps,
    )
    nothing = hits["off_topic"]
    mean = "-" if hits["mean_right_of_5"] is None else f"{hits['mean_right_of_5']:.2f}"
    return f"""
{job.counts["test"]} test scenes, {2 * job.counts["test"]} captions, seed {seed}; per cent
{table({name: results[name] for name in (STAGE_1, BOTH)})}

search: {mean} of the first 5 hits are right on average over {hits["with_5_right_pictures"]} queries that have 5 right
pictures; for {hits["with_4_or_more"]} of them it is 4 or 5
{nothing["nothing"]} of {nothing["asked"]} queries about things that are in no picture ("a violin") find nothing

page {root / "index.html"}, Hub folder {root / "hub"}, numbers {root / "metrics.json"}"""


def next_steps(root: Path) -> list[tuple[str, str]]:
    """Three commands to go on with: (why, command)."""
    vsehub = vsehub_command()
    names = ("gallery", "hub", "gallery.index", "hits.html", "data")
    gallery, hub, index, page, data = (shlex.quote(str(root / name)) for name in names)
    return [
        (
            "search the test pictures with words of your own",
            f"{vsehub} index {gallery} --model {hub} --out {index} && "
            f'{vsehub} search {index} "a red circle and a blue square" --html {page}',
        ),
        ("every metric, with intervals", f"{vsehub} evaluate {hub} --data {data} --split test"),
        ("the flags of a training run on pairs of your own", f"{vsehub} train --help"),
    ]


def vsehub_command() -> str:
    """How `vsehub` is called from a shell: by its name where the shell would find it."""
    return "vsehub" if shutil.which("vsehub") else f"{shlex.quote(os.path.relpath(sys.executable))} -m vsehub"


def train(job: Job, data_root: Path, out: Path, seed: int, stages: list[str], stage1: Path | None = None) -> dict:
    """Run stages of the recipe and evaluate the result on the test split."""
    start = time.time()
    vision, text = write_towers(out / "towers", seed, job.widths)
    flags = ["--data", str(data_root / "data"), "--vision", vision, "--text", text, "--output_dir", str(out)]
    flags += ["--seed", str(seed), *(["--stage1_model", str(stage1)] if stage1 else [])]
    run_d2s.main([str(job.recipe), *flags, "--stages", *stages])
    seconds = time.time() - start
    return {**evaluate_model(str(out / "hub"), DataArguments(data=str(data_root / "data")), "test"), "seconds": seconds}


def compare(
    out: str | Path, seeds: tuple[int, ...], console: Console | None = None, job: Job = COMPARISON
) -> tuple[str, dict]:
    """Train both systems at equal optimisation steps for every seed.

    Returns:
        Table, means, deviations and the verdict in words; and the same as numbers.
    """
    root, runs, console = Path(out), {"sparse only": [], "D2S-VSE": []}, console or Console(quiet=True)
    console.header(
        "D2S-VSE beside sparse-only training, at equal steps",
        [
            ("data", f"{job.counts['train']:,} generated scenes of three or four objects, 2 captions each"),
            ("runs", f"both systems with {len(seeds)} seeds, {job.steps('baseline')} steps each"),
            ("time", f"about {4 * len(seeds)} minutes on two quiet cores"),
        ],
    )
    with console.libraries(), console.training(len(seeds) * job.steps("pretrain", "finetune", "baseline")):
        write_dataset(root / "data", **job.counts, world=job.world)
        for seed in seeds:
            runs["sparse only"].append(train(job, root, root / f"compare-{seed}-sparse", seed, ["baseline"]))
            runs["D2S-VSE"].append(train(job, root, root / f"compare-{seed}-d2s", seed, ["pretrain", "finetune"]))
    named = {f"{name}, seed {seed}": run for name, of_seeds in runs.items() for seed, run in zip(seeds, of_seeds)}
    sums = {name: [run["rsum"] for run in of_seeds] for name, of_seeds in runs.items()}
    gain = statistics.mean(sums["D2S-VSE"]) - statistics.mean(sums["sparse only"])
    spread = max(statistics.stdev(values) for values in sums.values())
    lines = [table(named)]
    for name, values in sums.items():
        mean, deviation = statistics.mean(values), statistics.stdev(values)
        lines.append(f"{name:12} rSum {mean:6.1f} +- {deviation:.1f} over seeds {list(seeds)}")
    lines.append(f"D2S-VSE - sparse only: {gain:+.1f} rSum; the larger standard deviation is {spread:.1f}")
    results = {"runs": named, "gain": gain, "deviation": spread}
    write_json(root / "compare.json", results)
    return "\n".join(lines), results


def in_a_clean_process(script: str, *words, heard: bool = True):
    """Run a script of this folder in a process of its own, offline, with the files of `plots/` to draw with.

    What it says is progress, and goes where progress goes, or, unless it is `heard`, nowhere.
    """
    here = Path(__file__).parent
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    environment["PYTHONPATH"] = str(here.parent / "plots")
    if not heard:
        environment["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    command = [sys.executable, str(here / script), *map(str, words)]
    subprocess.run(command, check=True, env=environment, stdout=sys.stderr if heard else subprocess.DEVNULL)


def tell_tolerance(hub: Path, text: str):
    """Add to the card how far its figures move between machines."""
    card = hub / "README.md"
    write_text(card, f"{card.read_text(encoding='utf-8').rstrip()}\n\n## How exact the figures are\n\n{text}\n")


def save_pictures(data: Path, folder: Path, facts: list[dict] | None = None):
    """Write the test scenes as files, and what is known of each (and `facts`) to `scenes.json`, for a judge."""
    rows, entries = load_dataset(str(data), split="test"), []
    label = rows.features.get("label")
    with whole_folder(folder) as draft:
        for index, row in enumerate(rows):
            row.pop("image").save(draft / f"{index:04}.png")
            named = {"label": label.int2str(row["label"])} if label else {}
            entries.append({"file": f"{index:04}.png", **row, **named, **(facts[index] if facts else {})})
        (draft / "scenes.json").write_text(json.dumps(entries))
