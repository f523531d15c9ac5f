"""What a killed job leaves: a journal that is read back, one writer at a time, and a whole table or none."""

import contextlib
import json
import os
import random
from collections import Counter

import pyarrow.parquet as parquet
import pytest
from caption_folder import Stub, assert_whole, ids_of, rows_of

from vsehub.data.captioning import journal as journals
from vsehub.data.captioning.caption_job import caption_images
from vsehub.data.captioning.journal import Journal, locked, read_table, write_table
from vsehub.data.captioning.request import Caption, CaptionError

HEADER = {"model_id": "m", "prompt_hash": "0123456789abcdef", "seed": None}
CAPTIONS = [
    Caption("a.png", "a dog\nin the “snow”", False, 7, "r1"),
    Caption("b\u2028.png", "a cat", True, None, "r2"),
    Caption("c.png", "a boat", False, 2**31 - 1, "r1"),
]


def by_id(captions):
    return {caption.image_id: caption for caption in captions}


# --- The journal ---------------------------------------------------------------------------------------------------


def test_what_is_appended_is_read_back_by_another_process(tmp_path):
    journal = Journal(tmp_path / "j", HEADER)
    assert journal.read() == ({}, {}) and not journal.path.exists()
    journal.append(CAPTIONS[:2], {})
    journal.append(CAPTIONS[2:], {"d.png": "zero bytes"})
    journal.close()
    again = Journal(tmp_path / "j", HEADER)
    assert again.read() == (by_id(CAPTIONS), {"d.png": "zero bytes"})
    again.append([], {"e.png": "torn"})  # and goes on below, without a second header
    again.close()
    assert Journal(tmp_path / "j", HEADER).read() == (by_id(CAPTIONS), {"d.png": "zero bytes", "e.png": "torn"})
    lines = [json.loads(line) for line in (tmp_path / "j").read_bytes().splitlines()]
    assert lines[0] == HEADER and len(lines) == 4


def test_every_line_is_on_the_disk_before_append_returns(tmp_path, monkeypatch):
    synced, real = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.fstat(file).st_size), real(file)))
    journal = Journal(tmp_path / "j", HEADER)
    for number, caption in enumerate(CAPTIONS):
        journal.append([caption], {})
        size = (tmp_path / "j").stat().st_size
        assert size in synced, number
    journal.close()


@pytest.mark.parametrize("change", [{"seed": 1}, {"model_id": "n"}, {"max_image_side": 500}])
def test_the_journal_of_another_request_is_refused_and_kept(tmp_path, change):
    journal = Journal(tmp_path / "j", HEADER)
    journal.append(CAPTIONS, {})
    journal.close()
    before, (key, value) = (tmp_path / "j").read_bytes(), next(iter(change.items()))
    with pytest.raises(CaptionError, match=f"begun with {key} {HEADER.get(key)!r}, this job has {value!r}.*--restart"):
        Journal(tmp_path / "j", HEADER | change).read()
    assert (tmp_path / "j").read_bytes() == before


def half_done(folder, out, fails="10.png"):
    with pytest.raises(CaptionError):
        caption_images(folder, out, Stub(fails=[fails]))
    return out.parent / f"{out.name}.journal.jsonl"


def test_a_journal_cut_at_any_byte_loses_no_whole_line_and_doubles_nothing(folder, tmp_path):
    journal = half_done(folder, tmp_path / "first.parquet")
    content, out = journal.read_bytes(), tmp_path / "d.parquet"
    for cut in sorted({*range(0, len(content) + 1, 7), *(len(line) for line in content.splitlines())}):
        whole = [json.loads(line) for line in content[:cut].split(b"\n")[:-1]][1:]
        kept = {row[0] for record in whole for row in record["captions"]}
        (tmp_path / "d.parquet.journal.jsonl").write_bytes(content[:cut])
        stub = Stub()
        caption_images(folder, out, stub, progress=False)
        assert stub.seen == Counter(set(ids_of(folder)) - kept)
        assert_whole(out, folder)
        out.unlink()


def test_a_job_that_goes_on_after_a_torn_line_can_be_killed_once_more(folder, tmp_path):
    journal = half_done(folder, tmp_path / "d.parquet")
    journal.write_bytes(journal.read_bytes()[:-5])
    half_done(folder, tmp_path / "d.parquet", fails="deep/06.png")
    stub = Stub()
    caption_images(folder, tmp_path / "d.parquet", stub)
    assert set(stub.seen) == {"deep/06.png"}
    assert_whole(tmp_path / "d.parquet", folder)


def test_a_journal_damaged_in_the_middle_is_an_error_that_names_the_line(folder, tmp_path):
    journal = half_done(folder, tmp_path / "d.parquet")
    lines = journal.read_bytes().splitlines(keepends=True)
    for damage in (b"{\0\0\n", b"[]\n", b"{}\n"):
        journal.write_bytes(b"".join([*lines[:2], damage, *lines[3:]]))
        with pytest.raises(CaptionError, match="line 3 is damaged"):
            caption_images(folder, tmp_path / "d.parquet", Stub())


class DeathError(BaseException):
    """What `except Exception` does not hold up."""


@contextlib.contextmanager
def death_at(monkeypatch, moment, when):
    """Die before or after the `moment`-th durable step (fsync, rename, removal)."""
    steps = [0]

    def deadly(real):
        def step(*args, **kwargs):
            steps[0] += 1
            if steps[0] == moment and when == "before":
                raise DeathError
            try:
                return real(*args, **kwargs)
            finally:  # also where there was nothing to remove
                if steps[0] == moment:
                    raise DeathError

        return step

    with monkeypatch.context() as patch:
        for name in ("fsync", "replace", "unlink"):
            patch.setattr(os, name, deadly(getattr(os, name)))
        yield steps


@pytest.mark.parametrize("when", ["before", "after"])
def test_death_at_every_step_loses_and_doubles_nothing(folder, tmp_path, monkeypatch, when):
    (folder / "zero.png").write_bytes(b"")
    deaths, moment = 0, 0
    while True:
        moment += 1
        place, stubs = tmp_path / f"{when}{moment}", []
        for run in range(2):
            stubs.append(Stub())
            try:
                with death_at(monkeypatch, moment if run == 0 else 0, when):
                    caption_images(folder, place / "d.parquet", stubs[-1], on_bad_sample="quarantine", progress=False)
            except DeathError:
                deaths += 1
        (folder / "zero.png").rename(tmp_path / "zero.png")
        assert_whole(place / "d.parquet", folder)
        (tmp_path / "zero.png").rename(folder / "zero.png")
        assert len((place / "bad_samples.jsonl").read_text().splitlines()) == 1
        again = sum((stubs[0].seen + stubs[1].seen).values()) - 12
        assert 0 <= again <= 2  # at most the batch that was on its way
        if deaths < moment:
            break
    assert deaths >= 10


def test_many_deaths_of_one_job_end_in_a_whole_table(folder, tmp_path, monkeypatch):
    out, chance, deaths = tmp_path / "d.parquet", random.Random(0), 0
    for _ in range(200):
        try:
            with death_at(monkeypatch, chance.randrange(1, 4), chance.choice(["before", "after"])):
                caption_images(folder, out, Stub(batch_size=1), progress=False)
            break
        except DeathError:
            deaths += 1
    assert deaths >= 5
    caption_images(folder, out, Stub())
    assert_whole(out, folder)


def test_two_jobs_on_one_table_exclude_each_other(folder, tmp_path):
    out = tmp_path / "d.parquet"
    with locked(out), pytest.raises(CaptionError, match=f"process {os.getpid()} is writing"):
        caption_images(folder, out, Stub())
    (tmp_path / "d.parquet.lock").write_text("1")  # left behind by the dead: no hindrance
    caption_images(folder, out, Stub())
    assert_whole(out, folder)


def test_a_lock_is_let_go_when_the_job_ends_or_fails(tmp_path):
    out = tmp_path / "d.parquet"
    with pytest.raises(KeyError), locked(out):
        raise KeyError
    with locked(out), locked(tmp_path / "other.parquet"):
        pass


# --- The table -----------------------------------------------------------------------------------------------------


def test_a_table_is_read_back_as_it_was_written_whatever_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(journals, "ROWS_AT_ONCE", 2)
    out = tmp_path / "d.parquet"
    assert read_table(out, HEADER) == ({}, {})
    write_table(out, CAPTIONS, {"d.png": "zero bytes"}, HEADER)
    assert read_table(out, HEADER) == (by_id(CAPTIONS), {"d.png": "zero bytes"})
    assert parquet.ParquetFile(out).num_row_groups == 2
    assert [row["image_id"] for row in rows_of(out)] == [caption.image_id for caption in CAPTIONS]
    assert all(row["model_id"] == "m" and row["prompt_hash"] == HEADER["prompt_hash"] for row in rows_of(out))
    (line,) = (tmp_path / "bad_samples.jsonl").read_text().splitlines()
    assert json.loads(line)["image_id"] == "d.png"


def test_a_table_without_captions_keeps_its_columns(tmp_path):
    write_table(tmp_path / "d.parquet", [], {}, HEADER)
    assert read_table(tmp_path / "d.parquet", HEADER) == ({}, {})
    names = ["image_id", "dense_text", "model_id", "revision", "prompt_hash", "truncated", "num_tokens", "picture"]
    assert parquet.read_schema(tmp_path / "d.parquet").names == names


def test_the_table_of_another_request_is_refused_unless_nobody_judges(tmp_path):
    out = tmp_path / "d.parquet"
    write_table(out, CAPTIONS, {}, HEADER)
    with pytest.raises(CaptionError, match="begun with model_id 'm', this job has 'n'"):
        read_table(out, HEADER | {"model_id": "n"})
    assert read_table(out, None) == (by_id(CAPTIONS), {})


def test_a_write_that_fails_leaves_the_table_as_it_was(tmp_path):
    out = tmp_path / "d.parquet"
    write_table(out, CAPTIONS, {}, HEADER)
    before = out.read_bytes()
    with pytest.raises(Exception, match="int"):
        write_table(out, [*CAPTIONS, Caption("d.png", "a dog", False, "many", "r1")], {}, HEADER)
    assert out.read_bytes() == before and {path.name for path in tmp_path.iterdir()} == {out.name}
