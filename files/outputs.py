"""Check output paths before long jobs start."""

from pathlib import Path


def output_file(path) -> Path:
    """Return the path of a file that can be written; its folder is made.

    Raises:
        IsADirectoryError, NotADirectoryError: a folder, or below a file.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file to write")
    output_folder(path.parent).mkdir(parents=True, exist_ok=True)
    return path


def output_folder(path) -> Path:
    """Return the path of a folder that is there or can be made.

    Raises:
        NotADirectoryError: a file, or below a file.
    """
    path = Path(path)
    existing = next(place for place in (path, *path.parents) if place.exists() or place == Path(path.anchor))
    if not existing.is_dir():
        raise NotADirectoryError(f"{existing} is a file, not a folder: name another place to write to")
    return path


__all__ = ["output_file", "output_folder"]
