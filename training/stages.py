"""What every training script does: stages one after the other, each finished, saved and resumable."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState
from datasets import Dataset
from transformers import set_seed

from ..data.rows import prepare_rows
from ..hub_cards.model_card import write_model_card
from .arguments import DataArguments, RetrievalTrainingArguments, TowerArguments

FINISHED = "finished.json"  # written last in a stage's folder: its metrics, and the sign that `best` is whole


@dataclass
class StageArguments:
    """The parsed arguments of one stage; `model` and `objective` are those of the system."""

    model: TowerArguments
    data: DataArguments
    objective: object
    training: RetrievalTrainingArguments

    def __post_init__(self):
        """Refuse what would fail late or select on the wrong split.

        Raises:
            ValueError, FileNotFoundError: with the flag and the remedy.
        """
        for name in ("vision", "text", *self.model.sources):
            source = getattr(self.model, name)
            if source and source.startswith(("/", ".", "~")) and not Path(source).is_dir():
                raise FileNotFoundError(f"--{name} {source}: no such folder")
        data, checkpoint = self.data, self.training.resume_from_checkpoint
        if data.eval_split.startswith("test"):
            raise ValueError(
                f"--eval_split {data.eval_split}: the best epoch is chosen there, so it cannot be a test split; name a "
                "validation split, and measure the result once with `vsehub evaluate`"
            )
        if data.eval_split == data.train_split:
            raise ValueError(f"--train_split and --eval_split are both {data.eval_split!r}: choose a held-out split")
        named = str(checkpoint).lower() not in ("none", "true", "false")
        if named and not (Path(checkpoint) / "trainer_state.json").exists():
            raise FileNotFoundError(f"--resume_from_checkpoint {checkpoint}: no checkpoint of a run (checkpoint-N)")
        if self.training.lr_milestones and self.training.warmup_steps:
            raise ValueError("--lr_milestones are the whole schedule, without a warm-up: leave --warmup_steps out")
        taken = next((path for path in Path(self.training.output_dir).parents if path.is_file()), None)
        if taken is not None:
            raise FileExistsError(f"--output_dir: {taken} is a file; choose a folder")


@dataclass
class Splits:
    """Prepared rows."""

    train: Dataset
    evaluation: Dataset


def read_splits(
    args: StageArguments, root: Path, need_dense: bool = False, need_label: bool = False, need_captions: bool = True
) -> Splits:
    """Prepare the training and the evaluation rows, once for all stages; dense text is for training rows alone."""
    reports = str(root) if args.training.process_index == 0 else None  # one process writes bad_samples.jsonl
    data = args.data
    needs = {"need_captions": need_captions}
    train = prepare_rows(data, data.train_split, reports, need_dense, data.max_train_images, need_label, **needs)
    return Splits(train, prepare_rows(data, data.eval_split, reports, False, data.max_eval_images, **needs))


def run_stages(stages: dict[str, StageArguments], root: Path, train: Callable, load: Callable):
    """Run stages in order and hand each the one before.

    A stage that an earlier, interrupted run finished is loaded, not resumed: Trainer would take one step more.

    Args:
        stages: the arguments of each stage that is wanted, in order.
        root: each stage has a folder there, with its selected model in `best`.
        train: (stage, args, previous) -> (model, processor, metrics); `previous` is the (model, processor) of the stage
            before, or None.
        load: (stage, folder) -> (model, processor).

    Returns:
        The last stage's (model, processor), and every stage's metrics.

    Raises:
        ValueError: one checkpoint to resume several stages from.
    """
    previous, results = None, {}
    _one_checkpoint_each(stages)
    for stage, args in stages.items():
        best, done = root / stage / "best", root / stage / FINISHED
        if str(args.training.resume_from_checkpoint).lower() == "true" and done.exists():
            previous, results[stage] = load(stage, best), json.loads(done.read_text())
            continue
        done.unlink(missing_ok=True)
        args.training.resume_from_checkpoint = find_resume(args.training)
        set_seed(args.training.seed)  # before the heads are drawn, not only before the first batch
        *previous, results[stage] = train(stage, args, previous)
        if args.training.process_index == 0:
            save(*previous, best)
            done.write_text(json.dumps(results[stage]))
            name = args.training.metric_for_best_model
            print(f"{stage}: {name.removeprefix('eval_')} {results[stage][name]:.1f} on {args.data.eval_split}")
        PartialState().wait_for_everyone()  # the next stage may read what this one saved
    return tuple(previous), results


def _one_checkpoint_each(stages: dict[str, StageArguments]):
    """Refuse one checkpoint for several stages: the second would stop, hours later, before weights of the first."""
    named = {}
    for stage, args in stages.items():
        checkpoint = str(args.training.resume_from_checkpoint)
        if checkpoint.lower() in ("none", "true", "false"):
            continue
        if checkpoint in named:
            raise ValueError(
                f"--resume_from_checkpoint {checkpoint}: it cannot be of both {named[checkpoint]} and {stage}; name "
                f"one stage (--{stage}.resume_from_checkpoint ...), or let each find its own (true)"
            )
        named[checkpoint] = stage


def save(model, processor, folder: Path):
    """Write weights, code and processor: a folder that loads anywhere."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def publish(root: Path, model, processor, card: dict, results: dict, examples: Callable = lambda folder: []):
    """Write the Hub folder with its card, and the validation metrics of all stages beside it.

    Args:
        root: of the run.
        model, processor: what was trained.
        card: arguments of `write_model_card`.
        results: of all stages.
        examples: folder -> pictures for the card, which it puts there.
    """
    save(model, processor, root / "hub")
    card["examples"] = examples(root / "hub")
    write_model_card(root / "hub", model=model, **card)
    (root / "validation.json").write_text(json.dumps(results, indent=2))
    print(f"Hub folder: {root / 'hub'}")


def find_resume(args: RetrievalTrainingArguments):
    """Turn `--resume_from_checkpoint true` into the stage's last checkpoint, or None where there is none yet."""
    from transformers.trainer_utils import get_last_checkpoint

    if str(args.resume_from_checkpoint).lower() != "true":
        return args.resume_from_checkpoint
    return get_last_checkpoint(args.output_dir) if Path(args.output_dir).is_dir() else None
