"""Train PIR: first the prior, a scene classifier; then retrieval under its instruction.

    accelerate launch training/run_pir.py training/recipes/pir_rsicd_swin.yaml --data PATH
    vsehub train training/recipes/pir_rsicd_cpu.yaml
    vsehub train pir --data org/scenes --vision microsoft/swin-tiny-patch4-window7-224 --text bert-base-uncased

The stage `prior` fine-tunes `--instruction`, any vision backbone, on the labels of the training images. With
`--stages retrieval`, `--instruction` names an encoder that is ready. Each stage selects its best epoch on the
evaluation split. The result is a Hub folder, `OUTPUT_DIR/hub`.
"""

import sys
from functools import partial

from datasets import Dataset

from vsehub.data.arguments import DataArguments
from vsehub.training.flags.arguments import PIR_ARGUMENTS
from vsehub.training.pair_stage import check_batch
from vsehub.training.pir_stages import STAGES, check_stages, load, needs_label, train_stage
from vsehub.training.preflight import preflight
from vsehub.training.processes.meeting import ending_together
from vsehub.training.splits import Splits, pictures_later, read_splits
from vsehub.training.stage_arguments import StageArguments, read_stages
from vsehub.training.stage_card import publish_run
from vsehub.training.stages import run_stages


def _classes(rows: Dataset) -> list[str]:
    """The scene classes of the rows that have one."""
    return [label for label in rows["label"] if label] if "label" in rows.column_names else []


def _check_prior(splits: Splits, args: StageArguments):
    """Refuse scene classes from which a classifier learns nothing, or which cannot measure it.

    Raises:
        ValueError: with the split and the remedy.
    """
    data, remedy = args.data, f"name another column than {args.data.label_column!r}, or leave the prior out"
    known, measured = _classes(splits.train), _classes(splits.evaluation)
    if not measured:
        raise ValueError(
            f"{data.eval_split} has no scene classes, so the prior's accuracy cannot be measured there: {remedy} "
            "(--label_column, --stages retrieval)"
        )
    if len(set(known)) < 2:
        raise ValueError(
            f"{data.train_split} has one scene class, {known[0]!r}, and a prior learns nothing from one: {remedy} "
            "(--label_column, --stages retrieval)"
        )
    check_batch(len(known), args.training)


def main(argv: list[str] | None = None) -> int:
    """Run the stages one after the other and, if there is a retrieval model, write the Hub folder."""
    stages = read_stages(argv, STAGES, PIR_ARGUMENTS, {"system": "pir"})
    for name in ("dense_sampling", "dense_text"):
        if any(getattr(args.data, name) != getattr(DataArguments, name) for args in stages.values()):
            raise ValueError(f"--{name} is of D2S-VSE: PIR reads no dense text; leave it out")
    with ending_together():
        check_stages(stages)
        preflight(stages)
        last = list(stages.values())[-1]
        captions, later = "retrieval" in stages, pictures_later(stages)
        splits = read_splits(last, need_label=needs_label(stages), need_captions=captions, pictures_later=later)
        if "prior" in stages:
            _check_prior(splits, stages["prior"])
        stage = partial(train_stage, splits)
        (model, processor), results = run_stages(stages, stage, load, splits.rows, splits.digests)
        if last.stage == "retrieval":
            publish_run(stages, model, processor, results, splits.evaluation)
    return 0


if __name__ == "__main__":
    sys.exit(main())
