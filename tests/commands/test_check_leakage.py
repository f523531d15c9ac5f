"""`vsehub check-leakage`: the exit status tells, nothing is skipped in silence, names are shown and not obeyed."""

import io
import json

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from vsehub.commands.check_leakage import table
from vsehub.data.leakage import Leak


def picture(seed: int) -> Image.Image:
    """Blobs at three scales: as different as photographs are."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize((96, 96), 3), float)
        for n in (3, 8, 24)
    ]
    return Image.fromarray((0.5 * layers[0] + 0.3 * layers[1] + 0.2 * layers[2]).astype(np.uint8))


def encoded(image, kind="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write(folder, splits):
    folder.mkdir()
    for split, images in splits.items():
        rows = [{"image": {"bytes": data, "path": None}, "image_id": f"{split} {i}"} for i, data in enumerate(images)]
        Dataset.from_list(rows).to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Two splits that share nothing, and a source that has two of the first one's pictures and one that is none."""
    root = tmp_path_factory.mktemp("leakage")
    some, others = [encoded(picture(i)) for i in range(6)], [encoded(picture(i)) for i in range(50, 56)]
    turned = encoded(picture(2).transpose(Image.Transpose.ROTATE_90), "JPEG", quality=50)
    clean = write(root / "clean", {"train": some, "test": others})
    return clean, write(root / "leaky", {"test": [*others, some[0], turned, b"<html>"]})


def test_the_exit_status_tells_and_nothing_is_skipped_in_silence(sources, vsehub, tmp_path):
    clean, leaky = sources
    assert "0 pairs" in vsehub("check-leakage", clean)
    said = vsehub("check_leakage", clean, leaky, "--json", tmp_path / "leaks.json", status=1)
    assert "2 pairs (1 exact, 1 near); 2 of 9 images of B" in said and "1 images do not decode: test 8" in said
    written = json.loads((tmp_path / "leaks.json").read_text())
    assert [(leak["a_id"], leak["b_id"]) for leak in written["leaks"]] == [("train 0", "test 6"), ("train 2", "test 7")]
    printed = json.loads(vsehub("check-leakage", "--data", clean, "--other", leaky, "--json", status=1))
    assert printed == written and printed["unreadable"] == [[], ["test 8"]]


def test_what_is_wrong_is_one_line_before_any_picture_is_looked_at(sources, vsehub, tmp_path):
    clean, _ = sources
    said = vsehub("check-leakage", clean, "--json", tmp_path, status=2)
    assert "is a folder" in said and "looking" not in said
    assert "--image_column" in vsehub("check-leakage", clean, "--image_column", "photo", status=2)
    vsehub("check-leakage", clean, "--split_b", "dev", status=2)
    assert "DATA is missing" in vsehub("check-leakage", status=2)


def test_a_name_that_would_command_the_terminal_is_shown():
    leak = Leak(0, 0, "a\x1b[2J\nforged", "b", "near", "as it is", 0.97)
    lines = table([leak], 3).splitlines()
    assert len(lines) == 2 and r"a\x1b[2J forged ~ b" in lines[1]


def test_images_of_one_id_are_counted_one_by_one():
    """Pairs of one picture of B count it, and those with its pixels, once."""
    leaks = [Leak(row, 0, f"a{row}", "x", "exact", "as it is", 1.0, b_same=["x", "x", "x", "x"]) for row in range(2)]
    assert "5 of 5 images of B" in table(leaks, 5)
