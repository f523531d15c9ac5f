"""The leakage guard: copies of every kind are found, distinct pictures are not."""

import io
import os
import shutil

import numpy as np
import pytest
from datasets import Dataset
from photos import paint
from PIL import Image

from vsehub.__main__ import main
from vsehub.data.leakage import TURNS, find_leaks, prints_of, prints_of_split, turn_all


def picture(seed: int, size: int = 96) -> Image.Image:
    """Blobs at three scales: as different as photographs are."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize((size, size), 3), float)
        for n in (3, 8, 24)
    ]
    return Image.fromarray((0.5 * layers[0] + 0.3 * layers[1] + 0.2 * layers[2]).astype(np.uint8))


def encoded(image, kind="PNG", **kwargs) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **kwargs)
    return buffer.getvalue()


def prints(images):
    return prints_of([{"image": data if isinstance(data, bytes) else encoded(data)} for data in images], "pictures")


@pytest.fixture(scope="module")
def gallery():
    return prints([picture(seed) for seed in range(40)])


@pytest.mark.parametrize("turn", range(8))
def test_a_copy_is_found_however_it_is_turned_resized_and_encoded(gallery, turn):
    for seed, (size, quality) in enumerate([(48, 40), (96, 60), (192, 95)]):
        pixels = turn_all(np.asarray(picture(seed))[None], turn)[0]  # the copy is turned, A is not
        copy = encoded(Image.fromarray(pixels).resize((size, size)), "JPEG", quality=quality)
        leaks = find_leaks(gallery, prints([copy]))
        assert [(leak.a_row, leak.kind, leak.transform) for leak in leaks] == [(seed, "near", TURNS[turn])]


def test_the_same_bytes_and_the_same_pixels_are_exact(gallery):
    leaks = find_leaks(gallery, prints([picture(7), encoded(picture(3), "TIFF")]))
    assert [(leak.a_row, leak.b_row, leak.kind) for leak in leaks] == [(3, 1, "exact"), (7, 0, "exact")]


def test_other_pictures_are_left_alone(gallery):
    assert find_leaks(gallery, prints([picture(seed) for seed in range(100, 200)])) == []


def test_flat_pictures_are_paired_by_their_pixels_alone():
    sea, sand = Image.new("RGB", (64, 64), (20, 60, 90)), Image.new("RGB", (64, 64), (200, 180, 130))
    found = prints([sea, sand])
    assert found.flat == 2
    leaks = find_leaks(found, prints([sea, Image.new("RGB", (32, 32), (20, 60, 90))]))
    assert [(leak.a_row, leak.b_row, leak.kind) for leak in leaks] == [(0, 0, "exact")]


def test_leaks_between_folders_are_found_whatever_their_names(tmp_path, capsys):
    for number in range(4):
        paint(tmp_path / "a" / f"img{number}.png", number)
    paint(tmp_path / "a" / "train_12.png", 99)
    shutil.copy(tmp_path / "a" / "img2.png", tmp_path / "leak.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "leak.png").rename(tmp_path / "b" / "test_1.png")
    paint(tmp_path / "b" / "train_1.png", 50)
    assert main(["check-leakage", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    assert "1 pairs (1 exact, 0 near); 1 of 2 images of B" in capsys.readouterr().out
    assert main(["check-leakage", str(tmp_path / "a")]) == 2  # two splits of what has none
    assert "without splits" in capsys.readouterr().err


def test_one_bad_file_does_not_end_the_search_for_leaks(tmp_path):
    paint(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "torn.tif").write_bytes(b"II*\0")
    (tmp_path / "empty.jpg").touch()
    side = prints_of_split(str(tmp_path), "train")
    assert {os.path.basename(path) for path in side.unreadable} == {"empty.jpg", "pipe.jpg", "torn.tif"}
    assert len(side.ids) == 4


def test_a_side_on_which_nothing_decodes_is_told_with_the_remedy(tmp_path):
    Dataset.from_dict({"image": ["a.png", "b.png"]}).to_parquet(str(tmp_path / "names.parquet"))
    with pytest.raises(
        ValueError, match="names.parquet .train.: none of its 2 images decodes, first '0'; .*--image_root"
    ):
        prints_of_split(str(tmp_path / "names.parquet"), "train")
