import io
import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, load_dataset
from PIL import Image
from rasters import write_raster

from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows
from vsehub.data.sources import read_source, resolve_image


def picture(seed=0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def table(folder, rows) -> str:
    path = folder / "data.parquet"
    Dataset.from_list(rows).to_parquet(str(path))
    return str(path)


def row(index=0, **changes):
    good = {
        "image": {"bytes": picture(index), "path": None},
        "captions": ["a dog", "a cat"],
        "image_id": str(index),
        "dense_text": "a dog and a cat and a house",
    }
    return {**good, **changes}


def prepare(path, tmp_path, need_dense=True, **kwargs):
    return prepare_rows(DataArguments(data=path, **kwargs), "train", str(tmp_path), need_dense)


@pytest.fixture
def images(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    for index in range(4):
        (root / f"{index}.jpg").write_bytes(picture(index))
    return root


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


def test_karpathy_train_includes_restval(tmp_path, images):
    entries = [
        {"filename": f"{i}.jpg", "split": split, "cocoid": i, "sentences": [{"raw": "a dog"}, {"raw": "a cat"}]}
        for i, split in enumerate(("train", "restval", "val", "test"))
    ]
    (tmp_path / "dataset.json").write_text(json.dumps({"images": entries}))
    path = str(tmp_path / "dataset.json")
    assert read_source(path, "train", str(images))["image_id"] == ["0", "1"]
    assert read_source(path, "validation", str(images))["image_id"] == ["2"]
    with pytest.raises(ValueError, match="image root|image_root"):
        read_source(path, "train", None)
    with pytest.raises(ValueError, match="no image of split 'dev'"):
        read_source(path, "dev", str(images))


def test_the_annotations_of_pir_are_read_one_file_a_split(tmp_path, images):
    rows = [
        {"caption": f"{words} {i}", "image": f"{i}.jpg", "image_id": i, "label_name": "port", "label": 3}
        for words in ("a boat", "a pier")
        for i in range(3)
    ]
    (tmp_path / "rsitmd_train.json").write_text(json.dumps(rows))
    (tmp_path / "rsitmd_val.json").write_text(json.dumps([{"image": "3.jpg", "caption": ["one", "two"]}]))
    source = str(tmp_path / "rsitmd_{split}.json")
    train = read_source(source, "train", str(images))
    assert train["captions"] == [[f"a boat {i}", f"a pier {i}"] for i in range(3)] and set(train["label"]) == {"port"}
    held_out = read_source(source, "validation", str(images))
    assert held_out["captions"] == [["one", "two"]] and "label" not in held_out.column_names
    (tmp_path / "rsitmd_val.json").write_text(json.dumps([{"caption": "no picture"}]))
    with pytest.raises(ValueError, match="row 0 is not as in PIR's annotations"):
        read_source(source, "validation", str(images))
    with pytest.raises(ValueError, match="leads out of the image root"):
        (tmp_path / "rsitmd_val.json").write_text(json.dumps([{"image": "../secret.jpg", "caption": "out"}]))
        read_source(source, "validation", str(images))


def official(folder, ids_per_caption: bool):
    folder.mkdir()
    (folder / "id_mapping.json").write_text(json.dumps({"10": "0.jpg", "11": "1.jpg"}))
    (folder / "train_caps.txt").write_text("\n".join(f"caption {i}" for i in range(6)))
    ids = ["10"] * 3 + ["11"] * 3 if ids_per_caption else ["10", "11"]
    (folder / "train_ids.txt").write_text("\n".join(ids))
    (folder / "f30k_train.jsonl").write_text("\n".join(json.dumps({"text": f"dense {i}"}) for i in range(2)))
    return str(folder)


@pytest.mark.parametrize("ids_per_caption", [True, False])
def test_the_official_layout_is_read_in_both_of_its_forms(tmp_path, images, ids_per_caption):
    rows = read_source(official(tmp_path / "f30k", ids_per_caption), "train", str(images))
    assert rows["image_id"] == ["10", "11"] and rows[1]["captions"] == ["caption 3", "caption 4", "caption 5"]
    assert rows["dense_text"] == ["dense 0", "dense 1"]


def test_a_torn_dense_line_would_shift_the_rest_and_is_an_error(tmp_path, images):
    folder = official(tmp_path / "f30k", False)
    (tmp_path / "f30k" / "f30k_train.jsonl").write_text('{"text": "dense 0"}\n{"text": "den')
    with pytest.raises(ValueError, match="f30k_train.jsonl:2"):
        read_source(folder, "train", str(images))


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "a/../../secret.jpg", "link.jpg", "..", "a\0b"])
def test_a_manifest_never_leads_out_of_its_root(tmp_path, images, name):
    (tmp_path / "secret.jpg").write_bytes(picture())
    (images / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(ValueError):
        resolve_image(images, name)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"captions": []}, "no caption"),
        ({"captions": ["a dog", "  "]}, "caption 1 is empty"),
        ({"dense_text": None}, "no dense text"),
        ({"image": {"bytes": picture()[:200], "path": None}}, "image 1"),
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
    path = table(tmp_path, [{"picture": {"bytes": picture(), "path": None}, "text": "a dog"}])
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


def test_missing_sources_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such"):
        read_source(str(tmp_path / "nothing"), "train")
    with pytest.raises(FileNotFoundError, match="no such"):
        read_source(str(tmp_path / "nothing.parquet"), "train")
    with pytest.raises(ValueError, match="--data"):
        prepare_rows(DataArguments(), "train", str(tmp_path), False)


def test_generated_scenes_are_reproducible_and_dense_text_holds_every_caption(tmp_path):
    from vsehub.demos.demo_search import says
    from vsehub.demos.generated_scenes import generate, write_dataset

    first, again, other = generate(8, seed=1), generate(8, seed=1), generate(8, seed=2)
    assert first["dense_text"] == again["dense_text"] != other["dense_text"]
    assert all(np.array_equal(a["image"], b["image"]) for a, b in zip(first, again))
    for scene in first:
        assert all(says(caption, scene) for caption in scene["captions"])
    assert not says("a pink elephant", first[0])
    write_dataset(tmp_path, 4, 2, 2)
    assert len(load_dataset(str(tmp_path), split="validation")) == 2


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
