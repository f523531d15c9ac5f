"""Every layout of a data set becomes the same rows; what is torn, missing or leads elsewhere is one clear error."""

import json
import os
import shutil

import pytest
from datasets import Dataset
from photos import jpeg, paint

from vsehub.data.sources import path_of, read_source, resolve_image


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


@pytest.mark.parametrize("name", ["train_caps.txt", "train_ids.txt", "f30k_train.jsonl"])
def test_a_file_of_the_official_layout_in_another_encoding_is_named(tmp_path, images, name):
    folder = official(tmp_path / "f30k", False)
    (tmp_path / "f30k" / name).write_bytes(b"caf\xe9\n" * 2)
    with pytest.raises(ValueError, match=f"{name}: not a text file in UTF-8"):
        read_source(folder, "train", str(images))


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "a/../../secret.jpg", "link.jpg", "..", "a\0b"])
def test_a_manifest_never_leads_out_of_its_root(tmp_path, images, name):
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    (images / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(ValueError):
        resolve_image(images, name)


def test_missing_sources_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such"):
        read_source(str(tmp_path / "nothing"), "train")
    with pytest.raises(FileNotFoundError, match="no such"):
        read_source(str(tmp_path / "nothing.parquet"), "train")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("train_caps.txt", "one\ntwo\nthree\n", "3 captions do not divide among 2 ids of train"),
        ("train_ids.txt", "10\n77\n", "id_mapping.json lacks 1 ids of train, first '77'"),
        ("train_ids.txt", None, "train_ids.txt: no such file"),
        ("id_mapping.json", '{"10": "0.j', "id_mapping.json: not JSON, or half of a file"),
        ("id_mapping.json", '{"10": "0.jpg", "11": "../1.jpg"}', "leads out of the image root"),
    ],
)
def test_files_of_the_official_layout_that_do_not_fit_together_are_an_error(tmp_path, images, file, content, words):
    folder = official(tmp_path / "f30k", False)
    (tmp_path / "f30k" / file).unlink()
    if content is not None:
        (tmp_path / "f30k" / file).write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        read_source(folder, "train", str(images))


def test_only_a_line_feed_ends_a_caption_of_the_official_layout(tmp_path, images):
    folder = official(tmp_path / "f30k", True)
    captions = ["a dog\u2028runs", "a\x85cat", "third", "4", "5", "6"]
    (tmp_path / "f30k" / "train_caps.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")
    rows = read_source(folder, "train", str(images))
    assert rows["captions"] == [captions[:3], captions[3:]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"annotations": []}, "it has no 'images'"),
        ({"images": [{"split": "train", "sentences": []}]}, "image 0 is not as in a Karpathy json"),
        ([], "no rows"),
    ],
)
def test_a_json_of_another_kind_is_refused(tmp_path, images, content, words):
    (tmp_path / "other.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words):
        read_source(str(tmp_path / "other.json"), "train", str(images))


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

KARPATHY = {"split": "train", "filename": "0.jpg", "sentences": [{"raw": "a dog"}]}
PIR = {"image": "0.jpg", "caption": ["a dog", None]}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({**KARPATHY, "split": None}, "image 1 is not as .*'split' is None, not a text"),
        ({**KARPATHY, "split": ["train"]}, "image 1 is not as .*'split' is .'train'., not a text"),
        ({**KARPATHY, "filename": 5}, "image 1 is not as .*'filename' is 5, not a text"),
        ({**KARPATHY, "filepath": None}, "image 1 is not as .*'filepath' is None, not a text"),
        ({**KARPATHY, "sentences": None}, "image 1 is not as .*'sentences' is None, not a list"),
        ({**KARPATHY, "sentences": [{"raw": 5}]}, "image 1 is not as .*'raw' is 5, not a text"),
        (7, "image 1 is not as .*7 is no object with fields"),
        ({**PIR, "image": 0}, "row 1 is not as .*'image' is 0, not a text"),
        ({**PIR, "image": None}, "row 1 is not as .*'image' is None, not a text"),
        ({**PIR, "caption": ["a", 3]}, "row 1 is not as .*a caption is 3, not a text"),
        ({**PIR, "caption": {"raw": "x"}}, "row 1 is not as .*'caption' is .'raw': 'x'., not a text"),
    ],
)
def test_values_of_another_kind_are_named_with_their_row(tmp_path, images, entry, words):
    pir = "row" in words.split()[0]
    content = [PIR, entry] if pir else {"images": [KARPATHY, entry]}
    (tmp_path / "m.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"m.json: {words}"):
        read_source(str(tmp_path / "m.json"), "train", str(images))


@pytest.mark.parametrize(("names", "words"), [(["0.jpg"], "no object"), ({"10": 5, "11": "1.jpg"}, "id '10' has 5")])
def test_an_id_mapping_names_files(tmp_path, images, names, words):
    folder = official(tmp_path / "f30k", False)
    (tmp_path / "f30k" / "id_mapping.json").write_text(json.dumps(names))
    with pytest.raises(ValueError, match=f"id_mapping.json: {words}"):
        read_source(folder, "train", str(images))


def test_a_byte_order_mark_is_no_text(tmp_path, images):
    (tmp_path / "m.json").write_bytes(b"\xef\xbb\xbf" + json.dumps([PIR]).encode())
    assert len(read_source(str(tmp_path / "m.json"), "train", str(images))) == 1
    folder = official(tmp_path / "f30k", False)
    for name in ("train_caps.txt", "train_ids.txt", "f30k_train.jsonl"):
        path = tmp_path / "f30k" / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_source(folder, "train", str(images))[0]["captions"][0] == "caption 0"
