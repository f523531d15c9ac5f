"""`--resume_from_checkpoint` is read once, to None, the newest checkpoint, or a folder."""

import json
from pathlib import Path

import pytest

from vsehub.training.saving.checkpoints import seal
from vsehub.training.saving.resume import FINISHED, NEWEST, begin, checkpoint_of, is_finished, parse_resume, run_in
from vsehub.training.saving.settings import RECORD, run_of


def checkpoint(folder, step):
    """A checkpoint of the run that writes to the folder; of an earlier version, if the folder has no record."""
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (path / name).write_text(name)
    if (folder / RECORD).exists():
        (path / RECORD).write_text((folder / RECORD).read_text())
    seal(path)
    return path


@pytest.mark.parametrize(
    ("flag", "resume"),
    [(None, None), ("None", None), ("false", None), (False, None), ("true", NEWEST), ("True", NEWEST), (True, NEWEST)],
)
def test_words_are_read_in_any_case(flag, resume):
    assert parse_resume(flag) == resume


def test_anything_else_is_the_folder_of_a_checkpoint(tmp_path):
    path = checkpoint(tmp_path, 3)
    assert parse_resume(str(path)) == path
    for wrong in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match="no checkpoint of a run"):
            parse_resume(str(wrong))


def test_the_newest_checkpoint_is_looked_for_when_the_stage_starts(tmp_path):
    assert checkpoint_of(NEWEST, tmp_path / "nowhere") is None
    assert checkpoint_of(NEWEST, tmp_path) is None
    checkpoint(tmp_path, 9)
    newest = checkpoint(tmp_path, 10)
    assert checkpoint_of(NEWEST, tmp_path) == newest
    assert checkpoint_of(None, tmp_path) is None
    assert checkpoint_of(Path("a/checkpoint-1"), tmp_path) == Path("a/checkpoint-1")


def test_a_checkpoint_that_lacks_a_part_is_refused_by_name_and_passed_over(tmp_path):
    older, torn = checkpoint(tmp_path, 9), checkpoint(tmp_path, 10)
    (torn / "optimizer.pt").unlink()
    with pytest.raises(ValueError, match="checkpoint-10 is not whole .optimizer.pt is missing.: name another one"):
        parse_resume(str(torn))
    assert checkpoint_of(NEWEST, tmp_path) == older
    (older / "scheduler.pt").unlink()
    with pytest.raises(ValueError, match="checkpoint-10 is not whole .*no older one is: leave --resume"):
        checkpoint_of(NEWEST, tmp_path)


def start(folder, resume=NEWEST, before=None, **settings):
    begin(resume, folder, before, {"seed": 1, **settings}, writes=True)
    return checkpoint_of(resume, folder)


def test_a_run_that_starts_anew_leaves_older_checkpoints_alone_and_never_takes_them(tmp_path):
    start(tmp_path)
    old = checkpoint(tmp_path, 9)
    (tmp_path / FINISHED).write_text("{}")
    assert is_finished(NEWEST, tmp_path, None, {"seed": 1})
    assert start(tmp_path, None, seed=2) is None and old.is_dir()
    assert not is_finished(NEWEST, tmp_path, None, {"seed": 2})
    assert start(tmp_path, seed=2) is None  # it was killed before its first checkpoint
    own = checkpoint(tmp_path, 3)
    assert start(tmp_path, seed=2) == own
    assert run_of(own) == run_in(tmp_path) != run_of(old)


def test_to_go_on_with_other_settings_is_refused(tmp_path):
    start(tmp_path, rate=0.1)
    assert start(tmp_path, rate=0.2) is None  # nothing is lost yet
    checkpoint(tmp_path, 3)
    with pytest.raises(
        ValueError, match="checkpoint-3 was begun with other settings .--rate was 0.2, and is 0.1.: set"
    ):
        start(tmp_path, rate=0.1)
    (tmp_path / FINISHED).write_text("{}")
    with pytest.raises(ValueError, match="was finished with other settings .--rate was 0.2, and is 0.1.: set"):
        is_finished(NEWEST, tmp_path, None, {"seed": 1, "rate": 0.1})


def test_a_stage_after_one_that_was_trained_anew_starts_anew(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    start(first)
    start(second, before=run_in(first))
    checkpoint(second, 4)
    (second / FINISHED).write_text("{}")
    assert is_finished(NEWEST, second, run_in(first), {"seed": 1}) and is_finished(NEWEST, second, None, {"seed": 1})
    start(first, None)
    assert not is_finished(NEWEST, second, run_in(first), {"seed": 1})
    assert start(second, before=run_in(first), seed=2) is None


def test_folders_of_earlier_versions_are_gone_on_with_and_compared_from_then_on(tmp_path):
    old = checkpoint(tmp_path, 2)
    (tmp_path / FINISHED).write_text("{}")
    assert is_finished(NEWEST, tmp_path, "", {"seed": 5})
    assert start(tmp_path) == old
    assert not (tmp_path / FINISHED).exists()
    newest = checkpoint(tmp_path, 4)
    assert start(tmp_path) == newest
    for path in (newest, old):
        with pytest.raises(ValueError, match="--seed was 1, and is 2"):
            start(tmp_path, path, seed=2)


def test_a_named_checkpoint_is_gone_on_with_in_its_folder_and_in_another(tmp_path):
    start(tmp_path / "one")
    named = checkpoint(tmp_path / "one", 2)
    start(tmp_path / "one", None)  # another run
    assert start(tmp_path / "one", named) == named
    assert start(tmp_path / "one") == named
    assert start(tmp_path / "two", named) == named
    assert run_in(tmp_path / "two") != run_of(named) == run_in(tmp_path / "one")
    with pytest.raises(ValueError, match="--seed was 1, and is 2"):
        start(tmp_path / "two", named, seed=2)


def test_what_an_earlier_run_logged_does_not_count_for_a_new_one(tmp_path):
    for name in ("finished.json", "history.json"):
        (tmp_path / name).write_text("{}")
    begin(None, tmp_path, None, {}, writes=True)
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]
