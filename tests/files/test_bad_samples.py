"""One list of what could not be used: several sources in one folder, lines of earlier versions, damaged lists."""

import json
import multiprocessing

import pytest

from vsehub.files.bad_samples import BadSample, read_bad_samples, report_bad_samples

OLD_LINES = {
    "split train": {"split": "train", "row": 3, "image_id": "12", "problem": "no caption"},
    "captions dense.parquet": {"image_id": "half.jpg", "problem": "does not decode", "out": "dense.parquet"},
    "collection /photos": {"id": "/photos/a.png", "path": "/photos/a.png", "problem": "torn", "collection": "/photos"},
}


def lines(folder):
    return [json.loads(line) for line in (folder / "bad_samples.jsonl").read_text().splitlines()]


def test_a_line_says_what_was_read_which_sample_and_why(tmp_path):
    samples = [BadSample("12", "no caption", row=3), BadSample("a.png", "torn", path="/photos/a.png")]
    assert report_bad_samples(tmp_path / "run", "split train", samples) == tmp_path / "run" / "bad_samples.jsonl"
    assert lines(tmp_path / "run") == [
        {"source": "split train", "image_id": "12", "row": 3, "problem": "no caption"},
        {"source": "split train", "image_id": "a.png", "path": "/photos/a.png", "problem": "torn"},
    ]
    found = read_bad_samples(tmp_path / "run" / "bad_samples.jsonl")
    assert [(each.image_id, each.row, each.path, each.source) for each in found] == [
        ("12", 3, None, "split train"),
        ("a.png", None, "/photos/a.png", "split train"),
    ]


def test_a_new_report_takes_the_place_of_the_last_one_of_its_source(tmp_path):
    report_bad_samples(tmp_path, "split train", [BadSample("1", "torn"), BadSample("2", "torn")])
    report_bad_samples(tmp_path, "captions d.parquet", [BadSample("1", "no answer")])
    report_bad_samples(tmp_path, "split train", [BadSample("3", "empty")])
    assert [line["image_id"] for line in lines(tmp_path)] == ["1", "3"]
    assert report_bad_samples(tmp_path, "split train", []) is not None
    assert [line["source"] for line in lines(tmp_path)] == ["captions d.parquet"]
    assert report_bad_samples(tmp_path, "captions d.parquet", []) is None
    assert list(tmp_path.iterdir()) == []


def test_what_was_said_of_samples_that_were_not_read_again_stays(tmp_path):
    report_bad_samples(tmp_path, "collection /a", [BadSample("1", "odd bands"), BadSample("2", "torn")])
    report_bad_samples(tmp_path, "collection /a", [BadSample("3", "torn")], unread={"1"})
    assert [(line["image_id"], line["problem"]) for line in lines(tmp_path)] == [("1", "odd bands"), ("3", "torn")]


def test_nothing_to_list_makes_no_file_and_no_folder(tmp_path):
    assert report_bad_samples(tmp_path / "run", "split train", []) is None
    assert not (tmp_path / "run").exists() and read_bad_samples(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("source", OLD_LINES)
def test_lines_of_an_earlier_version_are_read_kept_and_replaced(tmp_path, source):
    (tmp_path / "bad_samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in OLD_LINES.values()))
    found = {each.source: each for each in read_bad_samples(tmp_path / "bad_samples.jsonl")}
    assert found.keys() == OLD_LINES.keys()
    assert found[source].problem == OLD_LINES[source]["problem"] and found[source].image_id
    report_bad_samples(tmp_path, source, [BadSample("new", "still bad")])
    kept = [line for name, line in OLD_LINES.items() if name != source]
    assert lines(tmp_path) == [*kept, {"source": source, "image_id": "new", "problem": "still bad"}]


def test_the_list_of_an_earlier_index_becomes_part_of_this_one(tmp_path):
    (tmp_path / "bad_images.jsonl").write_text(json.dumps(OLD_LINES["collection /photos"]) + "\n")
    report_bad_samples(tmp_path, "collection /more", [BadSample("b.png", "torn")], before="bad_images.jsonl")
    assert [each.source for each in read_bad_samples(tmp_path / "bad_samples.jsonl")] == [
        "collection /photos",
        "collection /more",
    ]
    assert not (tmp_path / "bad_images.jsonl").exists()


@pytest.mark.parametrize("damage", [b'{"half', b"\xff\xfe", b"[1, 2]\n", b"null\n", b"\n\n", b'"text"\n'])
def test_damaged_lines_stop_nothing(tmp_path, damage):
    good = json.dumps({"row": 3, "problem": "of somebody else"}).encode() + b"\n"
    (tmp_path / "bad_samples.jsonl").write_bytes(good + damage)
    assert [each.problem for each in read_bad_samples(tmp_path / "bad_samples.jsonl")] == ["of somebody else"]
    report_bad_samples(tmp_path, "split train", [BadSample("1", "torn")])
    assert lines(tmp_path)[0] == json.loads(good) and lines(tmp_path)[1]["image_id"] == "1"


def test_names_that_are_hostile_to_a_list_come_back_as_they_were(tmp_path):
    names = ["a\nb", 'quo"te', "\u2028", "日本", "\udcff", "x" * 10_000]
    report_bad_samples(tmp_path, "split train", [BadSample(name, name) for name in names])
    assert [each.image_id for each in read_bad_samples(tmp_path / "bad_samples.jsonl")] == names
    assert len(lines(tmp_path)) == len(names)


def test_a_planted_link_is_replaced_and_not_read(tmp_path):
    (tmp_path / "secret").write_text('{"problem": "precious"}\n')
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "bad_samples.jsonl").symlink_to(tmp_path / "secret")
    report_bad_samples(tmp_path / "run", "split train", [BadSample("1", "torn")])
    assert (tmp_path / "secret").read_text() == '{"problem": "precious"}\n'
    assert [line["image_id"] for line in lines(tmp_path / "run")] == ["1"]


def report_often(folder, source):
    for number in range(10):
        report_bad_samples(folder, source, [BadSample(str(number), "torn")])


def test_reports_at_the_same_time_lose_nothing(tmp_path):
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=report_often, args=(tmp_path, f"split {n}")) for n in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert sorted(line["source"] for line in lines(tmp_path)) == [f"split {n}" for n in range(4)]
    assert {line["image_id"] for line in lines(tmp_path)} == {"9"}
