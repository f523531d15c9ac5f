"""Pictures that cannot be read, met while training."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_runs import run

from vsehub.files.bad_samples import read_bad_samples
from vsehub.training.inputs.bad_pictures import BadPictures, tell_bad_pictures
from vsehub.training.inputs.pairs import PairDataset


def spoilt(rows, *numbers):
    """The rows with half a picture in some."""

    def halve(row, number):
        image = dict(row["image"])
        image["bytes"] = image["bytes"][: 60 if number in numbers else None]
        return {"image": image, "source_row": number + 10}

    return rows.map(halve, with_indices=True, keep_in_memory=True)


def pairs(rows, processor, folder=None, policy="quarantine"):
    return PairDataset(rows, processor, bad_pictures=BadPictures(policy, folder))


def test_another_pair_takes_the_place_the_same_in_every_process(rows, tiny_processor, tmp_path):
    bad = spoilt(rows, 1)
    first, second = pairs(bad, tiny_processor, tmp_path), pairs(bad, tiny_processor, tmp_path)
    ids = [first[position]["image_id"] for position in range(12)]
    assert 1 not in ids and [ids[i] for i in (0, 1, 4, 11)] == [0, 0, 2, 5]
    assert [second[position]["image_id"] for position in (3, 2)] == [ids[3], ids[2]]  # whatever was asked before
    listed = read_bad_samples(tmp_path / "bad_samples.jsonl")
    assert [(each.image_id, each.row, each.source) for each in listed] == [("id-1", 11, "split train")] * 2


def test_the_draw_follows_seed_and_epoch(rows, tiny_processor):
    data, drawn = pairs(spoilt(rows, 1), tiny_processor), set()
    for epoch in range(6):
        data.set_epoch(epoch)
        drawn.add(data[2]["image_id"])
    assert len(drawn) > 1


def test_the_end_is_one_line_and_lists_each_row_once(rows, tiny_processor, tmp_path, capsys):
    tell_bad_pictures(tmp_path, "train")
    assert capsys.readouterr().err == ""
    for _ in range(2):  # two processes
        data = pairs(spoilt(rows, 1, 4), tiny_processor, tmp_path)
        [data[position] for position in range(12)]
    capsys.readouterr()
    tell_bad_pictures(tmp_path, "train")
    assert [each.image_id for each in read_bad_samples(tmp_path / "bad_samples.jsonl")] == ["id-1", "id-4"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("2 bad rows of split train were left out or replaced; they are listed in")


def test_without_quarantine_the_run_stops_with_the_remedy(rows, tiny_processor):
    data = pairs(spoilt(rows, 1), tiny_processor, policy="error")
    with pytest.raises(ValueError, match=r"^row 11 \(id-1\) cannot be loaded: .*--on_bad_sample quarantine --resume"):
        data[2]


def test_no_picture_at_all_is_an_error(rows, tiny_processor):
    with pytest.raises(ValueError, match=r"row 10 \(id-0\) cannot be loaded: nor can 99 pictures"):
        pairs(spoilt(rows, *range(6)), tiny_processor)[0]


def test_a_run_goes_on_without_them_and_the_texts_are_still_checked_first(scenes, tmp_path, capsys):
    shutil.copytree(scenes[1], tmp_path / "data")
    (path,) = Path(tmp_path / "data").glob("train*.parquet")
    table = pq.read_table(path)
    columns = table.to_pydict()
    for row in (3, 8):
        columns["image"][row] = {"bytes": columns["image"][row]["bytes"][:60], "path": None}
    columns["captions"][5] = [" "]
    pq.write_table(pa.table(columns, schema=table.schema), path)
    flags = ["--data", str(tmp_path / "data"), *scenes[2:]]
    out = tmp_path / "run"
    run(flags, out, "--stages", "baseline", "--on_bad_sample", "quarantine", "--max_steps", "8")
    listed = {each.image_id: each for each in read_bad_samples(out / "bad_samples.jsonl")}
    assert {each.row for each in listed.values()} == {3, 5, 8}
    assert "3 bad rows of split train" in capsys.readouterr().err
