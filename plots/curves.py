"""Curves of training runs: losses, metrics of the evaluations, learning rates; read from their checkpoints.

Needs matplotlib (the extra `plot`).
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..files.short_names import names_of
from ..files.whole import whole_path
from ..training.saving.checkpoints import HISTORY, NAME, STATE, own_checkpoints

MAIN = ("rsum", "mean_recall", "accuracy")  # without a choice, the first of these that is there is drawn
PANEL = (6.4, 3.4)  # inches
DASHES = ("-", "--", ":", "-.")  # the next one after each ten lines, when the colours begin anew


@dataclass
class Curves:
    """What one stage of a run logged: name -> [(step, value)]; evaluations begin with `eval_`."""

    name: str
    series: dict[str, list[tuple[int, float]]]


def read_curves(runs: Iterable[str | Path]) -> list[Curves]:
    """Read the curves of several runs; a checkpoint that several of them lead to is read once.

    No two have one name: `RUN/STAGE`, with more of the path before it, or the checkpoint behind it, where these repeat.

    Args:
        runs: each the folder of a run (`--output_dir`), of a stage in it, or of a checkpoint.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the record of a stage or of a checkpoint is damaged.
    """
    checkpoints = list(dict.fromkeys(path.resolve() for run in runs for path in _checkpoints(Path(run))))
    folders = [str(path.parent if NAME.fullmatch(path.name) else path) for path in checkpoints]
    stages = list(dict.fromkeys(folders))
    names = dict(zip(stages, names_of(stages)))
    return [
        _curves(path, names[folder] + (f"/{path.name}" if folders.count(folder) > 1 and str(path) != folder else ""))
        for path, folder in zip(checkpoints, folders)
    ]


def _checkpoints(run: Path) -> list[Path]:
    """What has the record of each stage of a run, or of one stage; or the checkpoint that was named."""
    if not run.exists():
        raise FileNotFoundError(f"{run}: no such folder")
    if not run.is_dir():
        raise ValueError(f"{run} is a file: name the folder of a run (`--output_dir` of vsehub train)")
    if (run / STATE).exists() or (run / HISTORY).exists():
        return [run]
    if newest := own_checkpoints(run):
        return [newest[-1]]
    stages = [path for path in sorted(run.iterdir()) if path.is_dir() and not NAME.fullmatch(path.name)]
    found = [path for path in map(_newest, stages) if path]
    if not found:
        raise FileNotFoundError(
            f"{run}: no checkpoint of a run in it (STAGE/checkpoint-N): name the folder of a run "
            "(`--output_dir` of vsehub train) that has saved one"
        )
    return found


def _newest(stage: Path) -> Path | None:
    """The folder of a finished stage, whose record is of all steps, or its newest checkpoint."""
    if (stage / HISTORY).exists():
        return stage
    checkpoints = own_checkpoints(stage)
    return checkpoints[-1] if checkpoints else None


def _curves(folder: Path, name: str) -> Curves:
    record = folder / (HISTORY if (folder / HISTORY).exists() else STATE)
    try:
        history = json.loads(record.read_text(encoding="utf-8"))["log_history"]
        series: dict[str, list[tuple[int, float]]] = {}
        for entry in history:
            for key, value in entry.items():
                if key not in ("step", "epoch") and type(value) in (int, float):
                    series.setdefault(key, []).append((int(entry["step"]), float(value)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{record}: not the record of a run ({error}); name another checkpoint of it") from None
    return Curves(name, series)


def draw_curves(curves: list[Curves], out: str | Path, metrics: Iterable[str] = ()):
    """Draw losses, metrics and learning rates of all runs to one picture; its format is that of the name.

    Args:
        curves: of one or several runs.
        out: file, .png, .svg or .pdf.
        metrics: names without `eval_`, as `i2t_recall@1`; none: rSum, mean recall or accuracy.

    Raises:
        ImportError: matplotlib is not there.
        ValueError: a metric that no run has, or a format that cannot be written.
    """
    panels = _panels(curves, list(metrics))
    figure = load_figure()(figsize=(PANEL[0], PANEL[1] * len(panels)), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels.items()):
        for place, (label, points) in enumerate(lines):
            dashes, marker = DASHES[place // 10 % len(DASHES)], "." if len(points) < 30 else None
            axes.plot(*zip(*points), dashes, label=shown(label), marker=marker)
        axes.set(title=shown(title), xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    save_figure(figure, out)


def load_figure() -> type:
    """The class `Figure` of matplotlib.

    Raises:
        ImportError: matplotlib is not there.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("drawing needs matplotlib: pip install vsehub[plot]") from None
    return Figure


def shown(name: str) -> str:
    """A name as matplotlib shows it unchanged: by itself it reads `$` as formulas, and hides what begins with `_`."""
    plain = name.replace("$", r"\$")
    return f"\u200a{plain}" if plain.startswith("_") else plain  # a thin space


def save_figure(figure, out: str | Path):
    """Write a figure, whole or not at all; the format is that of the name.

    Raises:
        ValueError: a format that cannot be written.
    """
    try:
        with whole_path(out) as draft:
            figure.savefig(draft)
    except ValueError as error:
        raise ValueError(f"{out}: {error}") from None


def _panels(curves: list[Curves], metrics: list[str]) -> dict[str, list[tuple[str, list[tuple[int, float]]]]]:
    """Title -> lines (label, points); panels without a line are left out."""
    known = sorted({name.removeprefix("eval_") for run in curves for name in run.series if name.startswith("eval_")})
    for name in metrics:
        if name not in known:
            raise ValueError(f"no evaluation of these runs has {name!r}; there are: {', '.join(known) or 'none'}")
    metrics = metrics or [name for name in MAIN if name in known][:1]
    panels = {
        "loss": [name for name in sorted({name for run in curves for name in run.series}) if name.startswith("loss")],
        **{name: [f"eval_{name}"] for name in metrics},
        "learning rate": ["learning_rate"],
    }
    lines = {
        title: [
            (run.name if len(names) == 1 else f"{run.name} {name}", run.series[name])
            for run in curves
            for name in names
            if name in run.series
        ]
        for title, names in panels.items()
    }
    drawn = {title: each for title, each in lines.items() if each}
    if not drawn:
        raise ValueError("these runs logged nothing yet: let them make --logging_steps steps")
    return drawn


__all__ = ["Curves", "draw_curves", "load_figure", "read_curves", "save_figure", "shown"]
