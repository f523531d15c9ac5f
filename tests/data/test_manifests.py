"""Files that name pictures and say their captions; what is torn or leads elsewhere is one clear error."""

import json

import pytest
from official_layout import official
from photos import jpeg

from vsehub.data.manifests import resolve_image
from vsehub.data.sources import is_one_table, read_source


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


def test_rows_that_other_tools_write_as_json_are_read(tmp_path, images):
    """`Dataset.to_json` writes lines, `DataFrame.to_json(orient="records")` a list; people call both `.json`."""
    rows = [{"image": f"{i}.jpg", "captions": [f"a boat {i}", "a pier"]} for i in range(3)]
    source = tmp_path / "pairs.json"
    for content in ("\n".join(map(json.dumps, rows)) + "\n", json.dumps(rows), json.dumps(rows, indent=2)):
        source.write_text(content)
        assert read_source(str(source), "train", str(images))["captions"] == [row["captions"] for row in rows]
        assert is_one_table(str(source), "train", "validation")
    source.write_text(json.dumps({"images": [KARPATHY]}) + "\n")  # in one line
    assert read_source(str(source), "train", str(images))["captions"] == [["a dog"]]


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


def coco(folder, images=None, annotations=None):
    """COCO's annotations of two of the pictures `images`."""
    content = {
        "info": {},
        "images": [{"id": 7, "file_name": "b.jpg"}, {"id": 9, "file_name": "a.jpg"}] if images is None else images,
        "annotations": [{"id": 1, "image_id": 9, "caption": "a cat"}, {"id": 2, "image_id": 7, "caption": "a dog"}],
    }
    path = folder / "captions_val2017.json"
    path.write_text(json.dumps(content | ({} if annotations is None else {"annotations": annotations})))
    return str(path)


def test_cocos_own_annotations_are_read_with_an_image_root_for_each_split(tmp_path):
    (tmp_path / "val2017").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "val2017" / name).write_bytes(jpeg())
    coco(tmp_path)
    rows = read_source(
        str(tmp_path / "captions_{split}2017.json"), "validation", image_root=str(tmp_path / "{split}2017")
    )
    assert rows["image_id"][:] == ["7", "9"] and rows["captions"][:] == [["a dog"], ["a cat"]]
    assert rows["image"][0]["path"] == str(tmp_path / "val2017" / "b.jpg")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"images": []}, "number 0 of annotations is not as in COCO's captions .no image has the id 9"),
        ({"images": [], "annotations": []}, "no images"),
        ({"images": [{"id": 7}]}, "number 0 of images is not as in COCO's captions .it has no 'file_name'"),
        ({"annotations": [{"image_id": 7, "bbox": []}]}, "number 0 of annotations is not .* .it has no 'caption'"),
        ({"images": [{"id": 7, "file_name": "../../x.jpg"}], "annotations": []}, "leads out of the image root"),
    ],
)
def test_annotations_that_are_not_cocos_captions_are_told_by_number(tmp_path, changed, said):
    with pytest.raises(ValueError, match=said):
        read_source(coco(tmp_path, **changed), "train", image_root=str(tmp_path))
