"""Captioning jobs: bad images, datasets, what a second run asks for, wrong commands."""

import io
import json
import os
from collections import Counter

import numpy as np
import pytest
from caption_folder import Stub, assert_whole, ids_of, paint, rows_of
from datasets import Dataset
from PIL import Image
from pyarrow import parquet
from rasters import write_raster

from vsehub.__main__ import main
from vsehub.data.arguments import DataArguments
from vsehub.data.captioning.caption_job import FolderImages, TableImages, caption_images
from vsehub.data.captioning.request import CaptionError
from vsehub.data.rows import prepare_rows
from vsehub.files.bad_samples import read_bad_samples
from vsehub.processing.scenes import open_any

# --- Bad images ----------------------------------------------------------------------------------------------------


@pytest.fixture
def spoiled(folder, tmp_path):
    """The folder with six unusable entries more."""
    file = io.BytesIO()
    Image.effect_noise((200, 200), 50).convert("RGB").save(file, "jpeg")
    (folder / "half.jpg").write_bytes(file.getvalue()[: len(file.getvalue()) // 2])
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "page.jpg").write_text("<!DOCTYPE html><html>404</html>")
    outside = tmp_path / "outside"
    outside.mkdir()
    paint(3).save(outside / "secret.png")
    (folder / "escape.PNG").symlink_to(outside / "secret.png")
    (folder / "linked").symlink_to(outside)
    os.mkfifo(folder / "pipe.png")
    paint(2).save(folder / ".hidden.png")
    return folder


BAD = {"half.jpg", "zero.jpg", "page.jpg", "escape.PNG", "linked", "pipe.png"}


def test_bad_images_are_quarantined_with_their_reasons(spoiled, tmp_path, capsys):
    stub, out = Stub(), tmp_path / "d.parquet"
    counts = caption_images(spoiled, out, stub, on_bad_sample="quarantine")
    assert (counts["captions"], counts["bad"]) == (12, 6) and not BAD & set(stub.seen)
    report = [json.loads(line) for line in (tmp_path / "bad_samples.jsonl").read_text().splitlines()]
    reasons = {row["image_id"]: row["problem"] for row in report}
    assert set(reasons) == BAD and "zero" in reasons["zero.jpg"] or "not an image" in reasons["zero.jpg"]
    assert "leaves" in reasons["escape.PNG"] and "not followed" in reasons["linked"]
    assert caption_images(spoiled, out, stub, on_bad_sample="quarantine")["was_complete"]


@pytest.mark.parametrize("bad", sorted(BAD))
def test_a_bad_image_is_an_error_by_default_and_mending_it_lets_the_job_go_on(spoiled, tmp_path, bad):
    for other in BAD - {bad}:
        (spoiled / other).unlink()
    stub, out = Stub(), tmp_path / "d.parquet"
    with pytest.raises(CaptionError, match=f"{bad}.*--on_bad_sample quarantine"):
        caption_images(spoiled, out, stub)
    assert not out.exists()
    (spoiled / bad).unlink()
    counts = caption_images(spoiled, out, stub)
    assert counts["captions"] == 12 and set(stub.seen) == set(ids_of(spoiled)) - {".hidden.png"}


def test_quarantined_images_get_another_chance_under_error(folder, tmp_path):
    out = tmp_path / "d.parquet"
    (folder / "20.png").write_bytes(b"")
    caption_images(folder, out, Stub(), on_bad_sample="quarantine")
    paint(20).save(folder / "20.png")
    stub = Stub()
    caption_images(folder, out, stub)
    assert set(stub.seen) == {"20.png"} and not (tmp_path / "bad_samples.jsonl").exists()
    assert_whole(out, folder)


def test_the_report_keeps_the_lines_of_other_tables(folder, tmp_path):
    (tmp_path / "bad_samples.jsonl").write_text('{"row": 3, "problem": "no caption"}\n')
    (folder / "zero.png").write_bytes(b"")
    for name in ("a.parquet", "b.parquet", "a.parquet"):
        caption_images(folder, tmp_path / name, Stub(), on_bad_sample="quarantine", restart=True)
    lines = [json.loads(line) for line in (tmp_path / "bad_samples.jsonl").read_text().splitlines()]
    assert [line.get("source") for line in lines] == [None, "captions b.parquet", "captions a.parquet"]


def test_a_folder_with_quarantined_captions_can_be_trained_into(folder, tmp_path):
    (folder / "half.png").write_bytes((folder / "01.png").read_bytes()[:40])
    run = tmp_path / "run"
    caption_images(folder, run / "dense.parquet", Stub(), on_bad_sample="quarantine")
    lines = [{"file_name": name, "captions": ["a picture"]} for name in [*ids_of(folder)]]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = DataArguments(data=str(folder), on_bad_sample="quarantine", dense_text=str(run / "dense.parquet"))
    assert len(prepare_rows(data, "train", str(run), need_dense=True)) == 12
    listed = read_bad_samples(run / "bad_samples.jsonl")
    assert [each.source for each in listed] == ["captions dense.parquet", "split train"]
    assert {each.image_id for each in listed} == {"half.png"}


def test_16_bit_scenes_are_captioned_as_training_sees_them(tmp_path):
    path = write_raster(tmp_path / "scene.tif", np.random.default_rng(0).integers(0, 4096, (20, 20), np.uint16))
    rows = Dataset.from_dict({"image": [path], "image_id": ["scene"]})
    for images in (FolderImages(tmp_path), TableImages(rows, "rows")):
        assert np.array_equal(np.asarray(images.open(images.ids[0])), np.asarray(open_any(path)))


def test_duplicate_images_get_a_caption_each(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    for name in "abc":
        paint(9).save(root / f"{name}.png")
    caption_images(root, tmp_path / "d.parquet", Stub())
    texts = [(row["image_id"], row["dense_text"]) for row in rows_of(tmp_path / "d.parquet")]
    assert texts == [(f"{name}.png", "this is picture 9") for name in "abc"]


def test_a_name_that_is_not_utf8_is_captioned_under_a_readable_id(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    with open(os.fsencode(root) + b"/\xff.png", "wb") as file:
        paint(1).save(file, "png")
    caption_images(root, tmp_path / "d.parquet", Stub())
    assert [row["image_id"] for row in rows_of(tmp_path / "d.parquet")] == ["\\udcff.png"]


# --- Datasets ------------------------------------------------------------------------------------------------------


def table(count=5, **columns):
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    rows = {"image": [paint(index) for index in range(count)], **columns}
    kinds = {name: Value("int64" if isinstance(values[0], int) else "string") for name, values in columns.items()}
    return Dataset.from_dict(rows, features=Features({"image": ImageFeature(), **kinds}))


def test_a_parquet_file_is_captioned_by_image_id_or_by_row(tmp_path):
    table(image_id=[7, 5, 3, 1, 0]).to_parquet(tmp_path / "named.parquet")
    table().to_parquet(tmp_path / "plain.parquet")
    for name, ids in (("named", ["7", "5", "3", "1", "0"]), ("plain", ["0", "1", "2", "3", "4"])):
        out = tmp_path / "out" / f"{name}.parquet"
        caption_images(str(tmp_path / f"{name}.parquet"), out, Stub())
        rows = rows_of(out)
        assert [row["image_id"] for row in rows] == ids
        assert [row["dense_text"] for row in rows] == [f"this is picture {index}" for index in range(5)]


def test_a_folder_of_parquet_files_is_captioned_but_not_into_itself(tmp_path):
    (tmp_path / "data").mkdir()
    table().to_parquet(tmp_path / "data" / "train-0.parquet")
    with pytest.raises(CaptionError, match="write elsewhere"):
        caption_images(tmp_path / "data", tmp_path / "data" / "d.parquet", Stub())
    assert caption_images(tmp_path / "data", tmp_path / "d.parquet", Stub())["captions"] == 5


def test_a_dataset_with_undecodable_and_missing_images_is_quarantined(tmp_path):
    from datasets import Dataset, Features
    from datasets import Image as ImageFeature

    rows = table().cast_column("image", ImageFeature(decode=False))
    values = list(rows["image"])
    values[1] = {"bytes": values[1]["bytes"][:60], "path": None}
    values[3] = None
    rows = Dataset.from_dict({"image": values}, features=Features({"image": ImageFeature(decode=False)}))
    counts = caption_images(rows, tmp_path / "d.parquet", Stub(), on_bad_sample="quarantine")
    assert (counts["captions"], counts["bad"]) == (3, 2)


@pytest.mark.parametrize(
    "columns, words",
    [({"image_id": ["a", "a", "b", "c", "d"]}, "'a' names two"), ({"image_id": ["a", None, "b", "c", "d"]}, "row 1")],
)
def test_ids_that_do_not_name_one_image_each_are_refused(tmp_path, columns, words):
    with pytest.raises(CaptionError, match=words):
        caption_images(table(**columns), tmp_path / "d.parquet", Stub())


def test_row_numbers_of_another_dataset_are_not_mistaken_for_this_ones(tmp_path):
    caption_images(table(5), tmp_path / "d.parquet", Stub())
    with pytest.raises(CaptionError, match="rows 5.*--restart"):
        caption_images(table(6), tmp_path / "d.parquet", Stub())


@pytest.mark.parametrize("finished", [True, False])
def test_a_picture_that_was_replaced_is_captioned_again_and_no_other(folder, tmp_path, finished):
    out, last = tmp_path / "d.parquet", ids_of(folder)[-1]
    if finished:
        caption_images(folder, out, Stub())
    else:  # all but the last lie in the journal
        with pytest.raises(CaptionError):
            caption_images(folder, out, Stub(batch_size=1, fails=[last]))
    paint(77).save(folder / ids_of(folder)[1])
    stub = Stub()
    caption_images(folder, out, stub)
    assert set(stub.seen) == {ids_of(folder)[1], *([] if finished else [last])}
    assert rows_of(out)[1]["dense_text"] == "this is picture 77"
    assert caption_images(folder, out, stub)["was_complete"]


def test_a_replaced_picture_that_cannot_be_read_does_not_keep_its_caption(folder, tmp_path):
    out, name = tmp_path / "d.parquet", ids_of(folder)[1]
    caption_images(folder, out, Stub())
    (folder / name).write_bytes(b"")
    caption_images(folder, out, Stub(), on_bad_sample="quarantine")
    assert name not in [row["image_id"] for row in rows_of(out)]
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(CaptionError, match=name):
        caption_images(folder, out, Stub())


def test_other_pictures_of_the_same_ids_are_refused_and_those_of_an_earlier_version_taken(tmp_path):
    out, ids = tmp_path / "d.parquet", ["a", "b", "c", "d", "e"]
    caption_images(table(image_id=ids), out, Stub())
    other = table(10, image_id=[*"vwxyz", *ids]).select(range(5, 10))
    with pytest.raises(CaptionError, match="other pictures of the same ids, the first is 'a'.*--restart"):
        caption_images(other, out, Stub())
    parquet.write_table(parquet.read_table(out).drop_columns("picture"), out)
    assert caption_images(other, out, Stub())["was_complete"]


def test_an_image_root_means_that_the_source_lists_images(folder, tmp_path):
    entries = [
        {"split": "test", "filename": name, "cocoid": 70 + i, "sentences": []} for i, name in enumerate(ids_of(folder))
    ]
    (tmp_path / "karpathy.json").write_text(json.dumps({"images": entries}))
    out = tmp_path / "d.parquet"
    caption_images(tmp_path / "karpathy.json", out, Stub(), split="test", image_root=folder)
    assert [row["image_id"] for row in rows_of(out)] == [str(70 + i) for i in range(12)]
    with pytest.raises(CaptionError, match="--image_root"):
        caption_images(tmp_path / "karpathy.json", out, Stub(), split="test")


def test_columns_may_be_named_and_a_missing_one_is_an_error(tmp_path):
    rows = table(key=list("vwxyz")).rename_column("image", "photo")
    with pytest.raises(CaptionError, match="--image_column"):
        caption_images(rows, tmp_path / "d.parquet", Stub())
    caption_images(rows, tmp_path / "d.parquet", Stub(), image_column="photo", id_column="key")
    assert [row["image_id"] for row in rows_of(tmp_path / "d.parquet")] == list("vwxyz")


# --- The same source as training reads -----------------------------------------------------------------------------


def described(folder, **columns):
    """Pictures with metadata, a row for each item of the columns."""
    folder.mkdir(parents=True)
    for index in range(3):
        paint(index).save(folder / f"{index}.png")
    lines = [dict(zip(columns, values)) for values in zip(*columns.values())]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


FILES = ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize(
    ("data", "captioned", "columns"),
    [
        ("m", "m", {"file_name": FILES, "captions": list("abc")}),
        ("m", "m", {"file_name": FILES, "captions": list("abc"), "image_id": ["x", "y", "z"]}),
        ("m", "m", {"file_name": [*FILES, *FILES], "captions": list("abcdef")}),
        ("m", "m", {"file_name": [*FILES, *FILES], "captions": list("abcdef"), "image_id": list("xyzxyz")}),
        ("{split}", "train", {"file_name": FILES, "captions": list("abc")}),
        ("{split}", "{split}", {"file_name": FILES, "captions": list("abc")}),
    ],
)
def test_captions_find_their_rows_in_training(tmp_path, data, captioned, columns):
    described(tmp_path / "s" / ("train" if "split" in data else data), **columns)
    caption_images(tmp_path / "s" / captioned, tmp_path / "d.parquet", Stub())
    args = DataArguments(data=str(tmp_path / "s" / data), dense_text=str(tmp_path / "d.parquet"))
    rows = prepare_rows(args, "train", None, need_dense=True)
    assert sorted(rows["dense_text"]) == [f"this is picture {index}" for index in range(3)]


def test_a_picture_with_several_rows_of_a_table_is_captioned_once_and_found_in_training(tmp_path):
    for index in range(2):
        paint(index).save(tmp_path / f"{index}.png")
    lines = [f"{index}.png,text {index} {turn}\n" for index in range(2) for turn in range(3)]
    (tmp_path / "pairs.csv").write_text("image,captions\n" + "".join(lines))
    stub, out = Stub(), tmp_path / "d.parquet"
    assert caption_images(tmp_path / "pairs.csv", out, stub)["captions"] == 6
    assert sorted(stub.seen.elements()) == ["0", "3"]  # the first row of each
    args = DataArguments(data=str(tmp_path / "pairs.csv"), dense_text=str(out))
    rows = prepare_rows(args, "train", None, need_dense=True)
    assert rows["dense_text"][:] == ["this is picture 0", "this is picture 1"]
    assert caption_images(tmp_path / "pairs.csv", out, stub)["was_complete"]
    paint(5).save(tmp_path / "1.png")
    os.utime(tmp_path / "1.png", (0, 0))
    caption_images(tmp_path / "pairs.csv", out, stub)
    assert [row["dense_text"][-1] for row in rows_of(out)] == list("000555")


def test_the_rows_of_a_bad_picture_are_all_left_out(tmp_path):
    paint(0).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"torn")
    (tmp_path / "pairs.csv").write_text("image,captions\n0.png,a\n1.png,b\n1.png,c\n")
    counts = caption_images(tmp_path / "pairs.csv", tmp_path / "d.parquet", Stub(), on_bad_sample="quarantine")
    assert (counts["captions"], counts["bad"]) == (1, 2)


def test_a_picture_beside_the_tables_of_a_dataset_is_none_of_it(tmp_path):
    (tmp_path / "set" / "data").mkdir(parents=True)
    table(image_id=list("abcde")).to_parquet(tmp_path / "set" / "data" / "train-0.parquet")
    paint(9).save(tmp_path / "set" / "preview.png")
    caption_images(tmp_path / "set", tmp_path / "d.parquet", Stub())
    assert [row["image_id"] for row in rows_of(tmp_path / "d.parquet")] == list("abcde")


def test_a_split_of_a_folder_is_captioned_alone_or_refused(tmp_path):
    for split, index in (("train", 1), ("test", 2)):
        (tmp_path / "f" / split).mkdir(parents=True)
        paint(index).save(tmp_path / "f" / split / "0.png")
    for split, ids in (("test", ["test/0.png"]), (None, ["test/0.png", "train/0.png"])):
        caption_images(tmp_path / "f", tmp_path / f"{split}.parquet", Stub(), split=split)
        assert [row["image_id"] for row in rows_of(tmp_path / f"{split}.parquet")] == ids
    refused = [({"split": "nonsense"}, "has no split 'nonsense'"), ({"data_config": "a"}, "--data_config a")]
    for options, words in [*refused, ({"id_column": "key"}, "--id_column key")]:
        with pytest.raises(CaptionError, match=words):
            caption_images(tmp_path / "f", tmp_path / "n.parquet", Stub(), **options)
    with pytest.raises(CaptionError, match="no column 'key', .*--id_column"):
        caption_images(table(), tmp_path / "n.parquet", Stub(), id_column="key")


def test_the_splits_that_are_not_captioned_are_told(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        "vsehub.data.captioning.caption_job.logger.warning", lambda text, *words: told.append(text % words)
    )
    for split in ("train", "test"):
        described(tmp_path / "f" / split, file_name=["0.png"], captions=["a"])
    caption_images(tmp_path / "f", tmp_path / "d.parquet", Stub())
    assert [row["image_id"] for row in rows_of(tmp_path / "d.parquet")] == ["train/0.png"]
    assert told == [f"{tmp_path / 'f'}: the split train is captioned; for the others, --split test"]


def test_a_table_inside_the_folder_of_pictures_does_not_make_it_a_dataset(folder):
    for _ in range(2):
        assert caption_images(folder, folder / "d.parquet", Stub())["captions"] == 12


# --- Resuming ------------------------------------------------------------------------------------------------------


def test_a_complete_table_is_left_alone_and_nothing_is_asked(folder, tmp_path):
    out = tmp_path / "d.parquet"
    assert not caption_images(folder, out, Stub())["was_complete"]
    before, stub = out.stat(), Stub()
    assert caption_images(folder, out, stub)["was_complete"] and not stub.seen
    assert (out.stat().st_mtime_ns, out.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_new_images_are_added_to_a_complete_table_and_vanished_ones_are_an_error(folder, tmp_path):
    out = tmp_path / "d.parquet"
    caption_images(folder, out, Stub())
    paint(20).save(folder / "20.png")
    stub = Stub()
    assert caption_images(folder, out, stub)["made"] == 1
    assert stub.seen == {"20.png": 1}
    assert_whole(out, folder)
    (folder / "20.png").unlink()
    with pytest.raises(CaptionError, match="1 images that are not there any more, first '20.png'"):
        caption_images(folder, out, Stub())


CHANGES = [
    {"prompt": "Why?"},
    {"temperature": 0.3},
    {"top_p": 0.8},
    {"max_new_tokens": 9},
    {"seed": 1},
    {"model_id": "m"},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
@pytest.mark.parametrize("finished", [False, True])
def test_another_request_is_refused_until_a_restart(folder, tmp_path, change, finished):
    out = tmp_path / "d.parquet"
    if finished:
        caption_images(folder, out, Stub())
    else:
        with pytest.raises(CaptionError):
            caption_images(folder, out, Stub(fails=["08.png"]))
        assert (tmp_path / "d.parquet.journal.jsonl").exists()
    with pytest.raises(CaptionError, match="was begun with.*--restart"):
        caption_images(folder, out, Stub(**change))
    stub = Stub(**change)
    assert caption_images(folder, out, stub, restart=True)["made"] == 12
    assert stub.seen == Counter(ids_of(folder))
    assert_whole(out, folder)


def test_a_file_of_someone_else_is_never_overwritten(folder, tmp_path):
    out = tmp_path / "d.parquet"
    for write in (lambda: table().to_parquet(out), lambda: out.write_text("precious")):
        write()
        content = out.read_bytes()
        for restart in (False, True):
            with pytest.raises(CaptionError, match="give another --out"):
                caption_images(folder, out, Stub(), restart=restart)
        assert out.read_bytes() == content


# --- The command ---------------------------------------------------------------------------------------------------

WRONG = {
    "no images": (["nowhere", "--model", "m"], "neither images nor a dataset"),
    "an empty folder": (["EMPTY", "--model", "m"], "neither images nor a dataset"),
    "no model there": (["FOLDER", "--model", "./nowhere"], "nowhere"),
    "a folder that is no model": (["FOLDER", "--model", "FOLDER"], "does not load"),
    "an empty prompt": (["FOLDER", "--model", "m", "--prompt", " "], "prompt is empty"),
    "a negative temperature": (["FOLDER", "--model", "m", "--temperature", "-1"], "temperature"),
    "temperature nan": (["FOLDER", "--model", "m", "--temperature", "nan"], "temperature"),
    "no nucleus": (["FOLDER", "--model", "m", "--top_p", "0"], "top_p"),
    "no tokens": (["FOLDER", "--model", "m", "--max_new_tokens", "0"], "max_new_tokens"),
    "no URL": (["FOLDER", "--model", "m", "--api_base", "localhost:8000"], "is not a URL"),
    "no host": (["FOLDER", "--model", "m", "--api_base", "http://[::1"], "is not a URL"),
    "a host that no name may be": (["FOLDER", "--model", "m", "--api_base", "http://a..b:80/v1"], "is not a URL"),
    "letters beyond ASCII": (["FOLDER", "--model", "m", "--api_base", "http://127.0.0.1:1/é/v1"], "is not a URL"),
    "no time": (["FOLDER", "--model", "m", "--api_base", "http://h/v1", "--timeout", "0"], "timeout"),
    "a revision of a server": (["FOLDER", "--model", "m", "--api_base", "http://h/v1", "--revision", "x"], "revision"),
    "a folder as table": (["FOLDER", "--model", "m", "--out", "EMPTY"], "is a folder"),
    "no batch": (["FOLDER", "--model", "m", "--batch_size", "0"], "batch_size"),
    "a word for a number": (["FOLDER", "--model", "m", "--tries", "many"], "tries"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_command_is_one_line_and_exit_code_two(folder, tmp_path, capsys, monkeypatch, case):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    argv, words = WRONG[case]
    argv = [{"FOLDER": str(folder), "EMPTY": str(tmp_path / "empty")}.get(word, word) for word in argv]
    if "--out" not in argv:
        argv += ["--out", str(tmp_path / "d.parquet")]
    assert main(["caption", *argv]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("vsehub caption: ") and words in last
