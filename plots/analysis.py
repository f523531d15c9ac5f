"""Analyses of embedding spaces as one page: spectra, recall by caption, dense texts, widths. Needs matplotlib."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from .curves import load_figure, save_figure, shown

PANEL = (5.6, 3.6)  # inches
COLUMNS = 2


def draw_analysis(results: dict[str, dict], outs: Sequence[str | Path]):
    """Draw what `evaluation.analyse.analysis` returned, all models in each panel.

    Args:
        results: name of a model -> its figures.
        outs: files, .png, .svg or .pdf.

    Raises:
        ImportError: matplotlib is not there.
        ValueError: a format that cannot be written.
    """
    results = {shown(name): each for name, each in results.items()}
    panels = [
        *((_spectrum, kind) for kind in ("image", "text")),
        *((_recall_by, key) for key in ("recall_by_words", "recall_by_content_words")),
        (_ranks, ""),
    ]
    if all("dense_recall" in each for each in results.values()):
        panels.append((_dense, ""))
    if any("recall_by_width" in each for each in results.values()):
        panels.append((_widths, ""))
    rows = -(-len(panels) // COLUMNS)
    figure = load_figure()(figsize=(PANEL[0] * COLUMNS, PANEL[1] * rows), layout="constrained")
    places = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes, (draw, what) in zip(places, panels):
        draw(axes, results, what)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        axes.title.set_size("medium")  # the longest is as wide as its panel
    for axes in places[len(panels) :]:
        axes.axis("off")
    for out in outs:
        save_figure(figure, out)


def _spectrum(axes, results: dict[str, dict], kind: str):
    for name, each in results.items():
        held = [100 * share for share in accumulate(each[kind]["spectrum"])]
        axes.plot(range(1, len(held) + 1), held, label=f"{name}: effective rank {each[kind]['effective_rank']:.0f}")
    axes.set(title=f"variance of the {kind} embeddings", xlabel="directions", ylabel="% held", xscale="log")


def _recall_by(axes, results: dict[str, dict], key: str):
    for name, each in results.items():
        bins = each[key]
        labels = [f"{b['from']}-{b['to']}" if b["to"] > b["from"] else str(b["from"]) for b in bins]
        axes.plot(labels, [b["recall@1"] for b in bins], marker="o", label=name)
    what = "words" if key == "recall_by_words" else "distinct content words"
    axes.set(title=f"text to image R@1 by {what} of the caption", xlabel=what, ylabel="R@1, %")


def _ranks(axes, results: dict[str, dict], _: str):
    measures = {"images: effective rank": "image", "texts: effective rank": "text"}
    for place, (name, each) in enumerate(results.items()):
        _bars(axes, place, len(results), list(measures), [each[m]["effective_rank"] for m in measures.values()], name)
    axes.set(title="effective rank", ylabel="directions")


def _dense(axes, results: dict[str, dict], _: str):
    for place, (name, each) in enumerate(results.items()):
        recalls = each["dense_recall"]
        _bars(axes, place, len(results), [key.replace("recall", "R") for key in recalls], list(recalls.values()), name)
    axes.set(title="a caption finds the dense text of its image", ylabel="%")


def _bars(axes, place: int, of: int, labels: list[str], heights: list[float], name: str):
    """The bars of one of several models, beside those of the others."""
    width = 0.8 / of
    axes.bar([x + (place - (of - 1) / 2) * width for x in range(len(labels))], heights, width, label=name)
    axes.set_xticks(range(len(labels)), labels)
    axes.margins(y=0.45)  # room for the legend


def _widths(axes, results: dict[str, dict], _: str):
    for name, each in results.items():
        rows = each.get("recall_by_width", [])
        axes.plot([row["width"] for row in rows], [row["rsum"] for row in rows], marker="o", label=name)
    axes.set(title="rSum by width", xlabel="first numbers of the embedding", ylabel="rSum", xscale="log")


__all__ = ["draw_analysis"]
