"""Rows of tiles, pictures or texts, with scores: hits of a search, or the belief of a model.

Needs Pillow alone: the demos also draw with it in a process that cannot import vsehub.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

TILE, GAP, NOTE, LINES = 176, 12, 18, 360  # pixels: of a tile, around it, of a line below it, of texts beside tiles
RIGHT, WRONG, PLAIN = "#1a9641", "#999999", "black"


@dataclass
class Tile:
    """A picture or a text, the note below it, and whether it is a right answer (None: not judged)."""

    content: Image.Image | str
    note: str = ""
    right: bool | None = None


@dataclass
class Row:
    """Tiles side by side, and texts with scores beside them: (text, score, whether it is right or None)."""

    tiles: list[Tile]
    lines: Sequence[tuple[str, float, bool | None]] = field(default=())


def contact_sheet(rows: list[Row]) -> Image.Image:
    """Draw rows below each other; right answers are green, wrong ones grey."""
    columns = max(len(row.tiles) for row in rows)
    note = NOTE if any(tile.note for row in rows for tile in row.tiles) else 0
    beside = LINES if any(row.lines for row in rows) else 0
    height = TILE + note + GAP
    sheet = Image.new("RGB", (GAP + columns * (TILE + GAP) + beside, GAP + len(rows) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        top = GAP + number * height
        for column, tile in enumerate(row.tiles):
            _draw_tile(sheet, pen, tile, GAP + column * (TILE + GAP), top)
        _draw_lines(pen, row.lines, GAP + columns * (TILE + GAP), top)
    return sheet


def enlarged(image: Image.Image) -> Image.Image:
    """An image as a square tile: RGB, TILE pixels a side."""
    return image.convert("RGB").resize((TILE, TILE), Image.Resampling.BICUBIC)


def _draw_tile(sheet: Image.Image, pen: ImageDraw.ImageDraw, tile: Tile, left: int, top: int):
    if isinstance(tile.content, str):
        pen.multiline_text((left + 6, top + 6), textwrap.fill(tile.content, 26), fill=PLAIN, spacing=3)
    else:
        sheet.paste(enlarged(tile.content), (left, top))
    if tile.right is not None:
        colour = RIGHT if tile.right else WRONG
        pen.rectangle((left - 2, top - 2, left + TILE + 1, top + TILE + 1), outline=colour, width=4)
    pen.text((left, top + TILE + 4), tile.note, fill=PLAIN)


def _draw_lines(pen: ImageDraw.ImageDraw, lines: Sequence[tuple[str, float, bool | None]], left: int, top: int):
    for place, (text, score, right) in enumerate(lines):
        line = top + place * (TILE // max(5, len(lines)))
        colour = PLAIN if right is None else RIGHT if right else WRONG
        words = textwrap.shorten(f"{score:.3f}  {text}", 58, placeholder=" ...")
        pen.rectangle((left - 2, line + 2, left + 2, line + 14), fill=colour)
        pen.text((left + 8, line + 2), words, fill=colour)


__all__ = ["Row", "Tile", "contact_sheet", "enlarged"]
