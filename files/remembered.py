"""Remember what was computed from a folder's files, so that gigabytes are not read again at every start.

It is remembered in the user's cache, `HF_HOME/vsehub/digests`, never in the folder itself, beside the names, sizes and
dates of the files. Where one of these differs, or the cache cannot be read or written, it is computed again.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from .digests import settings_digest
from .whole import write_json

SETTLED_NS = 2_000_000_000  # a file may change twice within one tick of its clock: younger files are not trusted
KEPT = 200  # entries


def folder_state(folder: str | Path) -> list | None:
    """Name, size, dates and inode of each file of a folder and of the folders in it; None if that is no folder.

    Links are followed. A model of sentence-transformers may keep its weights one folder down.
    """
    try:
        with os.scandir(folder) as entries:
            entries = sorted(entries, key=lambda entry: entry.name)
        names = [entry.name for entry in entries if entry.is_file()]
        for entry in entries:
            if entry.is_dir() and not entry.name.startswith("."):
                with os.scandir(entry.path) as below:
                    names += sorted(f"{entry.name}/{each.name}" for each in below if each.is_file())
        stats = [(name, os.stat(os.path.join(folder, name))) for name in names]
    except OSError:
        return None
    return [[name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for name, s in stats]


def remembered(folder: str | Path, before: list | None, what: list, compute: Callable[[], str]) -> str:
    """Return `compute()`, or what it returned when the folder's files were the same.

    Args:
        folder: what `compute` depends on.
        before: its `folder_state` before anything was read; what changes meanwhile is not remembered.
        what: names what is computed, and everything else that it depends on.
        compute: makes a text.
    """
    if before is None or folder_state(folder) != before:
        return compute()
    wanted = {"folder": os.path.abspath(folder), "what": what, "files": before}
    path = digests_folder() / f"{settings_digest([wanted['folder'], what], 32)}.json"
    with contextlib.suppress(OSError, ValueError, AttributeError):  # none yet, damaged, or of another version
        entry = json.loads(path.read_text(encoding="utf-8"))
        if {name: entry.get(name) for name in wanted} == wanted and isinstance(entry.get("value"), str):
            return entry["value"]
    value = compute()
    youngest = max((max(dates) for _, _, *dates, _ in before), default=0)
    if folder_state(folder) == before and youngest < time.time_ns() - SETTLED_NS:
        with contextlib.suppress(OSError):  # a cache that cannot be written is none
            write_json(path, {**wanted, "value": value})
            for old in sorted(path.parent.glob("*.json"), key=os.path.getmtime)[:-KEPT]:
                old.unlink(missing_ok=True)
    return value


def digests_folder() -> Path:
    """Where it is remembered; the folder need not exist."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "vsehub" / "digests"


__all__ = ["folder_state", "remembered"]
