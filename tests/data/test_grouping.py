import io

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from vsehub.data.arguments import DataArguments
from vsehub.data.grouping import join_pictures
from vsehub.data.rows import image_source, prepare_rows


def png(value):
    """A picture of one grey; all have one size in bytes."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(buffer, "bmp")
    return buffer.getvalue()


def table(pictures, **columns):
    rows = {"image": [{"bytes": png(p) if p is not None else None, "path": None} for p in pictures]}
    rows["captions"] = columns.pop("captions", [[f"caption {row}"] for row in range(len(pictures))])
    rows["image_id"] = columns.pop("image_id", [f"row {row}" for row in range(len(pictures))])
    return Dataset.from_dict({**rows, **columns})


def test_rows_of_one_picture_are_joined_whatever_their_ids():
    dense, labels = ["long", "b", "long", "c", "longer"], [None, "sea", "wood", None, "wood"]
    rows, first = join_pictures(table([5, 7, 5, 9, 5], dense_text=dense, label=labels), image_source, "mine")
    rows = rows.select(first)
    assert first.tolist() == [0, 1, 3]
    assert list(rows["captions"]) == [["caption 0", "caption 2", "caption 4"], ["caption 1"], ["caption 3"]]
    assert list(rows["image_id"]) == ["row 0", "row 1", "row 3"]
    assert list(rows["dense_text"]) == ["long longer", "b", "c"] and list(rows["label"]) == ["wood", "sea", None]


def test_rows_without_a_picture_stay_apart():
    rows, first = join_pictures(table([None, 3, None]), image_source, "mine")
    assert first.tolist() == [0, 1, 2] and len(rows) == 3


def test_files_are_told_by_their_content(tmp_path):
    for name, value in (("a.bmp", 1), ("b.bmp", 2), ("copy.bmp", 1)):
        (tmp_path / name).write_bytes(png(value))
    paths = [str(tmp_path / name) for name in ("a.bmp", "b.bmp", "copy.bmp", "a.bmp", "absent.bmp")]
    rows = Dataset.from_dict({"image": paths, "captions": [["x"]] * 5, "image_id": list("abcde")})
    assert join_pictures(rows, image_source, "mine")[1].tolist() == [0, 1, 4]


def test_what_contradicts_itself_is_refused():
    with pytest.raises(ValueError, match="'sea' and 'wood'"):
        join_pictures(table([5, 5], label=["sea", "wood"]), image_source, "mine")
    with pytest.raises(ValueError, match="mine: rows of image_id 'a' show different pictures"):
        join_pictures(table([5, 6], image_id=["a", "a"]), image_source, "mine")


@pytest.mark.parametrize("ids", [[f"caption-{row}" for row in range(6)], [0, 0, 0, 1, 1, 1], None])
def test_a_caption_a_row_becomes_a_picture_with_its_captions(ids, tmp_path, caplog):
    columns = {"image": [{"bytes": png(row // 3), "path": None} for row in range(6)]}
    columns["captions"] = [f"caption {row}" for row in range(6)]
    if ids is not None:
        columns["image_id"] = ids
    Dataset.from_dict(columns).to_parquet(tmp_path / "train.parquet")
    rows = prepare_rows(DataArguments(data=str(tmp_path / "train.parquet")), "train", None, False)
    assert [len(captions) for captions in rows["captions"]] == [3, 3]
    assert "6 rows show 2 pictures" in caplog.text


def test_lists_of_captions_are_the_sources_own_grouping(tmp_path):
    """Two ids of one picture, each with its captions, are what a benchmark counts: they stay two."""
    rows = table([4, 4], captions=[["a", "b"], ["c", "d"]])
    rows.to_parquet(tmp_path / "test.parquet")
    assert len(prepare_rows(DataArguments(data=str(tmp_path / "test.parquet")), "test", None, False)) == 2


def test_a_repeated_id_is_joined_if_its_rows_show_one_picture(tmp_path):
    table([4, 4], captions=[["a"], ["b"]], image_id=["x", "x"]).to_parquet(tmp_path / "t.parquet")
    rows = prepare_rows(DataArguments(data=str(tmp_path / "t.parquet")), "train", None, False)
    assert list(rows["captions"]) == [["a", "b"]]


def test_rows_without_a_readable_picture_belong_to_the_others_of_their_id():
    """Wherever they stand: before the readable rows of the id, after them, or alone."""
    rows = table([None, 7, 5, None, None, 5], image_id=["a", "b", "a", "c", "c", "a"])
    rows, first = join_pictures(rows, image_source, "mine")
    assert first.tolist() == [1, 2, 3]
    assert [rows[row]["captions"] for row in (1, 2, 3)] == [
        ["caption 1"],
        ["caption 0", "caption 2", "caption 5"],
        ["caption 3", "caption 4"],
    ]
