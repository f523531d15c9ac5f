"""Contact sheets: tiles where they belong, frames by judgement, texts beside."""

import numpy as np
from PIL import Image, ImageColor

from vsehub.plots.contact_sheet import GAP, LINES, NOTE, RIGHT, TILE, WRONG, Row, Tile, contact_sheet, outlined


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


def test_a_legend_stands_above_the_rows_and_moves_them_down():
    row = Row([Tile(Image.new("RGB", (9, 9), "red"))])
    plain, sheet = contact_sheet([row]), contact_sheet([row], "green: right\ngrey: wrong")
    moved = 2 * NOTE + GAP
    assert sheet.size == (plain.size[0], plain.size[1] + moved)
    assert colours(sheet, GAP, GAP + moved) == {(255, 0, 0)}
    assert min(map(sum, colours(sheet, GAP, GAP, TILE, moved))) < 100


def test_the_outline_lies_between_cells_and_the_cross_in_its_cell():
    image = Image.new("RGB", (80, 80), "red")
    cells = [[False] * 4 for _ in range(4)]
    cells[1][1] = cells[1][2] = True  # 20 to 60 across, 20 to 40 down
    drawn = outlined(image, cells, peak=(3, 0))
    white = {(255, 255, 255)}
    for x, y in ((20, 30), (60, 30), (30, 20), (50, 20), (30, 40), (50, 40)):
        assert white <= colours(drawn, x - 1, y - 1, 3, 3), (x, y)
    assert colours(drawn, 36, 24, 8, 12) == {(255, 0, 0)}  # between two cells of the outline there is no line
    assert (0, 0, 0) in colours(drawn, 5, 65, 10, 10) and colours(image, 0, 0, 80, 80) == {(255, 0, 0)}
    assert not white & colours(outlined(image, [[False] * 4] * 4), 0, 0, 80, 80)
