"""Shares of a stream: together all rows, none idle, and any sample found again."""

import io
import itertools
import tarfile

import pyarrow as pa
import pytest
from datasets import Dataset
from photos import jpeg
from pyarrow import parquet

from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows
from vsehub.data.streams import AT_ONCE, Share, Stream, open_stream, picture_number, read_stream


def stream(files, rows=24, folder=None):
    table = Dataset.from_dict({"captions": [f"text {row}" for row in range(rows)]})
    return Stream(table.to_iterable_dataset(num_shards=files), files=folder)


def texts(share, start, stop):
    return [share[sample]["captions"] for sample in range(start, stop)]


@pytest.mark.parametrize(("files", "shares"), [(1, 1), (1, 4), (2, 4), (3, 2), (4, 2), (6, 4), (24, 1)])
def test_one_pass_of_all_shares_has_every_row_once_and_no_share_is_idle(files, shares):
    all_of_them = stream(files)
    count = 24 // shares
    given = [texts(Share(all_of_them, number, shares, count, seed=0), 0, count) for number in range(shares)]
    assert sorted(itertools.chain(*given)) == sorted(f"text {row}" for row in range(24))
    assert all(len(part) == count for part in given)


def test_many_files_are_read_whole_by_one_share_each():
    shares = [Share(stream(16 * 2 + 1, rows=33), number, 2, 4, seed=0) for number in range(2)]
    assert [share.stride for share in shares] == [1, 1] and [len(share.units) for share in shares] == [17, 16]


@pytest.mark.parametrize("start", [1, 5, 11, 12, 13, 30, 47])
def test_a_share_is_gone_on_with_at_any_sample_twice_in_a_row(start, tmp_path):
    whole = texts(Share(stream(3), 1, 2, 5, seed=3), 0, 60)
    assert whole[:12] != whole[12:24]  # each pass has an order of its own
    middle = start + 7
    assert texts(Share(stream(3), 1, 2, 5, seed=3), start, middle) == whole[start:middle]
    kept = tmp_path / "lengths"  # known lengths of files change nothing
    for first, last in ((0, 20), (start, middle), (middle, 60)):
        assert texts(Share(stream(3, folder=kept), 1, 2, 5, seed=3), first, last) == whole[first:last]
    assert len(list(kept.iterdir())) == 3


@pytest.mark.parametrize(("rows", "now"), [(10, "fewer"), (30, "more")])
def test_a_file_that_has_other_rows_by_now_is_told(rows, now, tmp_path):
    list(stream(1, 24, tmp_path).rows_of(0, 0))
    for start in (0, 20):
        with pytest.raises(ValueError, match=f"file 0 of the stream had 24 rows .*, and has {now} by now"):
            list(stream(1, rows, tmp_path).rows_of(0, start))


def test_the_order_follows_the_seed_and_mixes_the_block():
    first, second = (texts(Share(stream(1), 0, 1, 24, seed=seed), 0, 24) for seed in (0, 1))
    assert first != second and sorted(first) == sorted(second) and first != sorted(first)
    share = Share(stream(1), 0, 1, 8, seed=0)
    assert list(itertools.islice(share.others(10), 8)) == [11, 12, 13, 14, 15, 8, 9, 10]


def test_a_share_without_rows_is_one_line():
    with pytest.raises(ValueError, match="share 3 of the stream has no rows: take fewer"):
        Share(stream(1, rows=3), 3, 4, 2, seed=0)[0]


def test_parquet_keeps_pictures_undecoded_and_names_as_asked(tmp_path):
    rows = [{"picture": {"bytes": jpeg(row), "path": None}, "text": f"text {row}", "more": row} for row in range(4)]
    for split in ("train", "validation"):
        Dataset.from_list(rows).to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
    args = DataArguments(data=str(tmp_path), image_column="picture", captions_column="text", streaming=True)
    (first, *_) = (row for _, row in open_stream(args, "train").rows_of(0, 2))
    assert first["image"]["bytes"] == jpeg(2) and first["captions"] == "text 2" and first["image_id"] == "0:2"
    assert "more" not in first
    evaluation = prepare_rows(args, "validation", None, need_dense=False, limit=3)
    assert evaluation["captions"] == [["text 0"], ["text 1"], ["text 2"]]
    args.captions_column = "words"
    with pytest.raises(ValueError, match=r"no column 'words'; it has \[.*--captions_column"):
        open_stream(args, "train")


def test_a_webdataset_is_read_with_its_keys_as_ids_and_its_pictures_as_they_are(tmp_path):
    """A picture that cannot be read comes through: what becomes of it is for training to say."""
    pictures = [jpeg(0), b"no picture", jpeg(2)]
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        for row in range(3):
            for name, data in ((f"k{row}.jpg", pictures[row]), (f"k{row}.txt", f"text {row}".encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    args = DataArguments(data=str(tmp_path / "train.tar"), image_column="jpg", captions_column="txt")
    rows = [row for _, row in open_stream(args, "train").rows_of(0, 0)]
    assert [row["image_id"] for row in rows] == ["k0", "k1", "k2"] and rows[1]["captions"] == "text 1"
    assert [row["image"]["bytes"] for row in rows] == pictures
    some = open_stream(args, "train").some(2)
    assert some["captions"] == [["text 0"], ["text 1"]] and some["image_id"] == ["k0", "k1"]


def test_some_rows_come_from_several_files_and_have_captions():
    table = Dataset.from_dict(
        {"image": ["a"] * 24, "captions": [[f"text {row}", " "] if row != 1 else [] for row in range(24)]}
    )
    some = Stream(table.to_iterable_dataset(num_shards=12), bands=[2, 1, 0]).some(12)
    assert some["captions"] == [[f"text {row}"] for row in (0, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21)]
    assert some[0]["bands"] == [2, 1, 0]


@pytest.mark.parametrize("ids, kept", [([0, 1], ["0", "1"]), (["", "b"], ["0:0", "b"]), ([None, "b"], ["0:0", "b"])])
def test_an_id_of_zero_is_an_id_and_no_id_is_the_place(ids, kept):
    table = Dataset.from_dict({"image": ["a"] * 2, "captions": ["text"] * 2, "image_id": ids})
    assert [row["image_id"] for _, row in Stream(table.to_iterable_dataset()).rows_of(0, 0)] == kept


def test_captions_that_are_no_text_are_one_line(tmp_path):
    Dataset.from_list([{"image": "a", "captions": {"text": "b"}}]).to_parquet(tmp_path / "train.parquet")
    args = DataArguments(data=str(tmp_path / "train.parquet"))
    with pytest.raises(ValueError, match="column 'captions' holds no text but .*; see --captions_column"):
        open_stream(args, "train")
    args.captions_column = "image"
    with pytest.raises(ValueError, match="no column 'label'.*--label_column"):
        open_stream(args, "train", need_label=True)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
@pytest.mark.parametrize("several", [False, True])
def test_captions_are_text_in_every_type_that_arrow_has_for_it(tmp_path, kind, several):
    captions = pa.array([["a", "b"]], pa.list_(kind)) if several else pa.array(["a"], kind)
    parquet.write_table(pa.table({"image": ["x"], "captions": captions}), tmp_path / "rows.parquet")
    stream = open_stream(DataArguments(data=str(tmp_path / "rows.parquet"), streaming=True), "train")
    assert [row["captions"] for _, row in stream.rows_of(0, 0)] == [["a", "b"] if several else "a"]


def test_other_sources_are_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    with pytest.raises(ValueError, match="--streaming reads parquet, webdataset"):
        open_stream(DataArguments(data=str(tmp_path)), "train")


def test_equal_pictures_have_one_number():
    assert picture_number(b"a") == picture_number(b"a") != picture_number(b"b")
    assert 0 <= picture_number(None) < 2**63


@pytest.mark.parametrize(
    ("column", "nothing", "something"),
    [
        ("label", None, "wood"),
        ("image_id", None, "a"),
        ("captions", None, ["a dog"]),
        ("captions", [], ["a dog"]),
        ("image", {"bytes": jpeg(), "path": None}, {"bytes": None, "path": "a.jpg"}),
    ],
)
def test_first_rows_with_nothing_in_a_column_do_not_say_what_it_holds(tmp_path, column, nothing, something):
    row = {"image": {"bytes": jpeg(), "path": None}, "captions": ["a cat"]}
    rows = [{**row, column: nothing}] * AT_ONCE + [{**row, column: something}]
    Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    args = DataArguments(data=str(tmp_path / "rows.parquet"), streaming=True)
    read = read_stream(args, "train", None)
    assert len(read) == AT_ONCE + 1 and read[AT_ONCE][column] == something


def test_a_stream_without_rows_and_a_slice_of_one_are_one_line(tmp_path):
    parquet.write_table(pa.table({"image": ["a"], "captions": ["b"]})[:0], tmp_path / "none.parquet")
    args = DataArguments(data=str(tmp_path / "none.parquet"), streaming=True)
    with pytest.raises(ValueError, match="none.parquet: split 'train' has a file without rows"):
        read_stream(args, "train", None)
    with pytest.raises(ValueError, match="--streaming reads whole splits, not 'train.:2.': see --max_train_images"):
        open_stream(args, "train[:2]")


def test_dense_texts_of_a_stream_are_texts(tmp_path):
    Dataset.from_list([{"image": "a", "captions": ["b"], "dense_text": ["c", "d"]}]).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="column 'dense_text' holds no text but .*; see --dense_text"):
        open_stream(DataArguments(data=str(tmp_path / "t.parquet")), "train", need_dense=True)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"captions": ["b"], "image_id": ["x"]}, "column 'image_id' is int64 in .*train-0.* and string in .*train-1"),
        ({"captions": [["b"]], "image_id": [2]}, "column 'captions' is string in .* and list<.*: string> in .*train-1"),
        ({"captions": ["b"], "image_id": [2], "l": [1]}, "column 'l' is in split 'train' .train-1-.* and not in "),
    ],
)
def test_files_of_a_stream_whose_columns_differ_are_told_in_one_line(tmp_path, other, said):
    for number, columns in enumerate(({"captions": ["a"], "image_id": [1]}, other)):
        table = pa.table({"image": [{"bytes": jpeg((0, 0, 0)), "path": None}], **columns})
        parquet.write_table(table, tmp_path / f"train-{number}-of-2.parquet")
    args = DataArguments(data=str(tmp_path), streaming=True)
    for read in (lambda: read_stream(args, "train", None), lambda: list(open_stream(args, "train").rows_of(1, 0))):
        with pytest.raises(ValueError, match=said) as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "named"),
    [([3.0, float("nan")], ["3", None]), ([3, None], ["3", None]), (["", "port"], [None, "port"])],
)
def test_classes_are_named_as_those_of_rows_in_memory(values, named):
    table = Dataset.from_dict({"image": ["a"] * 2, "captions": ["text"] * 2, "label": values})
    assert [row["label"] for _, row in Stream(table.to_iterable_dataset()).rows_of(0, 0)] == named


def test_lists_of_classes_are_refused_where_a_scene_class_is_needed(tmp_path):
    rows = {"image": ["a"], "captions": ["text"], "label": [["port", "beach"]]}
    Dataset.from_dict(rows).to_parquet(tmp_path / "train.parquet")
    args = DataArguments(data=str(tmp_path / "train.parquet"))
    with pytest.raises(ValueError, match="holds List, and a picture has one scene class: .*--label_column"):
        open_stream(args, "train", need_label=True)
    assert "label" not in open_stream(args, "train").column_names
