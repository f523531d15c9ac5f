"""Short names of folders and repositories, for tables and legends."""

from pathlib import Path


def names_of(sources: list[str]) -> list[str]:
    """Short names: the shortest end of a path, of at least its last two parts, that no other of them has."""
    parts = [Path(source).parts if Path(source).is_dir() else tuple(source.split("/")) for source in sources]
    names = []
    for own in parts:
        length = min(2, len(own))
        while length < len(own) and sum(other[-length:] == own[-length:] for other in parts) > 1:
            length += 1
        names.append("/".join(own[-length:]))
    return names


__all__ = ["names_of"]
