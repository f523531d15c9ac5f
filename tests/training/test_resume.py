"""`--resume_from_checkpoint` is read once, to None, the newest checkpoint, or a folder."""

import json
from pathlib import Path

import pytest

from vsehub.training.checkpoints import seal
from vsehub.training.resume import NEWEST, checkpoint_of, parse_resume


def checkpoint(folder, step):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (path / name).write_text(name)
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
    with pytest.raises(ValueError, match="checkpoint-10 is not whole .*no older checkpoint is: remove it"):
        checkpoint_of(NEWEST, tmp_path)
