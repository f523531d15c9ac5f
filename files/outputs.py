"""Check output paths before long jobs start."""

import os
from pathlib import Path

STREAMS = ("/dev", "/dev/fd", "/proc/self/fd")  # `--json /dev/stdout` is written, never replaced


def output_file(path) -> Path:
    """Return the path of a file that can be written; its folder is made.

    Raises:
        IsADirectoryError, NotADirectoryError: a folder, or below a file.
        PermissionError: in a folder where nothing may be written.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file to write")
    if str(path.parent) not in STREAMS:
        output_folder(path.parent).mkdir(parents=True, exist_ok=True)
        _writable(path.parent)
    return path


def output_folder(path) -> Path:
    """Return the path of a folder that is there or can be made.

    Raises:
        NotADirectoryError: a file, or below a file.
        PermissionError: it is not there, and may not be made.
    """
    path = Path(path)
    existing = next(place for place in (path, *path.parents) if place.exists() or place == Path(path.anchor))
    if not existing.is_dir():
        raise NotADirectoryError(f"{existing} is a file, not a folder: name another place to write to")
    if existing != path:
        _writable(existing)
    return path


def _writable(folder: Path):
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} is a folder in which you may not write: name another place to write to")


__all__ = ["output_file", "output_folder"]
