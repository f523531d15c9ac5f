"""The arguments of each stage of a run, checked before anything is read."""

import copy
import os
import re
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..configuration.configuration_dual_encoder import nested_widths
from ..data.arguments import DataArguments
from ..data.sources import path_of
from .flags.arguments import RetrievalTrainingArguments, TowerArguments
from .flags.launch import check_fsdp
from .flags.limits import check_lora, check_settings
from .flags.recipe import given_names, parse_stages
from .flags.selection import metric_of
from .flags.without_effect import refuse_without_effect
from .inputs.streamed_pairs import check_streaming
from .saving.resume import Resume, checkpoint_of, parse_resume
from .saving.settings import digest_of_stage1, settings_of

OF_A_STAGE = (  # settings of the data that each stage may have of its own
    "dense_sampling",
    "image_augmentation",
    "max_text_length",
    "pairs_per_epoch",
    "shuffle_buffer",
    "text_augmentation",
)
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
        above = (self.root, *self.root.parents)
        taken = next((path for path in above if os.path.lexists(path) and not path.is_dir()), None)
        if taken is not None:
            what = "a file" if taken.exists() else "a link to what is not there"
            raise FileExistsError(f"--output_dir: {taken} is {what}; choose a folder")

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
        digests = {**(digests or {}), **digest_of_stage1(getattr(self.model, "stage1_model", None))}
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
