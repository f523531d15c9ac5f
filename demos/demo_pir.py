"""PIR from nothing. Generated overhead scenes, the prior, retrieval under it, belief maps.

Leaves `hub/`, `belief.png`, `metrics.json` and `index.html` in its folder.
"""

import json
import shlex
import time
from pathlib import Path

from ..data.arguments import DataArguments
from ..evaluation.evaluate import evaluate_model
from ..evaluation.tables import further_lines, table
from ..files.whole import write_json
from ..training import run_pir
from ..training.flags.recipe import read_recipe
from .console import Console
from .demo import in_a_clean_process, save_pictures, tell_tolerance, vsehub_command
from .generated_overhead import CLASSES, captions, object_mask, scene_of, seed_of, true_of, write_dataset, write_towers
from .page import Figures, Picture, recall_figures, write_page

RECIPE = Path(__file__).parents[1] / "training" / "recipes" / "pir_demo.yaml"
COUNTS = {"train": 2400, "validation": 320, "test": 320}
GRID = 8  # tokens a side
TOLERANCE = (
    "Between machines, numbers of threads and seeds, the mean recall of this demo moves by about 3, and the share of "
    "belief maps that peak on the objects by up to 20 in a single class (port above all); on one machine, equal seeds "
    "and threads give equal figures."
)


def demo(out: str | Path, seed: int = 0, console: Console | None = None) -> tuple[str, dict]:
    """Train both stages, evaluate on the test split, and explain images from a process without vsehub.

    Returns:
        The results in words, and as numbers.
    """
    root, console = Path(out), console or Console(quiet=True)
    recipe = read_recipe(str(RECIPE))
    steps = sum(recipe[stage]["max_steps"] for stage in ("prior", "retrieval"))
    console.header("PIR from nothing: search overhead pictures, and see what the model relies on", _facts(steps))
    start = time.time()
    with console.libraries():
        write_dataset(root / "data", **COUNTS)
        flags = ["--data", str(root / "data"), "--output_dir", str(root), "--seed", str(seed)]
        for name, path in write_towers(root / "towers", seed).items():
            flags += [f"--{name}", path]
        with console.training(steps):
            run_pir.main([str(RECIPE), *flags])
            seconds = time.time() - start
            data = DataArguments(data=str(root / "data"))
            metrics = evaluate_model(str(root / "hub"), data, "test") | {"seconds": seconds}
        save_pictures(root / "data", root / "gallery", judgements())
    accuracy = json.loads((root / "validation.json").read_text())["prior"]["eval_accuracy"]
    tell_tolerance(root / "hub", TOLERANCE)
    in_a_clean_process("demo_belief.py", root / "hub", root / "gallery", root / "belief.png", heard=console.verbose)
    belief = json.loads((root / "belief.json").read_text())
    results = {"PIR": metrics, "prior_accuracy": accuracy, "belief": belief}
    write_json(root / "metrics.json", results)
    return _end(root, results, seed, console), results


def _facts(steps: int) -> list[tuple[str, str]]:
    return [
        ("what", "the prior learns the classes of scenes; then retrieval, in which it says where to look"),
        (
            "data",
            f"{COUNTS['train']:,} generated scenes of {len(CLASSES)} classes; {COUNTS['test']} others to test",
        ),
        ("towers", "two ResNets (one is the prior) and a BERT of 2 layers, all untrained"),
        ("time", f"about 4 minutes on two cores; {steps} steps"),
    ]


def judgements() -> list[dict]:
    """What is known of each test scene: `objects`, the cells that show its class, and `true`, all captions that fit."""
    drawn = seed_of("test")
    scenes = [scene_of(drawn, index)[0] for index in range(COUNTS["test"])]
    said = sorted({text for index in range(COUNTS["test"]) for text in captions(*scene_of(drawn, index))})
    return [
        {"objects": object_mask(drawn, index, GRID).tolist(), "true": [text for text in said if true_of(text, scene)]}
        for index, scene in enumerate(scenes)
    ]


def _end(root: Path, results: dict, seed: int, console: Console) -> str:
    """Write the page, say where everything lies; the results in words."""
    steps, belief = next_steps(root), results["belief"]
    parts: list[Figures | Picture] = [
        recall_figures(f"Retrieval over {COUNTS['test']} test scenes, per cent", ["PIR"], f"Seed {seed}. {TOLERANCE}"),
        Figures("The prior", ["accuracy, per cent"], [("validation scenes", [("prior_accuracy",)])]),
        Figures(
            "Where the belief lies, per cent",
            ["maps that peak on the objects", "belief on the objects", "area of the objects", "maps"],
            [(name, [("belief", name, key) for key in ("peak", "belief", "area", "maps")]) for name in belief],
            "The objects are the cells that show what makes the class. A map without knowledge peaks on them as often "
            "as their area says.",
        ),
        Picture(
            root / "belief.png",
            "Belief maps",
            "One test scene of each class. In the maps, dark is low and light is high belief; the white outline is "
            "what makes the class, the cross is the highest belief. Beside them the nearest captions with their "
            "cosines: green ones are true of the picture, grey ones are not.",
            "One row for each class: a scene, its belief map, five captions",
        ),
    ]
    about = (
        "A model that was trained from nothing on generated overhead scenes. Its prior, a scene classifier, says which "
        "parts of a picture matter: the belief."
    )
    write_page(root / "index.html", "vsehub demo: PIR", about, results, parts, steps)
    console.next_steps(
        [("this run as a page", str(root / "index.html")), ("model, a Hub folder", str(root / "hub"))]
        + [("numbers", str(root / "metrics.json")), ("belief maps", str(root / "belief.png"))],
        steps,
    )
    lines = [f"\n{COUNTS['test']} test scenes, {3 * COUNTS['test']} captions, seed {seed}; per cent"]
    lines += [table({"PIR": results["PIR"]}), *further_lines(results["PIR"])]
    lines.append(f"the prior knows {results['prior_accuracy']:.1f} % of the validation scenes' classes\n")
    lines += belief_lines(belief)
    lines.append(f"\npage {root / 'index.html'}, Hub folder {root / 'hub'}, numbers {root / 'metrics.json'}")
    return "\n".join(lines)


def belief_lines(belief: dict[str, dict]) -> list[str]:
    """A table for a terminal: for each class, maps that peak on the objects, belief on them, and their area."""
    lines = [f"{'belief, per cent':24}{'peaks on objects':>18}{'on objects':>12}{'their area':>12}"]
    for name, figures in belief.items():
        lines.append(f"{name:24}{figures['peak']:18.1f}{figures['belief']:12.1f}{figures['area']:12.1f}")
    return lines


def next_steps(root: Path) -> list[tuple[str, str]]:
    """Three commands to go on with: (why, command)."""
    vsehub = vsehub_command()
    names = ("gallery", "hub", "gallery.index", "hits.html", "data", "explain.png")
    gallery, hub, index, page, data, picture = (shlex.quote(str(root / name)) for name in names)
    return [
        (
            "the belief map of one picture, and texts ranked for it",
            f'{vsehub} explain {hub} {gallery}/0001.png --text "a river" --text "a forest" --out {picture}',
        ),
        (
            "search the test pictures with words of your own",
            f"{vsehub} index {gallery} --model {hub} --out {index} && "
            f'{vsehub} search {index} "two planes at the airport" --html {page}',
        ),
        ("every metric, with intervals", f"{vsehub} evaluate {hub} --data {data} --split test"),
    ]
