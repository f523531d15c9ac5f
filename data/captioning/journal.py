"""What a captioning job writes: a lock, a journal while it runs, a Parquet table and a list of bad samples at its end.

Killed anywhere, it leaves either the journal, whole but for a last line that is made again, or the finished table.
"""

import contextlib
import json
import os
from dataclasses import fields
from pathlib import Path

from ...files.bad_samples import BadSample, report_bad_samples
from ...files.whole import BusyError, one_writer, open_no_link, sync_folder, whole_file
from .request import Caption, CaptionError

METADATA = b"vsehub.captions"  # key in the table's schema: the request, the model, and the bad samples
ROWS_AT_ONCE = 10_000


class Journal:
    """The captions made so far, one fsynced JSON line a batch, below a line with the request and the model."""

    def __init__(self, path, header):
        self.path, self.header, self.file = Path(path), header, None

    def read(self):
        """Return captions and problems by image id, dropping a last line that was cut while being written.

        Raises:
            CaptionError: the journal of another request, or damaged elsewhere than at its end.
        """
        captions, problems, kept = {}, {}, 0
        if not self.path.exists():
            return captions, problems
        with open_no_link(self.path, "r+b") as file:
            for number, line in enumerate(file):
                record = _record(line)
                if number == 0 and record is not None:
                    refuse_other(record, self.header, self.path)
                elif record is not None and {"captions", "problems"} <= set(record):
                    try:
                        captions.update((row[0], Caption(*row)) for row in record["captions"])
                        problems.update(record["problems"])
                    except (TypeError, ValueError, IndexError, KeyError):
                        told = f"{self.path}, line {number + 1} is damaged: delete it, or pass --restart"
                        raise CaptionError(told) from None
                elif file.read(1):
                    raise CaptionError(f"{self.path}, line {number + 1} is damaged: delete it, or pass --restart")
                else:
                    break
                kept += len(line)
            file.truncate(kept)
        return captions, problems

    def append(self, captions, problems):
        """Write outcomes as one line, and return once they are on the disk."""
        record = {"captions": [list(vars(caption).values()) for caption in captions], "problems": problems}
        if self.file is None:
            self.file = open_no_link(self.path, "ab")
            if self.file.tell() == 0:
                self._write(self.header)
                sync_folder(self.path.parent)
        self._write(record)

    def _write(self, record):
        self.file.write(json.dumps(record).encode() + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self):
        """Close the file."""
        if self.file is not None:
            self.file.close()
            self.file = None


def _record(line):
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def refuse_other(saved, header, path):
    """Raise CaptionError unless `path` was made with the same request as this job."""
    for key in sorted({*saved, *header}):
        if saved.get(key) != header.get(key):
            raise CaptionError(
                f"{path} was begun with {key} {saved.get(key)!r}, this job has {header.get(key)!r}. Go on as it was "
                "begun, give another --out, or pass --restart to throw its captions away"
            )


@contextlib.contextmanager
def locked(out):
    """Hold `out` for this process; CaptionError if another one does."""
    try:
        with one_writer(f"{out}.lock", str(out)):
            yield
    except BusyError as error:
        raise CaptionError(str(error)) from None


def read_table(out, header):
    """Return captions and problems by image id of a finished table; both empty if there is none.

    Raises:
        CaptionError: not a table of this module, or one of another request (not judged if `header` is None).
    """
    import pyarrow.parquet as parquet

    if not os.path.exists(out):
        return {}, {}
    try:
        saved = json.loads(parquet.read_schema(out).metadata[METADATA])
        was, problems, table = dict(saved["header"]), dict(saved["problems"]), parquet.read_table(out)
        names = [item.name for item in fields(Caption) if item.name != "picture" or "picture" in table.column_names]
        columns = [table[name].to_pylist() for name in names]
    except Exception as error:  # pyarrow's errors, no metadata at all, or metadata of another tool
        raise CaptionError(f"{out} exists and is no table of dense captions ({error}): give another --out") from None
    if header is not None:
        refuse_other(was, header, out)
    return {row[0]: Caption(*row) for row in zip(*columns)}, problems


def write_table(out, captions, problems, header):
    """Write the list of bad samples, then the table; after an error there is no table."""
    import pyarrow
    import pyarrow.parquet as parquet

    texts = ("image_id", "dense_text", "model_id", "revision", "prompt_hash")
    columns = [(name, pyarrow.string()) for name in texts]
    columns += [("truncated", pyarrow.bool_()), ("num_tokens", pyarrow.int32()), ("picture", pyarrow.string())]
    metadata = {METADATA: json.dumps({"header": header, "problems": problems}).encode()}
    schema = pyarrow.schema(columns, metadata=metadata)
    made_by = {key: header[key] for key in ("model_id", "prompt_hash")}
    bad = [BadSample(image_id, problem) for image_id, problem in problems.items()]
    report_bad_samples(Path(out).parent, f"captions {Path(out).name}", bad)
    with whole_file(out) as file, parquet.ParquetWriter(file, schema) as writer:
        for start in range(0, len(captions), ROWS_AT_ONCE):  # one Arrow string column ends at 2 GB
            rows = [{**vars(caption), **made_by} for caption in captions[start : start + ROWS_AT_ONCE]]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))


__all__ = ["Journal", "locked", "read_table", "write_table"]
