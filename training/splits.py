"""The rows that a run trains on, and those that it is evaluated on, read once for all of its stages."""

import shutil
import sys
from dataclasses import dataclass, field

from datasets import Dataset

from ..data.rows import prepare_rows
from ..data.streams import Stream, open_stream
from ..files.bad_samples import report_bad_samples
from .flags.selection import check_metric_of_rows
from .inputs.held_out import parts_of_one_split, without_pictures_of
from .saving.settings import digests_of
from .stage_arguments import StageArguments

FEWEST = 10  # pictures of which every one is among the first ten


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
        digests |= digests_of(train, "label", "the scene classes that train") if need_label else {}
    return Splits(train, evaluation, digests)


def pictures_later(stages: dict[str, StageArguments]) -> bool:
    """Whether training looks at each picture when it meets it: nothing of the run reads all of them before."""
    return not any(
        args.training.check_images == "all" or args.training.cache_vision or args.objective.needs_teachers
        for args in stages.values()
    )
