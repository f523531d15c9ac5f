"""Rows of tiles, pictures or texts, with scores: hits of a search, or the belief of a model.

Needs Pillow alone: the demos also draw with it in a process that cannot import vsehub.
"""

import itertools
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


def contact_sheet(rows: list[Row], legend: str = "") -> Image.Image:
    """Draw a legend, if there is one, and rows below each other; right answers are green, wrong ones grey."""
    columns = max(len(row.tiles) for row in rows)
    note = NOTE if any(tile.note for row in rows for tile in row.tiles) else 0
    beside = LINES if any(row.lines for row in rows) else 0
    height, start = TILE + note + GAP, GAP + (len(legend.splitlines()) * NOTE + GAP if legend else 0)
    sheet = Image.new("RGB", (GAP + columns * (TILE + GAP) + beside, start + len(rows) * height), "white")
    pen = ImageDraw.Draw(sheet)
    pen.multiline_text((GAP, GAP), legend, fill=PLAIN, spacing=4)
    for number, row in enumerate(rows):
        top = start + number * height
        for column, tile in enumerate(row.tiles):
            _draw_tile(sheet, pen, tile, GAP + column * (TILE + GAP), top)
        _draw_lines(pen, row.lines, GAP + columns * (TILE + GAP), top)
    return sheet


def enlarged(image: Image.Image) -> Image.Image:
    """An image as a square tile: RGB, TILE pixels a side."""
    return image.convert("RGB").resize((TILE, TILE), Image.Resampling.BICUBIC)


def outlined(image: Image.Image, cells: Sequence[Sequence[bool]], peak: tuple[int, int] | None = None) -> Image.Image:
    """Draw the outline of some cells of a grid over an image, and a cross on one of them.

    Args:
        image: of any size; it is not changed.
        cells: rows of booleans: the cells inside the outline.
        peak: (row, column) of the cell with the cross.
    """
    drawn, high, wide = image.copy(), len(cells), len(cells[0])
    pen = ImageDraw.Draw(drawn)
    for (row, column), (down, right) in itertools.product(
        itertools.product(range(high), range(wide)), ((0, 1), (1, 0), (0, -1), (-1, 0))
    ):
        beside = row + down, column + right
        inside = 0 <= beside[0] < high and 0 <= beside[1] < wide and cells[beside[0]][beside[1]]
        if cells[row][column] and not inside:
            first = row + (down > 0), column + (right > 0)
            ends = (first, (first[0] + abs(right), first[1] + abs(down)))
            pen.line([(x * image.width / wide, y * image.height / high) for y, x in ends], fill="white", width=2)
    if peak is not None:
        x, y = (peak[1] + 0.5) * image.width / wide, (peak[0] + 0.5) * image.height / high
        for shift in (5, -5):
            pen.line((x - 5, y - shift, x + 5, y + shift), fill=PLAIN, width=2)
    return drawn


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


__all__ = ["Row", "Tile", "contact_sheet", "enlarged", "outlined"]
