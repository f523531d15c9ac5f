"""What a run says while it works goes to stderr, so that stdout holds its results."""

import contextlib
import os
import sys

from transformers import PrinterCallback, ProgressCallback, Trainer


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
    """A `Trainer` that reports on stderr; where `TQDM_DISABLE` is set (`vsehub train --quiet`), nowhere."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for theirs, ours in ((ProgressCallback, Bar), (PrinterCallback, Lines)):
            if self.pop_callback(theirs) is not None and not os.environ.get("TQDM_DISABLE"):
                self.add_callback(ours)


__all__ = ["StderrTrainer"]
