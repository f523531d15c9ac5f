"""Pictures that turn out to be unreadable while training: the run stops, or another pair takes their place."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...data.rows import SOURCE_ROW
from ...files.bad_samples import BAD_SAMPLES, BadSample, note_bad_sample, read_bad_samples, report_bad_samples
from ...processing.pixels import BadImageError

TRIES = 100  # pairs in a row that may be unreadable
REMEDY = ". Repair it, or go on without it: --on_bad_sample quarantine --resume_from_checkpoint true"


class BadPictures:
    """What `--on_bad_sample` says, for pictures that are looked at when they are met.

    A pair whose picture cannot be read is replaced by a pair drawn from (seed, epoch, position), so that a run that
    goes on, or has other processes, trains on the same pairs. Each process lists a row once, at once.

    Args:
        on_bad_sample: `error` or `quarantine`.
        folder: of the run, where `bad_samples.jsonl` is; None lists nothing.
        split: which is trained on.
    """

    def __init__(self, on_bad_sample: str = "error", folder: Path | None = None, split: str = "train"):
        self.replace, self.folder, self.source = on_bad_sample == "quarantine", folder, f"split {split}"
        self.listed: set[str] = set()

    def item(
        self,
        position: Any,
        others: Iterator,
        load: Callable[[Any], dict],
        row_of: Callable[[Any], dict],
    ) -> dict:
        """Load an item, or one in its place.

        Args:
            position: of the item, or another key that `load` and `row_of` take.
            others: positions of items that may take its place.
            load: position -> item.
            row_of: position -> its prepared row.

        Raises:
            BadImageError: its picture cannot be read, and nothing may take its place.
            ValueError: nor can the pictures of `TRIES` others.
        """
        for _ in range(TRIES):
            try:
                return load(position)
            except BadImageError as error:
                if not self.replace:
                    raise
                self._list(row_of(position), str(error))
            position = next(others)
        raise ValueError(f"nor can {TRIES - 1} pictures that were to take its place; see {BAD_SAMPLES}")

    def _list(self, row: dict, problem: str):
        image_id = str(row["image_id"])
        if self.folder is not None and image_id not in self.listed:
            note_bad_sample(self.folder, self.source, BadSample(image_id, problem, row.get(SOURCE_ROW)))
        self.listed.add(image_id)


def replacements(dataset, position: int) -> Iterator[int]:
    """Positions that may take the place of an item of a `DrawnDataset`, which has `seed`, `epoch` and a length."""
    rng = np.random.default_rng((dataset.seed, dataset.epoch, position, 1))
    while True:
        yield int(rng.integers(len(dataset)))


def tell_bad_pictures(folder: Path, split: str):
    """Print one line where rows of a split were left out or replaced, and list each of them once."""
    source = f"split {split}"
    listed = [sample for sample in read_bad_samples(folder / BAD_SAMPLES) if sample.source == source]
    if listed:
        samples = {sample.image_id: sample for sample in listed}
        path = report_bad_samples(folder, source, samples.values())
        print(
            f"{len(samples)} bad rows of {source} were left out or replaced; they are listed in {path}", file=sys.stderr
        )


__all__ = ["REMEDY", "BadPictures", "replacements", "tell_bad_pictures"]
