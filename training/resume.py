"""Where a stage starts: anew, at its newest checkpoint, or at a checkpoint that is named."""

from pathlib import Path
from typing import Literal

from transformers.trainer_utils import get_last_checkpoint

NEWEST: Literal["newest"] = "newest"
Resume = Path | Literal["newest"] | None


def parse_resume(flag: str | bool | None) -> Resume:
    """Read `--resume_from_checkpoint`: nothing or false, true, or the folder of a checkpoint.

    Raises:
        FileNotFoundError: the folder is no checkpoint.
    """
    if str(flag).lower() in ("none", "false"):
        return None
    if str(flag).lower() in ("true", NEWEST):
        return NEWEST
    folder = Path(str(flag))
    if not (folder / "trainer_state.json").exists():
        raise FileNotFoundError(f"--resume_from_checkpoint {flag}: no checkpoint of a run (checkpoint-N)")
    return folder


def checkpoint_of(resume: Resume, folder: Path) -> Path | None:
    """The checkpoint to go on from, or None to start anew.

    Args:
        resume: what the flag says.
        folder: of the stage; its newest checkpoint is looked for there.
    """
    if resume != NEWEST:
        return resume
    newest = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    return None if newest is None else Path(newest)


__all__ = ["NEWEST", "Resume", "checkpoint_of", "parse_resume"]
