"""What every training script does: stages one after the other, each finished, saved and resumable."""

import copy
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedModel, set_seed

from ..configuration.configuration_dual_encoder import nested_widths
from ..data.arguments import DataArguments
from ..data.rows import prepare_rows
from ..data.sources import path_of
from ..data.streams import Stream, open_stream
from ..files.bad_samples import report_bad_samples
from ..files.memory import reuse_memory
from ..files.whole import recover, whole_folder, write_json
from ..hub_cards.model_card import write_model_card
from .flags.arguments import RetrievalTrainingArguments, TowerArguments
from .flags.launch import check_fsdp
from .flags.limits import check_lora, check_settings
from .flags.recipe import given_names, parse_stages
from .flags.selection import check_metric_of_rows, metric_of
from .flags.without_effect import refuse_without_effect
from .inputs.bad_pictures import tell_bad_pictures
from .inputs.held_out import parts_of_one_split, without_pictures_of
from .inputs.streamed_pairs import check_streaming
from .reports.progress import is_silent, places_lines, say
from .saving.checkpoints import refuse_non_finite
from .saving.resume import FINISHED, Resume, begin, checkpoint_of, is_finished, parse_resume, run_in
from .saving.settings import digests_of, forget_caches_of_other_bands, settings_of

TRAINING_FILE = "training.json"  # in the folder of a stage: what a card says of it
OF_A_STAGE = (  # settings of the data that each stage may have of its own
    "dense_sampling",
    "image_augmentation",
    "max_text_length",
    "pairs_per_epoch",
    "shuffle_buffer",
    "text_augmentation",
)

FEWEST = 10  # pictures of which every one is among the first ten
TEST = re.compile(r"(?<![a-z])tests?(?![a-z])")  # in the name of a split: test[:50%], karpathy_test


@dataclass
class StageArguments:
    """The parsed arguments of one stage of a run.

    Args:
        stage: its name.
        model, data, objective: the arguments of the system; those of D2S-VSE and of PIR extend `TowerArguments` and
            `StructureArguments`.
        training: those of Trainer; `output_dir` is the folder of the run, in which the stage has a folder of its name.
    """

    stage: str
    model: Any
    data: DataArguments
    objective: Any
    training: RetrievalTrainingArguments
    resume: Resume = field(init=False)

    def __post_init__(self):
        """Refuse settings that would fail late, or select on the wrong split.

        Raises:
            ValueError, FileNotFoundError: with the flag and the remedy.
        """
        data = self.data
        if not data.data:
            raise ValueError("say what to train on: --data PATH or Hub id")
        if data.data.startswith(("/", ".", "~")) and not path_of(data.data, data.train_split).exists():
            raise FileNotFoundError(f"--data {data.data}: no such file or folder")
        for name in ("vision", "text", *self.model.sources):
            source = getattr(self.model, name)
            if source and source.startswith(("/", ".", "~")) and not Path(source).is_dir():
                raise FileNotFoundError(f"--{name} {source}: no such folder")
        if TEST.search(data.eval_split.lower()):
            raise ValueError(
                f"--eval_split {data.eval_split}: the best epoch is chosen there, so it cannot be a test split; name a "
                "validation split, and measure the result once with `vsehub evaluate`"
            )
        if data.eval_split == data.train_split:
            raise ValueError(f"--train_split and --eval_split are both {data.eval_split!r}: choose a held-out split")
        if data.bands is not None and len(data.bands) != 3:
            raise ValueError(f"--bands {' '.join(map(str, data.bands))}: name three, for red, green and blue")
        nested_widths(self.model.matryoshka, self.model.projection_dim)
        check_settings(self.stage, self.training)
        rank = self.model.lora_rank if self.model.lora_rank != TowerArguments.lora_rank else None
        check_lora(self.model.lora, self.model.freeze_vision_batch_norm, rank)
        check_fsdp(self.training, bool(self.training.cache_vision and getattr(self.model, "train_vision_from", None)))
        check_streaming(self.stage, data, self.training, self.objective)
        self.training.metric_for_best_model = metric_of(self.training, self.stage)
        self.resume = parse_resume(self.training.resume_from_checkpoint)
        if self.training.lr_milestones and self.training.warmup_steps:
            raise ValueError("--lr_milestones are the whole schedule, without a warm-up: leave --warmup_steps out")
        taken = next((path for path in (self.root, *self.root.parents) if path.is_file()), None)
        if taken is not None:
            raise FileExistsError(f"--output_dir: {taken} is a file; choose a folder")

    @property
    def root(self) -> Path:
        """The folder of the run: its stages, its caches, and the Hub folder."""
        return Path(self.training.output_dir)

    @property
    def folder(self) -> Path:
        """The folder of the stage: its checkpoints."""
        return self.root / self.stage

    @property
    def best(self) -> Path:
        """The model that the stage selected."""
        return self.folder / "best"

    @property
    def checkpoint(self) -> Path | None:
        """Where Trainer goes on, or None to start anew."""
        return checkpoint_of(self.resume, self.folder)

    def settings(self, rows: int | None, digests: dict[str, str] | None = None) -> dict[str, Any]:
        """What the weights follow from, with the number of training rows and digests of texts where they are known."""
        return settings_of(self.model, self.data, self.objective, self.training, rows, digests)

    def for_trainer(self) -> RetrievalTrainingArguments:
        """The arguments of Trainer, whose `output_dir` is the folder of the stage."""
        training = copy.copy(self.training)
        training.output_dir = str(self.folder)
        return training


def read_stages(
    argv: list[str] | None, names: tuple[str, ...], kinds: tuple[type, ...], defaults: dict | None = None
) -> dict[str, StageArguments]:
    """Parse a command line, as `parse_stages` does, to the arguments of the stages to run.

    Raises:
        ValueError, FileNotFoundError: bad flags, or stages with different folders or data.
    """
    argv = sys.argv[1:] if argv is None else argv
    parsed, wanted = parse_stages(argv, names, kinds, defaults)
    stages = {stage: StageArguments(stage, *parsed[stage]) for stage in wanted}
    roots = {str(args.root) for args in stages.values()}
    if len(roots) > 1:
        raise ValueError(f"one run has one --output_dir, and its stages name {sorted(roots)}")
    _one_checkpoint_each(stages)
    if len({bool(args.training.fsdp) for args in stages.values()}) > 1:
        raise ValueError("--fsdp for some stages of a run: give it to all of them, or run them apart")
    _one_reading(stages)
    refuse_without_effect(stages, *given_names(argv, names))
    return stages


def _one_reading(stages: dict[str, StageArguments]):
    """Refuse settings of the data that differ between stages: the rows are read once, for all of them."""
    first, *others = stages.values()
    for args in others:
        for name in (item.name for item in fields(args.data) if item.name not in OF_A_STAGE):
            asked, read = getattr(args.data, name), getattr(first.data, name)
            if asked != read:
                raise ValueError(
                    f"--{name} {asked} for {args.stage}, {read} for {first.stage}: the data of a run is read once, for "
                    "all its stages; give it to all of them, or run them apart (--stages)"
                )


def _one_checkpoint_each(stages: dict[str, StageArguments]):
    """Refuse one checkpoint for several stages: the second stage could not load it, and would stop hours later."""
    owners = {}
    for stage, args in stages.items():
        if not isinstance(args.resume, Path):
            continue
        if args.resume in owners:
            raise ValueError(
                f"--resume_from_checkpoint {args.resume}: it cannot be of both {owners[args.resume]} and {stage}; name "
                f"one stage (--{stage}.resume_from_checkpoint ...), or let each find its own (true)"
            )
        owners[args.resume] = stage


@dataclass
class Splits:
    """Prepared rows, and digests of their texts by name."""

    train: Dataset | Stream
    evaluation: Dataset
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int | None:
        """How many rows train; None for a stream, which keeps a record of its own."""
        return None if isinstance(self.train, Stream) else len(self.train)


def read_splits(
    args: StageArguments,
    need_dense: bool = False,
    need_label: bool = False,
    need_captions: bool = True,
    pictures_later: bool = False,
) -> Splits:
    """Prepare the training and the evaluation rows, once for all stages; dense text is for training rows alone.

    Pictures that are evaluated on are few, and must be the same in each evaluation: they are always checked here.
    """
    reports = str(args.root) if args.training.process_index == 0 else None  # one process writes bad_samples.jsonl
    data = args.data
    of_one_split = parts_of_one_split(data)
    needs = {"need_captions": need_captions}
    later = {"pictures_later": pictures_later, "keep_report": pictures_later and args.resume is not None}
    if data.streaming:
        if reports is not None and args.resume is None:
            report_bad_samples(reports, f"split {data.train_split}", [])
            shutil.rmtree(args.root / "stream", ignore_errors=True)
        train = open_stream(data, data.train_split, need_dense, need_label, args.root / "stream")
    else:
        train = prepare_rows(
            data, data.train_split, reports, need_dense, data.max_train_images, need_label, **needs, **later
        )
    evaluation = prepare_rows(data, data.eval_split, reports, False, data.max_eval_images, **needs)
    if of_one_split and isinstance(train, Dataset):
        train = without_pictures_of(train, evaluation, told=reports is not None)
    if need_captions and len(evaluation) <= FEWEST and reports is not None:
        print(
            f"{data.eval_split}: {len(evaluation)} picture{'s' * (len(evaluation) > 1)} to evaluate on; among so few "
            "every model finds the right ones, so recall means nothing; name a larger split",
            file=sys.stderr,
        )
    if need_captions:
        check_metric_of_rows(args.training.metric_for_best_model, evaluation)
    digests = digests_of(evaluation, "captions", "the captions of the evaluation")
    if isinstance(train, Dataset):
        digests |= digests_of(train, "captions", "the captions that train")
        digests |= digests_of(train, "dense_text", "the dense texts that train") if need_dense else {}
    return Splits(train, evaluation, digests)


def pictures_later(stages: dict[str, StageArguments]) -> bool:
    """Whether training looks at each picture when it meets it: nothing of the run reads all of them before."""
    return not any(
        args.training.check_images == "all" or args.training.cache_vision or args.objective.needs_teachers
        for args in stages.values()
    )


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
    """
    reuse_memory()  # not before the rows are read: what reading frees goes back to the system
    previous, before, results = None, None, {}
    for stage, args in stages.items():
        where = (args.resume, args.folder, before, args.settings(rows, digests))
        if is_finished(*where):
            recover(args.best)
            previous, results[stage] = load(stage, args.best), _finished(args.folder / FINISHED)
        else:
            begin(*where, writes=args.training.should_save)
            previous, results[stage] = _trained(args, train, previous)
        before = run_in(args.folder)
    return previous, results


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
