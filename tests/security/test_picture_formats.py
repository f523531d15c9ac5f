"""One list of picture formats: what is opened anywhere is on it, and whoever opens a picture names formats."""

import ast
from functools import cache
from pathlib import Path

import pytest
from package_files import package_files
from PIL import Image

import vsehub
from vsehub.hub_cards import handler
from vsehub.processing import pixels, raster

ROOT = Path(vsehub.__file__).parent


@cache
def sources():
    """Path and syntax tree of each file of the package that speaks of pictures."""
    texts = {path: path.read_text(encoding="utf-8") for path in package_files(ROOT)}
    return [(path, ast.parse(text)) for path, text in texts.items() if "Image" in text]


@cache
def opening_calls():
    """Each call of `Image.open`."""
    found = []
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Image.open", "PIL.Image.open"):
                found.append(pytest.param(node, id=f"{path.relative_to(ROOT)}:{node.lineno}"))
    return found


@pytest.mark.parametrize("call", opening_calls())
def test_every_opening_call_names_formats(call):
    assert any(keyword.arg == "formats" for keyword in call.keywords), ast.unparse(call)


def test_the_scan_sees_both_doors():
    files = {param.id.partition(":")[0] for param in opening_calls()}
    assert {"processing/pixels.py", "hub_cards/handler.py"} <= files


def test_pillow_is_opened_in_no_other_way():
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "PIL.Image":
                assert "open" not in {name.name for name in node.names}, path


def test_the_lists_that_travel_are_part_of_the_one_list():
    assert set(handler.FORMATS) <= set(pixels.FORMATS)
    assert set(raster.DRIVERS) <= set(pixels.FORMATS)


def test_nothing_on_the_list_starts_a_program_or_names_files():
    Image.init()
    assert not {"EPS", "WMF", "MPO", "FPX", "MIC", "IM", "GBR", "SPIDER", "FITS", "HDF5", "GRIB"} & set(pixels.FORMATS)
