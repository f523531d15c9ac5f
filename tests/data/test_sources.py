"""Every layout of a data set becomes the same rows; what is torn, missing or leads elsewhere is one clear error."""

import json
import os
import shutil

import pytest
from datasets import Dataset
from official_layout import official
from photos import paint

from vsehub.data.sources import path_of, read_source


def test_missing_sources_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such"):
        read_source(str(tmp_path / "nothing"), "train")
    with pytest.raises(FileNotFoundError, match="no such"):
        read_source(str(tmp_path / "nothing.parquet"), "train")


def test_names_in_a_column_are_files_of_the_image_root_and_a_missing_one_stays_missing(tmp_path, images):
    path = str(tmp_path / "rows.parquet")
    Dataset.from_list([{"image": "0.jpg"}, {"image": None}]).to_parquet(path)
    assert list(read_source(path, "test", str(images))["image"]) == [str(images / "0.jpg"), None]
    assert list(read_source(path, "test")["image"]) == ["0.jpg", None]
    with pytest.raises(FileNotFoundError, match="image root .*nowhere: no such folder"):
        read_source(path, "test", str(tmp_path / "nowhere"))


def test_an_image_root_that_is_not_used_is_told(tmp_path, images, caplog):
    (tmp_path / "picture").mkdir()
    shutil.copy(images / "0.jpg", tmp_path / "picture")
    read_source(str(tmp_path / "picture"), "train", str(images))
    assert "--image_root is not used, since column 'image' holds no names of files: leave it out" in caplog.text


def test_the_name_of_a_split_stands_in_the_path_and_validation_may_be_called_val(tmp_path):
    source = str(tmp_path / "{split}.json")
    assert path_of(source, "validation") == tmp_path / "validation.json"
    (tmp_path / "val.json").touch()
    assert path_of(source, "validation") == tmp_path / "val.json" and path_of(source, "dev") == tmp_path / "dev.json"
    (tmp_path / "validation.json").touch()
    assert path_of(source, "validation") == tmp_path / "validation.json"


def test_what_has_no_configurations_and_what_is_no_source_is_refused(tmp_path, images):
    with pytest.raises(ValueError, match="--data_config small: .* has no configurations; leave it out"):
        read_source(str(images), "train", data_config="small")
    (tmp_path / "notes.txt").write_text("words")
    with pytest.raises(ValueError, match="a source is a folder, a file .*.csv, .tsv, .json., or a Hub id"):
        read_source(str(tmp_path / "notes.txt"), "train")


# --- Folders of pictures -------------------------------------------------------------------------------------------


def rows_of(*args, **options):
    return sorted(
        os.path.relpath(row["image"]["path"], args[0]) for row in read_source(str(args[0]), *args[1:], **options)
    )


def test_a_name_that_looks_like_a_split_hides_no_picture(tmp_path):
    for number in (1, 12, 3):
        paint(tmp_path / f"train_{number}.jpg", number)
        paint(tmp_path / f"test-{number}.jpg", number + 20)
        paint(tmp_path / f"img_{number}.JPG", number + 40)
    assert len(rows_of(tmp_path, "train")) == 9
    with pytest.raises(ValueError, match="a folder of pictures without splits: there is no split 'test'"):
        read_source(str(tmp_path), "test")
    assert len(rows_of(tmp_path, "test", any_split=True)) == 9


def test_folders_named_like_splits_are_splits_and_their_subfolders_labels(tmp_path):
    for split in ("train", "val"):
        for label in ("airport", "bridge"):
            paint(tmp_path / split / label / "train_1.png")
            paint(tmp_path / split / label / "2.png")
    assert rows_of(tmp_path, "validation") == [
        f"val/{c}/{n}.png" for c in ("airport", "bridge") for n in ("2", "train_1")
    ]
    assert set(read_source(str(tmp_path), "train")["label"]) == {"airport", "bridge"}
    with pytest.raises(ValueError, match="no split 'test'; its folders are train, val"):
        read_source(str(tmp_path), "test")
    assert len(rows_of(tmp_path / "{split}", "validation", any_split=False)) == 4
    (tmp_path / "stray.txt").write_text("x")  # now the two are folders like any others
    assert len(rows_of(tmp_path, "train")) == 8


def test_pictures_with_metadata_keep_their_captions_and_lose_no_row(tmp_path):
    lines = []
    for number, name in enumerate(("train_12.jpg", "b.jpg", "c.jpg")):
        paint(tmp_path / name, number)
        lines.append(f'{{"file_name": "{name}", "captions": "picture {number}"}}\n')
    (tmp_path / "metadata.jsonl").write_text("".join(lines))
    rows = read_source(str(tmp_path), "train")
    assert sorted(rows["captions"]) == ["picture 0", "picture 1", "picture 2"]


def test_what_is_left_out_of_a_folder_is_told(tmp_path, caplog):
    paint(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "mosaic.vrt").write_text("<VRTDataset></VRTDataset>")
    shutil.copy(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff.png")
    assert rows_of(tmp_path, "train") == ["a.png"]
    assert "no pictures (1 .txt)" in caplog.text and "mosaic.vrt: names other files" in caplog.text
    assert "1 files whose names are not Unicode" in caplog.text


# --- Slices of splits ----------------------------------------------------------------------------------------------


def test_every_source_is_cut_as_datasets_cuts(tmp_path, images):
    """And a way of writing that is no slice is refused."""
    entries = [{"split": "train", "filename": f"{i}.jpg", "sentences": [{"raw": "a"}]} for i in range(4)]
    (tmp_path / "karpathy.json").write_text(json.dumps({"images": entries}))
    (tmp_path / "pir_train.json").write_text(json.dumps([{"image": f"{i}.jpg", "caption": "a"} for i in range(4)]))
    Dataset.from_dict({"image": list("0123")}).to_parquet(str(tmp_path / "rows.parquet"))
    shutil.copytree(images, tmp_path / "captioned")
    lines = [json.dumps({"file_name": f"{i}.jpg", "captions": ["a"]}) for i in range(4)]
    (tmp_path / "captioned" / "metadata.jsonl").write_text("\n".join(lines))
    for name in ("karpathy.json", "pir_{split}.json", "rows.parquet", "captioned", "images"):
        whole = read_source(str(tmp_path / name), "train", str(images))["image"][:]
        for cut, kept in (("[:2]", whole[:2]), ("[25%:]", whole[1:]), ("[-1:]", whole[3:]), ("[:9]", whole)):
            assert read_source(str(tmp_path / name), f"train{cut}", str(images))["image"][:] == kept, (name, cut)
        with pytest.raises(ValueError, match=r"'train.2.' is no slice such as train\[:100\]"):
            read_source(str(tmp_path / name), "train[2]", str(images))
    assert len(read_source(official(tmp_path / "f30k", False), "train[:1]", str(images))) == 1


def test_pictures_with_metadata_have_no_split_but_train_unless_folders_say_so(tmp_path, images):
    (images / "metadata.csv").write_text("file_name,captions\n0.jpg,a dog\n")
    with pytest.raises(ValueError, match="without splits: there is no split 'nonsense'.*or cut the split train in two"):
        read_source(str(images), "nonsense")
    assert len(read_source(str(images), "nonsense", any_split=True)) == len(read_source(str(images), "train"))


# --- Values of another kind ----------------------------------------------------------------------------------------
