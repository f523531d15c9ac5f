"""Write the model card: what the model is, how to use it, what was measured and how, and its limits."""

import importlib.metadata
import json
import math
import platform
import re
from collections.abc import Mapping
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from .. import __version__
from ..files.whole import write_text
from .markdown import fenced, one_line, plain, public_name

TEMPLATES = Path(__file__).parent / "templates"
REPO_ID = re.compile(r"(?!.*(--|\.\.))\w[\w.-]{0,95}(/\w[\w.-]{0,95})?", re.ASCII)
SOMEWHERE = "path/to/this/repository"  # in the examples, until `push` knows the repository
KS = (1, 5, 10)  # of the recalls at the top
PICTURE_NAME = re.compile(r"\w[\w.-]*", re.ASCII)  # no characters with a meaning in Markdown or in an address
LICENSE_ID = re.compile(r"[a-z0-9][a-z0-9.-]*")
NOT_IN_LICENSE_ID = re.compile(r"[^a-z0-9.]+")  # the Hub requires an id as license_name, too; the text shows the name
CITATION = """@inproceedings{{{key},
  title     = {{{title}}},
  author    = {{{authors}}},
  booktitle = {{{venue}}}, year = {{{year}}}, note = {{{note}}}
}}"""


def write_model_card(
    folder,
    *,
    model,
    name,
    results,
    training,
    base_models=(),
    datasets=(),
    license=None,
    languages=("en",),
    examples=(),
) -> Path:
    """Write `README.md` into a folder that holds a saved model, and return its path.

    Args:
        folder: where the model, and its processor, were saved.
        model: the model, for its architecture.
        name: id of the repository (`owner/name`), used in the examples, or any title.
        results: evaluations, each a mapping with `dataset`, `split` and `metrics` (name -> number) and, where known,
            `dataset_id` (on the Hub), `protocol`, `selected` (how the checkpoint was chosen), `seed`, `command`,
            `intervals` (name -> (low, high), 95 % confidence).
        training: key facts, name -> value: a line for each stage, the objective, data, ...
        base_models: models from which the towers started, Hub ids where there are.
        datasets: training data, names or a mapping of names to licences; Hub ids where there are.
        license: of the weights; an identifier of the Hub such as `apache-2.0`.
        languages: codes of the languages of the captions.
        examples: pictures in the folder, each a mapping with `src` (file name), `labels` and `output`, a list
            of `{"label", "score"}`: the Hub's widget shows them.

    Raises:
        ValueError: no name, a figure without its data or not finite, or no `templates/<model_type>.yaml`.
    """
    folder, name, source = Path(folder), one_line(name), TEMPLATES / f"{model.config.model_type}.yaml"
    if not name or not source.exists():
        raise ValueError(f"a model card needs a name, got {name!r}, and {source} with the system and its paper")
    about = yaml.safe_load(source.read_text(encoding="utf-8"))
    results = [_evaluation(number, **row) for number, row in enumerate(results)]
    terms = datasets if isinstance(datasets, Mapping) else dict.fromkeys(datasets)
    card = ModelCard.from_template(
        _metadata(folder, name, about["system"], results, base_models, terms, license, languages, examples),
        str(TEMPLATES / "model_card.md"),
        name=name,
        about=about,
        results=results,
        main=_main(results),
        commands=list(dict.fromkeys(row["command"] for row in results if row["command"])),
        training=dict(training),
        bases=[public_name(base) for base in base_models if base],
        data_licenses={public_name(dataset): value for dataset, value in terms.items() if dataset},
        license_text=license,
        tongues=languages,
        examples=[_example(number, **example) for number, example in enumerate(examples)],
        **_about_files(folder, model, name, about),
    )
    write_text(folder / "README.md", f"{card}\n")
    return folder / "README.md"


def _about_files(folder: Path, model, name: str, about: dict) -> dict:
    """Values of the template about the files and the architecture."""
    return {
        "plain": plain,
        "fenced": fenced,
        "dim": model.config.projection_dim,
        "parts": _parts(model),
        "source": json.dumps(name if "/" in name and REPO_ID.fullmatch(name) else SOMEWHERE),
        "sources": sorted(path.name for path in folder.glob("*.py")),
        "has_sentence_transformers": (folder / "modules.json").exists(),
        "cutoff": _cutoff(getattr(model.config, "text_cutoff", None)),
        "has_belief": getattr(model, "instruction_model", None) is not None,
        "citation": CITATION.format(**about),
        "versions": _versions(),
    }


def _evaluation(
    number,
    dataset="",
    split="",
    metrics=(),
    dataset_id=None,
    protocol=None,
    selected=None,
    seed=None,
    command=None,
    intervals=None,
) -> dict:
    """Complete and check one evaluation."""
    if not (one_line(dataset) and one_line(split) and metrics):
        raise ValueError(f"results[{number}] needs dataset, split and metrics: a figure needs its data")
    values, spans = {}, {}
    for metric, value in metrics.items():
        if isinstance(value, str) or not math.isfinite(value):
            raise ValueError(f"results[{number}]: {metric} is {value!r}, not a finite number; measure again")
        pretty = one_line(metric).replace("_recall@", " R@").replace("_to_", "-to-").replace("_", " ")
        values[pretty] = float(f"{float(value):.5g}")
        if metric in (intervals or {}):
            spans[pretty] = "{:.4g} to {:.4g}".format(*intervals[metric])
    how = {"protocol": protocol, "selected": selected, "seed": seed}
    how = {key: one_line(value) for key, value in how.items() if value is not None}
    row = {"dataset": public_name(dataset), "dataset_id": one_line(dataset_id or ""), "split": one_line(split)}
    return row | {"metrics": values, "how": how, "command": command, "intervals": spans, "note": _note(how)}


def _note(how: dict[str, str]) -> str:
    """How a figure came about, to stand behind the name of the split."""
    said = {"protocol": "{}", "selected": "checkpoint chosen by {}", "seed": "seed {}"}
    return "".join(f"; {text.format(plain(how[key]))}" for key, text in said.items() if key in how)


def _main(results: list[dict]) -> dict | None:
    """The evaluation of the table at the top, on a test split where there is one, with a row for each direction."""
    tested = [row for row in results if row["split"].startswith("test")]
    if not results:
        return None
    main = (tested or results)[0]
    ways = [name.removesuffix(" R@1") for name in main["metrics"] if name.endswith(" R@1")]
    ways += [name.removesuffix(" R@10") for name in main["metrics"] if name.endswith(" R@10")]
    plain_ways = [way for way in dict.fromkeys(ways) if not way.startswith("duplicate")]  # these are among all figures
    directions = {way: [_cell(main, f"{way} R@{k}") for k in KS] for way in plain_ways}
    return {**main, "tested": bool(tested), "directions": directions}


def _cell(row: dict, metric: str) -> str:
    """A figure with its interval, if there are any."""
    value = row["metrics"].get(metric)
    if value is None:
        return ""
    span = row["intervals"].get(metric)
    return f"{value:.1f} ({span})" if span else f"{value:.1f}"


def _example(number, src="", labels=(), output=()) -> dict:
    """Complete and check one example; the widget separates labels by commas."""
    if not PICTURE_NAME.fullmatch(str(src)) or not labels:
        raise ValueError(
            f"examples[{number}] needs src, the name of a picture in the folder (letters, digits, - _ .), and labels"
        )
    clean = [one_line(label).replace(",", ";") for label in labels]
    rows = [{"label": one_line(r["label"]).replace(",", ";"), "score": round(float(r["score"]), 4)} for r in output]
    return {"src": src, "candidate_labels": ", ".join(clean), "output": rows}


def _metadata(folder, name, system, results, bases, terms, license, languages, examples) -> ModelCardData:
    """Metadata for the Hub: ids, tags, and the figures as `model-index`. Names that are no ids are only in the text."""
    tags = ["image-text-retrieval", "cross-modal-retrieval", system.lower(), "custom_code"]
    if system == "PIR":
        tags.append("remote-sensing")
    if (folder / "modules.json").exists():
        tags.append("sentence-transformers")
    bases, datasets = _hub_ids(bases), _hub_ids(terms)
    license_id, license_name = _license(license)
    return ModelCardData(
        language=[one_line(language) for language in languages],
        license=license_id,
        license_name=license_name,
        library_name="transformers",
        pipeline_tag="zero-shot-image-classification",
        tags=tags,
        base_model=bases or None,
        base_model_relation="finetune" if bases else None,
        datasets=datasets or None,
        model_name=name,
        widget=[
            {**_example(number, **example), "example_title": f"example {number + 1}"}
            for number, example in enumerate(examples)
        ]
        or None,
        eval_results=[_eval_result(row, *metric) for row in results for metric in row["metrics"].items()] or None,
    )


def _hub_ids(names) -> list[str]:
    """Those of the names that may be ids of the Hub, and no paths of this machine."""
    return [name for name in names if REPO_ID.fullmatch(name or "") and public_name(name) == name]


def _license(text: str | None) -> tuple[str | None, str | None]:
    """`license` and `license_name` of the metadata; a licence that the Hub has no id for is `other`, with its name."""
    if not text:
        return None, None
    name = one_line(text)
    if LICENSE_ID.fullmatch(name):
        return name, None
    return "other", NOT_IN_LICENSE_ID.sub("-", name.lower()).strip("-.") or "unnamed"


def _eval_result(row, metric, value) -> EvalResult:
    dataset_id, slug = row["dataset_id"], re.sub(r"\W+", "-", row["dataset"].lower()).strip("-")
    return EvalResult(
        task_type="zero-shot-image-classification",
        task_name="Image-text retrieval",
        dataset_type=dataset_id if REPO_ID.fullmatch(dataset_id) else slug or "unnamed",
        dataset_name=row["dataset"],
        dataset_split=row["split"],
        metric_type=re.sub(r"\W+", "-", metric.replace("@", " at ").lower()).strip("-") or "unnamed",
        metric_name=metric,
        metric_value=value,
        metric_args=row["how"],
    )


def _cutoff(facts: dict | None) -> str:
    """What the default cut-off of text queries does, in one line; nothing where it is not known."""
    if facts is None:
        return ""
    what = (
        f"queries about things that no validation caption names ({facts['queries']} queries, {facts['images']:,} "
        "validation pictures)"
    )
    if facts["cosine"] is None:
        return (
            "No default cut-off for text queries: the model separates too weakly. One that hides all from "
            f"{100 * facts['rejected']:.0f} % of {what} keeps only {100 * facts['kept']:.0f} % of the right pictures."
        )
    return (
        f"Default cut-off of text queries in a search: cosine {facts['cosine']:.3f}. It hides all from "
        f"{100 * facts['rejected']:.0f} % of {what}, as estimated for as many other pictures, and keeps "
        f"{100 * facts['kept']:.0f} % of the right pictures; among more pictures it hides less."
    )


def _parts(model) -> dict[str, str]:
    """Describe the architecture."""
    config = model.config
    prior = getattr(model, "instruction_model", None)
    towers = [model.vision_model, model.text_model, *([] if prior is None else [prior])]
    sizes = [sum(p.numel() for p in part.parameters()) for part in (*towers, model)]
    parts = {
        "vision tower": f"{config.vision_config.model_type}, {sizes[0]:,} parameters",
        "text tower": f"{config.text_config.model_type}, {sizes[1]:,} parameters",
        "heads and the rest": f"{sizes[-1] - sum(sizes[:-1]):,} parameters",
        "images": f"{config.image_size} x {config.image_size} pixels",
        "arithmetic": "as the official code (legacy=True)" if config.legacy else "corrected (legacy=False)",
    }
    if getattr(config, "use_decoder", False):
        parts["decoder"] = f"mask tokens: {config.num_mask_tokens}, layers: {config.decoder_layers}"
    if prior is not None:
        parts["instruction encoder"] = f"{config.instruction_config.model_type}, {sizes[2]:,} parameters, frozen"
    conversion = getattr(config, "conversion", None) or {}
    return parts | {
        key.replace("_", " "): conversion[key] for key in ("instruction_weights", "text_weights") if key in conversion
    }


def _versions() -> str:
    names = ("torch", "transformers", "huggingface_hub")
    others = [f"{name} {importlib.metadata.version(name)}" for name in names]
    return ", ".join([f"Python {platform.python_version()}", *others, f"vsehub {__version__}"])
