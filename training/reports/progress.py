"""What a run says while it works goes to stderr, so that stdout holds its results."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from .evaluation_table import table_head, table_line
from .run_header import header_of, peak_memory

REPORTERS: list[TrainerCallback] = []  # see `reported_by`
SHORT = {"eval_rsum": "rSum", "eval_accuracy": "accuracy"}  # beside the bar


@contextlib.contextmanager
def reported_by(callback: TrainerCallback) -> Iterator[None]:
    """Let trainers that are made in this block report to `callback`, and say nothing themselves."""
    REPORTERS.append(callback)
    try:
        yield
    finally:
        REPORTERS.remove(callback)


def is_silent() -> bool:
    """Whether runs say nothing: `vsehub train --quiet`, or somebody else reports."""
    return bool(REPORTERS or os.environ.get("TQDM_DISABLE"))


def say(text: str = ""):
    """Print a line on stderr, above a bar if there is one."""
    tqdm.write(text, file=sys.stderr)


class Progress(TrainerCallback):
    """One bar with loss, recall and the time that is left, and a line of a table at each evaluation.

    Args:
        trainer: which has the rows; it is described in a header when training begins.
        bar: whether there is a bar; without one (`--disable_tqdm True`), each logged loss is a line.
    """

    def __init__(self, trainer: Trainer, bar: bool = True):
        self.trainer, self.has_bar = trainer, bar
        self.bar: tqdm | None = None
        self.table = Table()
        self.beside: dict[str, str] = {}

    def on_train_begin(self, args, state, control, **kwargs):
        """Say what is trained on what, and open the bar; a resumed run starts where it goes on."""
        if not state.is_world_process_zero:
            return
        for line in header_of(self.trainer, args, state):
            say(line)
        if self.has_bar:
            rare = {} if sys.stderr.isatty() else {"mininterval": 10}  # in the file of a job, each step is a line
            total, done, stage = state.max_steps, state.global_step, _stage(args)
            self.bar = tqdm(total=total, initial=done, desc=stage, unit="step", file=sys.stderr, leave=False, **rare)

    def on_step_end(self, args, state, control, **kwargs):
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Show the loss."""
        if not state.is_world_process_zero or "loss" not in (logs or {}):
            return
        self.table.loss = float(logs["loss"])
        self._show("loss", f"{self.table.loss:.3f}")
        if self.bar is None:
            parts = {name.removeprefix("loss_"): value for name, value in logs.items() if name.startswith("loss_")}
            among = f" ({', '.join(f'{name} {float(value):.3f}' for name, value in parts.items())})"
            rate = f", learning rate {float(logs['learning_rate']):.3g}" if "learning_rate" in logs else ""
            loss = f"loss {self.table.loss:.3f}{among if len(parts) > 1 else ''}{rate}"
            say(f"{_stage(args)}: step {state.global_step} of {state.max_steps}, {loss}")

    def on_evaluate(self, args, state, control, metrics: dict, **kwargs):
        """Print a line of the table."""
        if not state.is_world_process_zero:
            return
        end = "best" if args.load_best_model_at_end else "end"
        for line in self.table.lines(_stage(args), state.global_step, metrics, end):
            say(line)
        for name in SHORT.keys() & metrics.keys():
            self._show(SHORT[name], f"{metrics[name]:.1f}")

    def on_train_end(self, args, state, control, **kwargs):
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        self.table.trained = True

    def _show(self, name: str, value: str):
        """Put a value beside the bar."""
        self.beside[name] = value
        if self.bar is not None:
            self.bar.set_postfix_str(", ".join(" ".join(item) for item in self.beside.items()), refresh=False)


class Table:
    """The lines of a table of evaluations; a stage starts with the titles.

    `loss` is the last of training, or None; `trained` says that a stage ended, and the next evaluation is of what it
    selected.
    """

    def __init__(self):
        self.loss: float | None = None
        self.trained = False
        self.last, self.shown = ("", -1), {}

    def lines(self, stage: str, step: int, metrics: dict, end: str = "best") -> list[str]:
        """The lines of an evaluation; none where the selected model is that of the last line.

        Args:
            stage, step, metrics: of the evaluation.
            end: stands in place of the step where a stage has ended.
        """
        selected, self.trained = self.trained, False
        known = {key: value for key, value in metrics.items() if isinstance(value, (int, float))}
        same = (stage, step) == self.last and all(known.get(key, value) == value for key, value in self.shown.items())
        head = [] if stage == self.last[0] else ["", table_head(self._with_loss(known))]
        self.last = stage, step
        self.shown = {key: value for key, value in known.items() if "recall" in key or key in SHORT}
        if same:
            return []
        return [*head, table_line(stage, end if selected else step, self._with_loss(known))]

    def _with_loss(self, metrics: dict) -> dict:
        return metrics if self.loss is None else {"loss": self.loss, **metrics}


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
        memory = f"; {told}" if (told := peak_memory(args.device)) else ""
        end = datetime.now() + timedelta(seconds=step * left)
        say(
            f"{_stage(args)}: {step:.2g} s a step; {left} steps are left, until about {end:%H:%M on %d %B} "
            f"({as_duration(step * left)}), evaluations and other stages not counted{memory}"
        )


def as_duration(seconds: float) -> str:
    """A time in the unit that fits: `50 s`, `12 min`, `3.5 h`, `2.1 days`."""
    for unit, size in (("days", 86_400), ("h", 3600)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def places_lines(items: Sequence[tuple[str, str]]) -> list[str]:
    """Lines that say where everything lies: (what, where)."""
    return ["", "where it is", *(f"  {what:24}{where}" for what, where in items)]


def _stage(args) -> str:
    return Path(args.output_dir).name


class StderrTrainer(Trainer):
    """A `Trainer` that reports on stderr; where `TQDM_DISABLE` is set (`vsehub train --quiet`), nowhere.

    In a block of `reported_by`, the callback reports in its place.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for theirs, has_bar in ((ProgressCallback, True), (PrinterCallback, False)):
            if self.pop_callback(theirs) is not None and not is_silent():
                self.add_callback(Progress(self, has_bar))
                self.add_callback(EndEstimate())
        for reporter in REPORTERS:
            self.add_callback(reporter)


__all__ = ["Progress", "StderrTrainer", "Table", "is_silent", "places_lines", "reported_by", "say"]
