"""What every training script does: stages one after the other, each finished, saved and resumable."""

import errno
import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import PreTrainedModel, set_seed

from ..files.memory import reuse_memory
from ..files.whole import NO_LOCKS, BusyError, one_writer, recover, whole_folder, write_json
from ..hub_cards.model_card import write_model_card
from .inputs.bad_pictures import tell_bad_pictures
from .reports.progress import is_silent, places_lines, say
from .saving.checkpoints import refuse_non_finite
from .saving.resume import FINISHED, begin, is_finished, run_in
from .saving.settings import forget_caches_of_other_bands
from .stage_arguments import StageArguments

TRAINING_FILE = "training.json"  # in the folder of a stage: what a card says of it
LOCK = ".lock"  # in the folder of a stage, while it is trained
SECONDS = 30  # for which processes that load items may outlive the run that was killed, and hold its lock


def run_stages(
    stages: dict[str, StageArguments],
    train: Callable[..., tuple],
    load: Callable[[str, Path], tuple],
    rows: int | None = None,
    digests: dict[str, str] | None = None,
) -> tuple[tuple[Any, Any], dict[str, dict]]:
    """Run stages in order and hand each the one before.

    A stage that this run finished before it was interrupted is loaded, not resumed: Trainer would take one step more.

    Args:
        stages: the arguments of each stage that is wanted, in order.
        train: (args, previous) -> (model, processor, metrics); `previous` is the (model, processor) of the stage
            before, or None.
        load: (stage, folder) -> (model, processor).
        rows: of training, where they are counted.
        digests: of the texts of the data.

    Returns:
        The last stage's (model, processor), and every stage's metrics.

    Raises:
        ValueError: a stage would go on, or be published, with other settings or texts than it was trained with.
        BusyError: another run is training a stage in the same folder.
    """
    reuse_memory()  # not before the rows are read: what reading frees goes back to the system
    previous, before, results = None, None, {}
    for stage, args in stages.items():
        where = (args.resume, args.folder, before, args.settings(rows, digests))
        if is_finished(*where):
            recover(args.best)
            previous, results[stage] = load(stage, args.best), _finished(args.folder / FINISHED)
        else:
            with _alone(args):
                begin(*where, writes=args.training.should_save)
                previous, results[stage] = _trained(args, train, previous)
        before = run_in(args.folder)
    return previous, results


@contextmanager
def _alone(args: StageArguments) -> Iterator[None]:
    """Keep other runs out of a stage's folder: each would remove the other's checkpoints, or publish one as its own."""
    with ExitStack() as held:
        if args.training.process_index == 0:
            try:
                held.enter_context(one_writer(args.folder / LOCK, str(args.folder), wait=SECONDS))
            except BusyError as error:
                raise BusyError(f"{error}, or name another --output_dir") from None
            except (OSError, NotImplementedError) as error:  # a file system without locks: nobody can be kept out
                if getattr(error, "errno", errno.ENOSYS) not in NO_LOCKS:
                    raise
        yield


def _trained(args: StageArguments, train: Callable[..., tuple], previous: tuple | None) -> tuple[tuple, dict]:
    """Train one stage and save what it selected; its (model, processor) and its metrics."""
    if args.training.cache_vision and args.training.process_index == 0:
        forget_caches_of_other_bands(args.root / "cache", args.data.bands)
    PartialState().wait_for_everyone()
    set_seed(args.training.seed)  # before the heads are drawn, not only before the first batch
    model, processor, metrics = train(args, previous)
    if args.training.process_index == 0:
        (args.folder / TRAINING_FILE).unlink(missing_ok=True)  # it speaks of the model that is replaced
        save(model, processor, args.best)
        write_json(args.folder / FINISHED, metrics, indent=None)
        name = args.training.metric_for_best_model
        tell_bad_pictures(args.root, args.data.train_split)
        print(f"{args.stage}: {name.removeprefix('eval_')} {metrics[name]:.1f} on {args.data.eval_split}")
    PartialState().wait_for_everyone()  # the next stage may read what this one saved
    return (model, processor), metrics


def _finished(path: Path) -> dict:
    """The metrics of a stage that is done.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(metrics, dict) or not all(_is_metric(value) for value in metrics.values()):
            raise ValueError("it holds other things than numbers by name")
        return metrics
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not the metrics of a stage ({error}); remove it, and the stage goes on") from None


def _is_metric(value: Any) -> bool:
    """Whether something is a number, or intervals: numbers (low, high) by name."""
    if not isinstance(value, dict):
        return isinstance(value, (int, float))
    pairs = list(value.values())
    return all(isinstance(pair, list) and len(pair) == 2 and all(map(_is_metric, pair)) for pair in pairs)


def save(model: PreTrainedModel, processor: Any, folder: Path):
    """Write weights, code and processor to a folder that loads anywhere; an older folder is replaced.

    Raises:
        FloatingPointError: a weight is NaN or infinite; the older folder stays.
    """
    refuse_non_finite([model])
    with whole_folder(folder) as draft:
        model.save_pretrained(draft)
        processor.save_pretrained(draft)


def publish(
    root: Path,
    model: PreTrainedModel,
    processor: Any,
    card: dict,
    results: dict,
    examples: Callable[[Path], list[dict]] = lambda folder: [],
):
    """Write the Hub folder with its card, replacing an older one, and the validation metrics of all stages beside it.

    Args:
        root: folder of the run.
        model, processor: of the last stage.
        card: arguments of `write_model_card`.
        results: metrics of all stages.
        examples: writes example pictures to the folder and describes them for the card.
    """
    refuse_non_finite([model])
    with whole_folder(root / "hub") as draft:
        model.save_pretrained(draft)
        processor.save_pretrained(draft)
        card["examples"] = examples(draft)
        write_model_card(draft, model=model, **card)
    write_json(root / "validation.json", results)
    print(f"Hub folder: {root / 'hub'}")
    if not is_silent():
        found = {"model, a Hub folder": str(root / "hub"), "metrics of all stages": str(root / "validation.json")}
        found |= {f"best of {stage}": str(root / stage / "best") for stage in results}
        found["curves"] = f"vsehub plot {shlex.quote(str(root))} --out curves.png"
        for line in places_lines(list(found.items())):
            say(line)
