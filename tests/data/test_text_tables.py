"""CSV, TSV and JSON lines: values stay as they are written; what would be lost or guessed is refused."""

import io
import json
import os
import tarfile

import pyarrow as pa
import pytest
from photos import jpeg
from pyarrow import parquet

from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows
from vsehub.data.sources import read_source


def table(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path, **columns):
    return read_source(str(path), "train", **columns).to_dict()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", 'image,captions\na.jpg,"a dog, running"\n'),
        ("rows.csv", '\ufeffimage , captions\r\na.jpg, "a dog, running"\r\n'),
        ("rows.csv", "image;captions\na.jpg;a dog, running\n"),
        ("ROWS.CSV", 'image,captions\na.jpg,"a dog, running"\n'),
        ("rows.tsv", "image\tcaptions\na.jpg\ta dog, running\n"),
    ],
)
def test_values_may_be_separated_in_the_usual_ways(tmp_path, name, content):
    assert read(table(tmp_path, name, content)) == {"image": ["a.jpg"], "captions": ["a dog, running"]}


def test_only_columns_of_plain_numbers_become_numbers(tmp_path):
    lines = ["id,captions,class,size,score,,zip", "007,NA,true,12,0.5,0,1", "8,null,false,,1e3,1,02"]
    assert read(table(tmp_path, "rows.csv", "\n".join(lines))) == {
        "id": ["007", "8"],
        "captions": ["NA", "null"],
        "class": ["true", "false"],
        "size": [12, None],
        "score": [0.5, 1000.0],
        "unnamed_5": [0, 1],
        "zip": ["1", "02"],
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty: its first line must name the columns"),
        ("image,captions\n", "split 'train' has no rows"),
        ("image,captions\na.jpg,a dog, running\n", "a row has more values than the first line has names: write"),
        ("image,captions\na.jpg,a dog\nb.jpg,a cat, too\n", "a row has more values than the first line has names"),
        ('image,captions\na.jpg,a dog\nb.jpg,"a cat\n', "cannot be read .*EOF inside string"),
        ("image,text,text\na.jpg,a dog,a cat\n", "several columns have the name text: rename all but one"),
        ("image,captions\na.jpg,chien assoiffé\n".encode("latin-1"), "is not in UTF-8: save it again"),
        ("image,captions\na.jpg,a dog\n".encode("utf-16"), "is not in UTF-8: save it again"),
    ],
)
def test_what_would_be_lost_is_refused_in_one_line(tmp_path, caplog, content, said):
    path = table(tmp_path, "rows.csv", content)
    with pytest.raises(ValueError, match=said) as info:
        read(path)
    assert str(path) in str(info.value) and "\n" not in str(info.value)
    assert not caplog.records  # what the reader logs would be said twice


def test_bytes_that_are_no_text_are_refused_wherever_they_stand(tmp_path):
    path = table(tmp_path, "rows.csv", b"image,captions\n" + b"a.jpg,a dog\n" * 5000 + b"b.jpg,\xe9\n")
    with pytest.raises(ValueError, match="rows.csv"):
        read(path)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_pictures_are_found_beside_the_table_from_any_working_directory(tmp_path, monkeypatch, ending):
    (tmp_path / "data" / "pictures").mkdir(parents=True)
    (tmp_path / "data" / "pictures" / "a.jpg").write_bytes(jpeg())
    content = {"csv": "image,captions\npictures/a.jpg,a dog\n"}
    content["jsonl"] = '{"image": "pictures/a.jpg", "captions": "a dog"}\n'
    path = table(tmp_path / "data", f"rows.{ending}", content[ending])
    monkeypatch.chdir(tmp_path)
    for name in (str(path), f"data/rows.{ending}"):
        rows = prepare_rows(DataArguments(data=name), "train", None, need_dense=False)
        assert rows["image"] == [str(tmp_path / "data" / "pictures" / "a.jpg")] and rows["captions"] == [["a dog"]]
    rows = prepare_rows(DataArguments(data=str(path), image_root="data"), "train", None, need_dense=False)
    assert rows["image"] == [str(tmp_path / "data" / "pictures" / "a.jpg")]


def test_names_of_files_that_do_not_lie_beside_the_table_count_from_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "a.jpg").write_bytes(jpeg())
    monkeypatch.chdir(tmp_path)
    path = table(tmp_path / "data", "rows.csv", "image,captions\na.jpg,a dog\n")
    assert read(path)["image"] == ["a.jpg"]
    (tmp_path / "data" / "a.jpg").write_bytes(jpeg())
    assert read(path)["image"] == [str(tmp_path / "data" / "a.jpg")]  # whatever the working directory is


@pytest.mark.parametrize("texts", [["a dog"], "a dog"])
def test_a_missing_value_as_python_writes_it_does_not_hide_the_texts(tmp_path, texts):
    lines = [json.dumps({"id": number, "captions": value}) for number, value in enumerate([float("nan"), texts])]
    path = table(tmp_path, "rows.jsonl", "\n".join(lines))
    rows = read_source(str(path), "train")
    assert rows["captions"][:] == [None, texts] and "Json" not in str(rows.features["captions"])


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_files_of_a_folder_of_tables_are_found_in_it_or_below_the_image_root(tmp_path, kind):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "tables").mkdir()
    names = pa.array(["../a.jpg"], kind)
    parquet.write_table(pa.table({"image": names, "captions": ["a dog"]}), tmp_path / "tables" / "train.parquet")
    (path,) = read(tmp_path / "tables")["image"]
    assert os.path.samefile(path, tmp_path / "a.jpg")
    parquet.write_table(pa.table({"image": pa.array(["a.jpg"], kind)}), tmp_path / "rows.parquet")
    (path,) = read(tmp_path / "rows.parquet", image_root=str(tmp_path))["image"]
    assert os.path.samefile(path, tmp_path / "a.jpg")


@pytest.mark.parametrize("address", ["https://a.b/c.jpg", "S3://bucket/c.jpg", "file:///c.jpg"])
def test_addresses_of_pictures_are_not_fetched(tmp_path, address):
    path = table(tmp_path, "rows.csv", f"image,captions\n,a cat\n{address},a dog\n")
    with pytest.raises(ValueError, match="column 'image' holds addresses .*, and nothing is fetched: download"):
        read(path)


@pytest.mark.parametrize("kind", ["arrow", "tar"])
def test_arrow_files_and_webdataset_tars_are_tables(tmp_path, kind):
    path = tmp_path / f"rows.{kind}"
    if kind == "arrow":
        rows = pa.table({"jpg": [jpeg()], "txt": ["a dog"]})
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, rows.schema) as writer:
            writer.write_table(rows)
    else:
        with tarfile.open(path, "w") as tar:
            for name, content in (("0.jpg", jpeg()), ("0.txt", b"a dog")):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    args = DataArguments(data=str(path), image_column="jpg", captions_column="txt")
    assert prepare_rows(args, "train", None, need_dense=False)["captions"] == [["a dog"]]


def test_a_folder_of_pictures_with_a_table_says_how_to_read_the_table(tmp_path, caplog):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "captions.csv").write_text("image,captions\na.jpg,a dog\n")
    assert read(tmp_path).keys() == {"image"}
    assert f"name that as the data: {tmp_path}/NAME.csv" in caplog.text
