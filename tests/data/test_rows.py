import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from photos import jpeg
from rasters import write_raster

from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows


def table(folder, rows) -> str:
    path = folder / "data.parquet"
    Dataset.from_list(rows).to_parquet(str(path))
    return str(path)


def row(index=0, **changes):
    good = {
        "image": {"bytes": jpeg(index), "path": None},
        "captions": ["a dog", "a cat"],
        "image_id": str(index),
        "dense_text": "a dog and a cat and a house",
    }
    return {**good, **changes}


def prepare(path, tmp_path, need_dense=True, **kwargs):
    return prepare_rows(DataArguments(data=path, **kwargs), "train", str(tmp_path), need_dense)


def test_parquet_rows_keep_ids_captions_and_dense_text(tmp_path):
    rows = prepare(table(tmp_path, [row(0), row(1)]), tmp_path)
    assert rows["image_id"] == ["0", "1"] and rows[0]["captions"] == ["a dog", "a cat"]
    assert rows[1]["dense_text"].startswith("a dog")


def test_an_imagefolder_with_metadata_is_read(tmp_path, images):
    lines = [json.dumps({"file_name": f"{i}.jpg", "captions": ["a dog"]}) for i in range(4)]
    (images / "metadata.jsonl").write_text("\n".join(lines))
    rows = prepare(str(images), tmp_path, need_dense=False)
    assert len(rows) == 4 and rows[0]["captions"] == ["a dog"]
    assert rows["image_id"] == [f"{i}.jpg" for i in range(4)]  # the ids that `vsehub caption FOLDER` gives


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"captions": []}, "no caption"),
        ({"captions": ["a dog", "  "]}, "caption 1 is empty"),
        ({"dense_text": None}, "no dense text"),
        ({"image": {"bytes": jpeg()[:200], "path": None}}, "image 1"),
        ({"image": {"bytes": b"", "path": None}}, "zero bytes"),
        ({"image": {"bytes": b"<html></html>", "path": None}}, "not an image"),
        ({"image": {"bytes": None, "path": "/missing/file.jpg"}}, "no such file"),
    ],
)
def test_a_bad_row_stops_the_run_or_is_quarantined_with_its_reason(tmp_path, changes, problem):
    path = table(tmp_path, [row(0), row(1, **changes), row(2)])
    with pytest.raises(ValueError, match=f"row 1.*{problem}.*--on_bad_sample quarantine"):
        prepare(path, tmp_path)
    rows = prepare(path, tmp_path, on_bad_sample="quarantine")
    assert rows["image_id"] == ["0", "2"]
    (line,) = (tmp_path / "bad_samples.jsonl").read_text().splitlines()
    assert problem in json.loads(line)["problem"] and json.loads(line)["image_id"] == "1"


def test_wrong_columns_are_named_with_what_there_is(tmp_path):
    path = table(tmp_path, [{"picture": {"bytes": jpeg(), "path": None}, "text": "a dog"}])
    with pytest.raises(ValueError, match=r"no column 'image'; it has \['picture', 'text'\].*--image_column"):
        prepare(path, tmp_path)
    rows = prepare(path, tmp_path, need_dense=False, image_column="picture", captions_column="text")
    assert rows[0]["captions"] == ["a dog"]


def test_one_id_for_two_pictures_is_refused(tmp_path):
    with pytest.raises(ValueError, match="image_id '0' show different pictures"):
        prepare(table(tmp_path, [row(0), {**row(1), "image_id": "0"}]), tmp_path)


def test_dense_text_comes_from_the_union_a_jsonl_or_a_parquet(tmp_path):
    path = table(tmp_path, [row(0), row(1)])
    assert prepare(path, tmp_path, dense_text="union")[0]["dense_text"] == "a dog a cat"
    (tmp_path / "dense.jsonl").write_text('{"text": "first"}\n{"text": "second"}\n')
    assert prepare(path, tmp_path, dense_text=str(tmp_path / "dense.jsonl"))["dense_text"] == ["first", "second"]
    Dataset.from_list([{"image_id": "1", "dense_text": "one"}, {"image_id": "0", "dense_text": "zero"}]).to_parquet(
        str(tmp_path / "dense.parquet")
    )
    assert prepare(path, tmp_path, dense_text=str(tmp_path / "dense.parquet"))["dense_text"] == ["zero", "one"]
    with pytest.raises(ValueError, match="vsehub caption"):
        prepare(path, tmp_path, dense_text="llava")


def test_captions_stand_for_a_missing_column_of_dense_texts(tmp_path, capsys):
    rows = [{key: value for key, value in row(number).items() if key != "dense_text"} for number in range(2)]
    args = DataArguments(data=table(tmp_path, rows))
    assert prepare_rows(args, "train", str(tmp_path), True)[0]["dense_text"] == "a dog a cat"
    assert args.dense_text == "union" and "--dense_text union" in capsys.readouterr().err
    one = table(tmp_path, [{**each, "captions": ["a dog"]} for each in rows])
    with pytest.raises(ValueError, match="no column 'dense_text'"):  # a caption alone is no dense text
        prepare_rows(DataArguments(data=one), "train", None, True)


def test_multi_band_scenes_are_trained_on_in_the_bands_that_are_chosen(tmp_path):
    from vsehub.data.rows import row_image

    values = np.zeros((20, 20, 4), np.uint16)
    values[..., 3] = np.arange(400).reshape(20, 20) * 10
    scene = Path(write_raster(tmp_path / "scene.tif", values))
    path = table(tmp_path, [row(0, image={"bytes": scene.read_bytes(), "path": None})])
    plain, chosen = prepare(path, tmp_path), prepare(path, tmp_path, bands=[4, 1, 2])
    assert np.asarray(row_image(plain[0])).max() == 0
    picture = np.asarray(row_image(chosen[0]))
    assert picture[..., 0].max() == 255 and picture[..., 1:].max() == 0
    with pytest.raises(ValueError, match="bands .* of 4"):
        prepare(path, tmp_path, bands=[5, 1, 2])


def test_a_run_without_a_source_asks_for_one(tmp_path):
    with pytest.raises(ValueError, match="--data"):
        prepare_rows(DataArguments(), "train", str(tmp_path), False)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.string(), 2), pa.list_(pa.string_view()), pa.large_list(pa.large_string()), pa.string_view()]
)
def test_captions_may_have_any_of_arrows_types_of_texts(tmp_path, kind):
    captions = [["a dog", "a cat"]] * 2 if kind.num_fields else ["a dog", "a cat"]
    pictures = [{"bytes": jpeg(index), "path": None} for index in range(2)]
    pq.write_table(pa.table({"image": pictures, "captions": pa.array(captions, kind)}), tmp_path / "rows.parquet")
    rows = prepare(str(tmp_path / "rows.parquet"), tmp_path, need_dense=False)
    assert rows["captions"] == (captions if kind.num_fields else [["a dog"], ["a cat"]])


def test_rows_that_differ_in_how_they_hold_captions_are_named(tmp_path):
    lines = [{"image": "0.jpg", "captions": captions} for captions in (["a dog"], None, "a cat")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match=r"column 'captions' holds list .row 0. and str .row 2., not captions"):
        prepare(str(tmp_path / "rows.jsonl"), tmp_path, need_dense=False)


@pytest.mark.parametrize("read", [{}, {"streaming": True}])
def test_captions_that_are_lists_written_as_text_are_refused(tmp_path, read):
    rows = [{"image": {"bytes": jpeg(index), "path": None}, "captions": '["a dog", "a cat"]'} for index in range(2)]
    Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match="holds lists that are written as text"):
        list(prepare(str(tmp_path / "rows.parquet"), tmp_path, need_dense=False, **read))


def test_ids_of_captions_are_joined_as_captions_are(tmp_path):
    rows = [
        {"image": {"bytes": jpeg(index // 2), "path": None}, "captions": f"text {index}", "caption_ids": 10 + index}
        for index in range(4)
    ]
    rows = prepare(table(tmp_path, rows), tmp_path, need_dense=False)
    assert rows["caption_ids"] == [[10, 11], [12, 13]] and rows["captions"][1] == ["text 2", "text 3"]


def test_rows_without_an_id_get_one_each(tmp_path):
    rows = prepare(table(tmp_path, [row(0, image_id="a"), row(1, image_id=None), row(2, image_id=None)]), tmp_path)
    assert rows["image_id"] == ["a", "row 1", "row 2"]


def test_a_caption_a_row_leaves_out_a_picture_whose_file_is_missing(tmp_path, images):
    rows = [{"image": f"{name}.jpg", "captions": f"{name} {n}", "image_id": name} for name in "01z" for n in (1, 2)]
    path, missing = table(tmp_path, rows), {"image_root": str(images), "need_dense": False}
    with pytest.raises(ValueError, match="1 bad rows; first: row 4, image_id z: .*z.jpg.: no such file"):
        prepare(path, tmp_path, **missing)
    rows = prepare(path, tmp_path, on_bad_sample="quarantine", **missing)
    assert rows["captions"] == [["0 1", "0 2"], ["1 1", "1 2"]]


def test_ids_below_the_folder_of_a_split_are_those_that_caption_gives(tmp_path, images):
    folder = tmp_path / "data" / "train"
    folder.parent.mkdir()
    images.rename(folder)
    (folder / "metadata.csv").write_text("file_name,captions\n0.jpg,a dog\n1.jpg,a cat\n")
    assert prepare(str(tmp_path / "data" / "{split}"), tmp_path, need_dense=False)["image_id"] == ["0.jpg", "1.jpg"]


def labels_of(tmp_path, values, need_label=False) -> list:
    path = tmp_path / "data.parquet"
    pictures = pa.array([row(index)["image"] for index in range(len(values))])
    pq.write_table(pa.table({"image": pictures, "captions": [["a dog"]] * len(values), "label": values}), path)
    rows = prepare_rows(DataArguments(data=str(path)), "train", str(tmp_path), False, need_label=need_label)
    return rows["label"] if "label" in rows.column_names else []


def test_numbers_of_classes_beside_empty_cells_are_named_as_without_them(tmp_path):
    """pandas writes whole numbers beside empty cells as 3.0 and NaN."""
    assert labels_of(tmp_path, [3, 0, None]) == ["3", "0", None]
    assert labels_of(tmp_path, pa.array([3.0, 0.0, float("nan")])) == ["3", "0", None]


def test_lists_of_classes_are_refused_where_a_scene_class_is_needed(tmp_path):
    values = [["port"], ["port", "beach"]]
    with pytest.raises(ValueError, match="'label' holds List, and a picture has one scene class: .*--label_column"):
        labels_of(tmp_path, values, need_label=True)
    assert labels_of(tmp_path, values) == []
