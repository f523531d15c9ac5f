"""What a demo says while it works: a header, one bar, a line of a table at each evaluation, and what to try next.

All of it goes to stderr, so that stdout holds the results alone.
"""

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import datasets
from tqdm import tqdm
from transformers import TrainerCallback
from transformers.utils import logging

from ..training.reports.progress import Table, places_lines, reported_by

WIDTH = 78  # characters of a rule


@contextlib.contextmanager
def silent_libraries() -> Iterator[None]:
    """Hide the bars and remarks of transformers and datasets in this block, where they are imported already."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    data_bars = datasets.are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
        if not data_bars:
            datasets.enable_progress_bars()


class Console:
    """Speaks for a demo on stderr.

    Args:
        verbose: the trainer and the libraries speak for themselves; the bar and the table are left out.
        quiet: nothing is said.
    """

    def __init__(self, verbose: bool = False, quiet: bool = False):
        self.verbose, self.quiet = verbose, quiet
        self.stream = sys.stderr

    def libraries(self) -> contextlib.AbstractContextManager:
        """A block in which libraries are silent, unless they may speak."""
        return contextlib.nullcontext() if self.verbose else silent_libraries()

    def say(self, text: str = ""):
        """Print a line."""
        if not self.quiet:
            tqdm.write(text, file=self.stream)

    def header(self, title: str, facts: Sequence[tuple[str, str]]):
        """Print what is about to happen: a title, and lines of (name, text)."""
        self.say(f"{title}\n{'-' * WIDTH}")
        for name, text in facts:
            self.say(f"{name:10}{text}")
        self.say("-" * WIDTH)

    def next_steps(self, places: Sequence[tuple[str, str]], commands: Sequence[tuple[str, str]]):
        """Print where everything lies, (what, path), and what to try next, (why, command)."""
        for line in places_lines(places):
            self.say(line)
        self.say("\nwhat to try next")
        for why, command in commands:
            self.say(f"  # {why}\n  {command}")

    @contextlib.contextmanager
    def training(self, steps: int) -> Iterator[None]:
        """Show one bar over all stages that are trained in this block, `steps` in all; other remarks are dropped."""
        if self.verbose:
            yield
            return
        remarks = io.StringIO()
        with (
            tqdm(total=steps, desc="training", unit="step", file=self.stream, disable=self.quiet, leave=False) as bar,
            reported_by(_Progress(self, bar)),
            contextlib.redirect_stdout(remarks),
            contextlib.redirect_stderr(remarks),
        ):
            yield


class _Progress(TrainerCallback):
    """Moves the bar, and prints a line of the table at each evaluation."""

    def __init__(self, console: Console, bar: tqdm):
        self.console, self.bar, self.table = console, bar, Table()
        self.before = 0  # steps of earlier stages

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(self.before + state.global_step - self.bar.n)

    def on_train_end(self, args, state, control, **kwargs):
        self.before += state.global_step
        self.table.trained = True

    def on_evaluate(self, args, state, control, metrics: dict, **kwargs):
        for line in self.table.lines(Path(args.output_dir).name, state.global_step, metrics):
            self.console.say(line)


__all__ = ["Console"]
