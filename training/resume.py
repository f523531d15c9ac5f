"""Where a stage starts: anew, at its newest checkpoint, or at a checkpoint that is named."""

from pathlib import Path
from typing import Literal

from .checkpoints import missing_part, newest_whole

NEWEST: Literal["newest"] = "newest"
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
    return newest_whole(folder) if resume == NEWEST else resume


__all__ = ["NEWEST", "Resume", "checkpoint_of", "parse_resume"]
