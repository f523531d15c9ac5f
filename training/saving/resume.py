"""Where a stage starts: anew, at its newest checkpoint, or at a checkpoint that is named."""

import secrets
from pathlib import Path
from typing import Any, Literal

from accelerate import PartialState

from .checkpoints import HISTORY, missing_part, newest_whole
from .settings import EARLIER, Record, read_record, refuse_other_settings, write_record

NEWEST: Literal["newest"] = "newest"
FINISHED = "finished.json"  # written last in a stage's folder: its metrics, and the sign that `best` is whole
Resume = Path | Literal["newest"] | None


def parse_resume(flag: str | bool | None) -> Resume:
    """Read `--resume_from_checkpoint`: nothing or false, true, or the folder of a checkpoint.

    Raises:
        FileNotFoundError: the folder is no checkpoint.
        ValueError: it lacks a part.
    """
    if str(flag).lower() in ("none", "false"):
        return None
    if str(flag).lower() in ("true", NEWEST):
        return NEWEST
    folder = Path(str(flag))
    if not (folder / "trainer_state.json").exists():
        raise FileNotFoundError(f"--resume_from_checkpoint {flag}: no checkpoint of a run (checkpoint-N)")
    if missing := missing_part(folder):
        raise ValueError(
            f"--resume_from_checkpoint {flag} is not whole ({missing}): name another one, or `true` for the newest "
            "that is"
        )
    return folder


def checkpoint_of(resume: Resume, folder: Path) -> Path | None:
    """The checkpoint to go on from, or None to start anew.

    Args:
        resume: what the flag says.
        folder: of the stage; its newest whole checkpoint is looked for there.

    Raises:
        ValueError: there are checkpoints, and none is whole.
    """
    return newest_whole(folder, own=True) if resume == NEWEST else resume


def is_finished(resume: Resume, folder: Path, before: str | None, settings: dict[str, Any]) -> bool:
    """Whether this run has finished a stage, so that it is loaded and not trained.

    Args:
        resume: what the flag says.
        folder: of the stage.
        before: the run that trained the stage before; None: this run has none before.
        settings: of this run.

    Raises:
        ValueError: it was finished with other settings.
    """
    if resume != NEWEST or not (folder / FINISHED).exists() or not _follows(folder, before):
        return False
    refuse_other_settings(folder, read_record(folder), settings, finished=True)
    return True


def begin(resume: Resume, folder: Path, before: str | None, settings: dict[str, Any], writes: bool):
    """Make a stage's folder that of this run.

    A run that goes on from a checkpoint in this folder keeps the name of the run that wrote it. Any other run gets a
    new name, so that older checkpoints no longer count. The sign that the stage is finished is removed; what was
    published stays until something takes its place.

    Args:
        resume, folder, before, settings: as for `is_finished`.
        writes: whether this process writes the folder's record.

    Raises:
        ValueError: it would go on from a checkpoint of other settings.
    """
    checkpoint = checkpoint_of(resume, folder) if resume != NEWEST or _follows(folder, before) else None
    run = secrets.token_hex(8)
    if checkpoint is not None:
        kept, record = read_record(checkpoint), read_record(folder)
        if kept is None and record is not None and record.run == EARLIER:
            kept = record
        refuse_other_settings(checkpoint, kept, settings, finished=False)
        if checkpoint.resolve().parent == folder.resolve():
            run = EARLIER if kept is None else kept.run
    PartialState().wait_for_everyone()  # all have read the folder
    if writes:
        for name in (FINISHED, HISTORY):
            (folder / name).unlink(missing_ok=True)
        write_record(folder, Record(run, before or EARLIER, settings))
    PartialState().wait_for_everyone()


def run_in(folder: Path) -> str:
    """The run that trained a stage, or trains it."""
    record = read_record(folder)
    return EARLIER if record is None else record.run


def _follows(folder: Path, before: str | None) -> bool:
    """Whether a stage was trained after this stage before it, and not after one that has since been trained anew."""
    record = read_record(folder)
    return before is None or before == (EARLIER if record is None else record.after)


__all__ = ["FINISHED", "NEWEST", "Resume", "begin", "checkpoint_of", "is_finished", "parse_resume", "run_in"]
