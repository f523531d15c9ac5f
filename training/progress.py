"""What a run says while it works goes to stderr, so that stdout holds its results."""

import contextlib
import os
import sys
from collections.abc import Iterator

from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

REPORTERS: list[TrainerCallback] = []  # see `reported_by`


@contextlib.contextmanager
def reported_by(callback: TrainerCallback) -> Iterator[None]:
    """Let trainers that are made in this block report to `callback`, and say nothing themselves."""
    REPORTERS.append(callback)
    try:
        yield
    finally:
        REPORTERS.remove(callback)


class Bar(ProgressCallback):
    """The bar and the logged numbers, all on stderr."""

    def on_log(self, *args, **kwargs):
        """Print the numbers above the bar."""
        with contextlib.redirect_stdout(sys.stderr):
            super().on_log(*args, **kwargs)


class Lines(PrinterCallback):
    """The logged numbers without a bar (`--disable_tqdm True`), on stderr."""

    def on_log(self, *args, **kwargs):
        """Print the numbers."""
        with contextlib.redirect_stdout(sys.stderr):
            super().on_log(*args, **kwargs)


class StderrTrainer(Trainer):
    """A `Trainer` that reports on stderr; where `TQDM_DISABLE` is set (`vsehub train --quiet`), nowhere.

    In a block of `reported_by`, the callback reports in its place.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for theirs, ours in ((ProgressCallback, Bar), (PrinterCallback, Lines)):
            silent = REPORTERS or os.environ.get("TQDM_DISABLE")
            if self.pop_callback(theirs) is not None and not silent:
                self.add_callback(ours)
        for reporter in REPORTERS:
            self.add_callback(reporter)


__all__ = ["StderrTrainer", "reported_by"]
