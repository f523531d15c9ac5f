"""Contact sheets: tiles where they belong, frames by judgement, texts beside."""

import numpy as np
from PIL import Image, ImageColor

from vsehub.plots.contact_sheet import GAP, LINES, NOTE, RIGHT, TILE, WRONG, Row, Tile, contact_sheet


def colours(sheet, left, top, width=TILE, height=TILE):
    return set(map(tuple, np.asarray(sheet, int)[top : top + height, left : left + width].reshape(-1, 3).tolist()))


def test_tiles_stand_side_by_side_and_frames_tell_right_from_wrong():
    red, blue = Image.new("RGB", (9, 9), "red"), Image.new("RGBA", (5, 9), "blue")
    sheet = contact_sheet(
        [Row([Tile("a query"), Tile(red, "1. 0.5", True), Tile(blue, "2. 0.1", False)]), Row([Tile(red)])]
    )
    assert sheet.size == (GAP + 3 * (TILE + GAP), GAP + 2 * (TILE + NOTE + GAP))
    second, third = GAP + TILE + GAP, GAP + 2 * (TILE + GAP)
    assert colours(sheet, second, GAP) == {(255, 0, 0), ImageColor.getrgb(RIGHT)}
    assert colours(sheet, third, GAP) == {(0, 0, 255), ImageColor.getrgb(WRONG)}
    words = colours(sheet, GAP, GAP)  # of the query, with soft edges
    assert (255, 255, 255) in words and min(map(sum, words)) < 100
    below = GAP + TILE + NOTE + GAP
    assert colours(sheet, GAP, below) == {(255, 0, 0)} and colours(sheet, second, below) == {(255, 255, 255)}


def test_texts_stand_beside_the_tiles_and_are_cut_where_they_are_long():
    lines = [("a river", 0.5, True), ("a very long caption " * 9, 0.4, None), ("a road", 0.1, False)]
    sheet = contact_sheet([Row([Tile(Image.new("RGB", (9, 9), "red"))], lines)])
    assert sheet.size == (GAP + TILE + GAP + LINES, GAP + TILE + GAP)
    beside = colours(sheet, GAP + TILE + GAP, 0, LINES, sheet.size[1])
    assert {ImageColor.getrgb(RIGHT), ImageColor.getrgb(WRONG)} <= beside and min(map(sum, beside)) < 100
    assert colours(sheet, sheet.size[0] - 2, 0, 2, sheet.size[1]) == {(255, 255, 255)}
