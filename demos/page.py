"""The page that a demo ends in: metrics, pictures and next steps in one HTML file that loads nothing."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..files.whole import write_text

STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem}
body{color:#222;background:#fff}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse}th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #ddd}
th:first-child,td:first-child{text-align:left}
img{max-width:100%;height:auto;border:1px solid #ccc}pre{background:#f4f4f4;padding:.7rem;overflow-x:auto}
small{color:#555}"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # the page loads nothing and runs nothing
RECALLS = [f"{way}_recall@{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)]


@dataclass
class Figures:
    """A table of numbers that `metrics.json` holds.

    Args:
        title: above the table.
        columns: titles of the columns.
        rows: (name, for each column the path of its number in `metrics.json`, as keys).
        note: a sentence below it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[str, ...]]]]
    note: str = ""


@dataclass
class Picture:
    """A PNG file, its title, what it shows, and the text for who does not see it."""

    path: Path
    title: str
    about: str
    alternative: str


def recall_figures(title: str, names: Sequence[str], note: str = "") -> Figures:
    """Recalls both ways and their sum, one line for each name at the top of `metrics.json`."""
    columns = ["image to text R@1", "R@5", "R@10", "text to image R@1", "R@5", "R@10", "rSum", "seconds"]
    keys = [*RECALLS, "rsum", "seconds"]
    return Figures(title, columns, [(name, [(name, key) for key in keys]) for name in names], note)


def write_page(
    path: str | Path,
    title: str,
    about: str,
    metrics: dict,
    parts: Sequence[Figures | Picture],
    next_steps: Sequence[tuple[str, str]],
):
    """Write the page.

    Args:
        path: of the file.
        title, about: heading, and one paragraph.
        metrics: what `metrics.json` holds; every number of the page is looked up there.
        parts: tables and pictures, in order.
        next_steps: (why, command).
    """
    drawn = [_picture(part) if isinstance(part, Picture) else _figures(part, metrics) for part in parts]
    commands = "\n".join(f"# {html.escape(why)}\n{html.escape(command)}" for why, command in next_steps)
    write_text(
        path,
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><style>{STYLE}</style></head>\n'
        f"<body><h1>{html.escape(title)}</h1>\n<p>{html.escape(about)}</p>\n"
        + "\n".join(drawn)
        + f"\n<h2>What to try next</h2>\n<pre>{commands}</pre>\n</body></html>\n",
    )


def _figures(part: Figures, metrics: dict) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in ("", *part.columns))
    lines = []
    for name, keys in part.rows:
        cells = "".join(_cell(metrics, key) for key in keys)
        lines.append(f"<tr><td>{html.escape(name)}</td>{cells}</tr>")
    note = f"\n<p><small>{html.escape(part.note)}</small></p>" if part.note else ""
    body = "\n".join(lines)
    return f"<h2>{html.escape(part.title)}</h2>\n<table><tr>{head}</tr>\n{body}\n</table>{note}"


def _cell(metrics: dict, key: tuple[str, ...]) -> str:
    """A number of `metrics.json`; the attribute says which, so that a reader (and a test) can look it up."""
    value = metrics
    for name in key:
        value = value[name]
    shown = "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)
    return f'<td data-metric="{html.escape("/".join(key))}">{shown}</td>'


def _picture(part: Picture) -> str:
    data = base64.b64encode(part.path.read_bytes()).decode()
    return (
        f"<h2>{html.escape(part.title)}</h2>\n<p>{html.escape(part.about)}</p>\n"
        f'<img alt="{html.escape(part.alternative)}" src="data:image/png;base64,{data}">'
    )


__all__ = ["Figures", "Picture", "recall_figures", "write_page"]
