"""What a run says while it works goes to stderr, so that stdout holds its results."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from tqdm.auto import tqdm
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


class EndEstimate(TrainerCallback):
    """Says after 20 steps when the stage will end, if it has as many steps again."""

    STEPS = 20

    def on_train_begin(self, args, state, control, **kwargs):
        """Start to count; a resumed run starts where it goes on."""
        self.first, self.begun = state.global_step, None

    def on_step_end(self, args, state, control, **kwargs):
        """Take the time of a step without the first, which also warms up."""
        done = state.global_step - self.first
        if done == 1:
            self.begun = time.monotonic()
        left = state.max_steps - state.global_step
        if done != self.STEPS or left < self.STEPS or self.begun is None or not state.is_world_process_zero:
            return
        step = (time.monotonic() - self.begun) / (self.STEPS - 1)
        end = datetime.now() + timedelta(seconds=step * left)
        stage = Path(args.output_dir).name
        tqdm.write(
            f"{stage}: {step:.2g} s a step; {left} steps are left, until about {end:%H:%M on %d %B} "
            f"({as_duration(step * left)}), evaluations and other stages not counted",
            file=sys.stderr,
        )


def as_duration(seconds: float) -> str:
    """A time in the unit that fits: `50 s`, `12 min`, `3.5 h`, `2.1 days`."""
    for unit, size in (("days", 86_400), ("h", 3600)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


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
        if not REPORTERS and not os.environ.get("TQDM_DISABLE"):
            self.add_callback(EndEstimate())
        for reporter in REPORTERS:
            self.add_callback(reporter)


__all__ = ["StderrTrainer", "reported_by"]
