"""Draw the results of the README: `python benchmarks/plot_results.py` writes docs/pictures/results.png.

The rows are read from the README's own table, so that picture and table cannot differ. A cell of rSum is one number,
several (one for each seed) or `mean +- deviation`. Needs matplotlib: `pip install "vsehub[plot]"`.
"""

import re
import statistics
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "pictures" / "results.png"
BEGIN, END = "<!-- RESULTS", "<!-- END OF RESULTS"


def read_rows(text: str) -> list[tuple[str, str, float, float]]:
    """The rows of the table: what, data, rSum, and half the width of its error bar (0: one number)."""
    part = text[text.index(BEGIN) : text.index(END)]
    lines = [line for line in part.splitlines() if line.startswith("|")][2:]  # without the head and its rule
    rows = []
    for line in lines:
        what, data, *_, cell = (part.strip().replace("*", "") for part in line.strip("|").split("|"))
        numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", re.sub(r"\(.*\)", "", cell))]
        if "+-" in cell:
            value, spread = numbers
        else:
            value, spread = statistics.mean(numbers), (max(numbers) - min(numbers)) / 2
        rows.append((what.split(";")[0], rows[-1][1] if data == "the same" else data, value, spread))
    return rows


def draw(rows: list[tuple[str, str, float, float]], path: Path):
    """Draw a bar for each row."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [textwrap.fill(f"{what} · {data.split(', ')[0]}", 44) for what, data, *_ in rows]
    figure, axes = pyplot.subplots(figsize=(8, 0.75 * len(rows) + 0.9), layout="constrained")
    colours = ["#888888" if "sparse only" in what else "#2a6fbb" for what, *_ in rows]
    bars = axes.barh(names, [row[2] for row in rows], xerr=[row[3] for row in rows], color=colours, ecolor="#222222")
    axes.bar_label(bars, [f"{row[2]:.1f}" for row in rows], padding=4)
    axes.invert_yaxis()
    axes.set_xlim(0, 600)
    axes.set_xlabel("rSum: R@1 + R@5 + R@10 both ways, of 600; rows of different data do not compare", fontsize=9)
    axes.xaxis.set_label_coords(0.2, -0.08)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    draw(read_rows((ROOT / "README.md").read_text(encoding="utf-8")), PICTURE)
    print(PICTURE.relative_to(ROOT))
