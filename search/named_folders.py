"""The folders that the user named for an index on this machine: pictures of an index are opened only inside these.

They are recorded in the user's cache, `HF_HOME/vsehub/collections`, under a random number that is also in the manifest
of the index. The number of an index from another machine has no record here, whatever its manifest names as sources.
"""

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from ..files import remembered
from ..files.whole import write_json

UNNAMED = "is in no folder that was named for this index on this machine: add --images FOLDER to show it"


def new_origin() -> str:
    """A name for an index that is written here: 32 hexadecimal digits."""
    return secrets.token_hex(16)


def remember_folders(origin: str, folders: Iterable[str]):
    """Add folders or files to those of an index; nothing is recorded where the cache cannot be written."""
    known = folders_of(origin)
    if set(folders) <= known:
        return
    with contextlib.suppress(OSError):
        write_json(_file_of(origin), {"folders": sorted(known | set(folders))})


def folders_of(origin: str | None) -> set[str]:
    """The folders and files that were named here for an index; none where it is not known."""
    path = _file_of(origin)
    if path is None:
        return set()
    try:
        folders = json.loads(path.read_text(encoding="utf-8"))["folders"]
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or damaged
        return set()
    return {folder for folder in folders if isinstance(folder, str)} if isinstance(folders, list) else set()


def lies_in(path, folders: Iterable[str]) -> bool:
    """Whether a path is one of the folders or files, or is inside one, after links are resolved.

    The text of a received path is compared first, and links are resolved only in a path that passes: on Windows, to
    look at `\\\\host\\share` is a request to that host.
    """
    if not isinstance(path, str) or "\0" in path:
        return False
    places = {place for folder in folders for place in (os.path.abspath(folder), os.path.realpath(folder))}
    return _below(os.path.abspath(path), places) and _below(os.path.realpath(path), places)


def _below(path: str, places: set[str]) -> bool:
    return any(path == place or path.startswith(os.path.join(place, "")) for place in places)


def _file_of(origin) -> Path | None:
    if not isinstance(origin, str) or not re.fullmatch("[0-9a-f]{32}", origin):
        return None
    return remembered.digests_folder().with_name("collections") / f"{origin}.json"


__all__ = ["UNNAMED", "folders_of", "lies_in", "new_origin", "remember_folders"]
