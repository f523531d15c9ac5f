"""The list of what could not be used, `bad_samples.jsonl`: one line a sample, one format for every verb.

    {"source": "split train", "image_id": "12", "row": 3, "problem": "image 12: zero bytes"}

Several sources may report into one folder; a new report of a source takes the place of its last one.
"""

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from .whole import one_writer, write_text

BAD_SAMPLES = "bad_samples.jsonl"
OLD_SOURCES = {"split": "split", "out": "captions", "collection": "collection"}  # what lines of 0.1.0 have instead


@dataclass(frozen=True)
class BadSample:
    """A sample that was left out.

    Args:
        image_id: of the row, or the name of the file.
        problem: what is wrong, for a person.
        row: its number in the source, where it has one.
        path: of the file, where there is one.
        source: what was read, such as `split train`; `report_bad_samples` sets it.
    """

    image_id: str
    problem: str
    row: int | None = None
    path: str | None = None
    source: str = ""


def report_bad_samples(
    folder: str | Path,
    source: str,
    samples: Iterable[BadSample],
    unread: Collection[str] = (),
    before: str = "",
) -> Path | None:
    """List a source's bad samples, in place of those that an earlier run listed; no samples at all: no file.

    Args:
        folder: of the list; it is made where there is something to list.
        source: what was read: `split NAME`, `captions NAME`, `collection NAME`.
        samples: what could not be used.
        unread: ids of samples that were not looked at again: what was said of them stays.
        before: name of a list of an earlier version in this folder, which becomes part of this one.

    Returns:
        The path of the list, None if there is none.
    """
    path, old = Path(folder) / BAD_SAMPLES, Path(folder) / before if before else None
    samples = [BadSample(**{**asdict(sample), "source": source}) for sample in samples]
    if not samples and not path.exists() and not (old and old.exists()):
        return None
    with one_writer(path.with_name(f".{BAD_SAMPLES}.lock"), str(path), wait=60):
        entries = [entry for file in filter(None, (old, path)) for entry in _entries(file)]
        kept = [entry for entry in entries if _source(entry) != source or _id(entry) in unread]
        lines = kept + [{name: value for name, value in asdict(each).items() if value is not None} for each in samples]
        if lines:
            write_text(path, "".join(f"{json.dumps(line)}\n" for line in lines))
        else:
            path.unlink(missing_ok=True)
        if old:
            old.unlink(missing_ok=True)
    return path if lines else None


def note_bad_sample(folder: str | Path, source: str, sample: BadSample):
    """Add a sample to the list while work goes on; `report_bad_samples` of all of them removes repeated ones.

    Args:
        folder, source: as for `report_bad_samples`.
        sample: what could not be used.
    """
    path = Path(folder) / BAD_SAMPLES
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = {name: value for name, value in asdict(sample).items() if value is not None} | {"source": source}
    with one_writer(path.with_name(f".{BAD_SAMPLES}.lock"), str(path), wait=60), path.open("a+b") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":  # half a line of a process that was killed
                file.write(b"\n")
        file.write(f"{json.dumps(entry)}\n".encode())


def read_bad_samples(path: str | Path) -> list[BadSample]:
    """Read a list, also one of an earlier version; no file: no samples. What is no line of a list is left out."""
    return [
        BadSample(
            image_id=_id(entry),
            problem=str(entry["problem"]),
            row=entry.get("row"),
            path=entry.get("path"),
            source=_source(entry),
        )
        for entry in _entries(Path(path))
        if "problem" in entry
    ]


def _entries(path: Path) -> list[dict]:
    """The JSON objects among the lines of a file; half a line of a killed earlier version says nothing."""
    if not path.is_file() or path.is_symlink():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            entry = json.loads(line) if line.strip() else None
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def _id(entry: dict) -> str:
    return str(entry.get("image_id", entry.get("id", "")))


def _source(entry: dict) -> str:
    if "source" in entry:
        return str(entry["source"])
    return next((f"{kind} {entry[name]}" for name, kind in OLD_SOURCES.items() if name in entry), "")


__all__ = ["BAD_SAMPLES", "BadSample", "note_bad_sample", "read_bad_samples", "report_bad_samples"]
