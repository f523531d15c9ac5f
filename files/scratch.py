"""Folders for files that only this process reads; what a killed process left is removed by the next one."""

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

LOCK = ".lock"
JUST_MADE = 60  # seconds in which a folder may not be locked yet


class ScratchFolder(tempfile.TemporaryDirectory):
    """A temporary folder that is locked as long as its process lives; making one removes those that nobody locks.

    Args:
        prefix: of its name; folders of other prefixes are left alone.
    """

    def __init__(self, prefix: str):
        from filelock import FileLock

        remove_left(prefix)
        super().__init__(prefix=prefix, ignore_cleanup_errors=True)
        self.lock = FileLock(os.path.join(self.name, LOCK))
        try:
            self.lock.acquire(timeout=0)
        except (OSError, NotImplementedError):  # a file system without locks: nobody may take the folder for left
            Path(self.name, LOCK).unlink(missing_ok=True)


def remove_left(prefix: str):
    """Remove the folders of this prefix and user whose processes were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError, NotImplementedError):  # of another user, or removed by another process
            if _is_left(folder):
                shutil.rmtree(folder)


def _is_left(folder: Path) -> bool:
    from filelock import FileLock, Timeout

    status, mine = folder.lstat(), getattr(os, "getuid", lambda: 0)()
    if folder.is_symlink() or status.st_uid != mine or time.time() - status.st_mtime < JUST_MADE:
        return False
    if not (folder / LOCK).is_file():  # no file to tell by
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return True
    except Timeout:
        return False


__all__ = ["ScratchFolder", "remove_left"]
