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
from pathlib import Path

from transformers import AutoImageProcessor, AutoModelForImageClassification

from vsehub import PIRModel, PIRProcessor
from vsehub.modeling.towers import weights_of
from vsehub.training.arguments import PIR_ARGUMENTS
from vsehub.training.objectives import PIRObjective
from vsehub.training.pair_stage import selected, train_pairs
from vsehub.training.pir_stages import normalisation_between, train_instruction
from vsehub.training.recipe import parse_stages
from vsehub.training.stage_card import card_of, widget_examples
from vsehub.training.stages import Splits, StageArguments, publish, read_splits, run_stages

STAGES = ("prior", "retrieval")


def main(argv: list[str] | None = None) -> int:
    """Parse, run the stages one after the other, and write the Hub folder."""
    parsed, wanted = parse_stages(sys.argv[1:] if argv is None else argv, STAGES, PIR_ARGUMENTS)
    stages = {stage: StageArguments(*parsed[stage]) for stage in wanted}
    args = stages[wanted[-1]]
    root = Path(args.training.output_dir).parent
    if len(stages) == 2 and not (args.model.use_instruction and args.model.instruction_layers):
        raise ValueError("a model without instruction would not use the prior: add --stages retrieval")
    if "prior" in stages:
        stages["prior"].training.metric_for_best_model = "eval_accuracy"
    labels = "prior" in stages or args.objective.affiliation_weight > 0
    splits = read_splits(args, root, need_label=labels, need_captions="retrieval" in stages)

    def train(stage, args, previous):
        if stage == "prior":
            return train_instruction(splits, args)
        return train_retrieval(splits, args, args.model.instruction if previous is None else root / "prior" / "best")

    last, results = run_stages(stages, root, train, load)
    if args.training.process_index == 0 and wanted[-1] == "retrieval":
        of = {"model": last[0], "processor": last[1], "rows": splits.evaluation, "count": args.training.card_images}
        publish(root, *last, card_of(stages, results, root.name), results, partial(widget_examples, **of))
    return 0


def load(stage: str, folder: Path):
    """Read what a finished stage saved."""
    with weights_of(folder):
        if stage == "prior":
            found = AutoImageProcessor.from_pretrained(folder, backend="pil")
            return AutoModelForImageClassification.from_pretrained(folder), found
        return PIRModel.from_pretrained(folder), PIRProcessor.from_pretrained(folder)


def train_retrieval(splits: Splits, args: StageArguments, instruction: str | Path | None):
    """Build PIR around its towers, train it, and return model, processor and metrics."""
    model, processor = build(args, instruction)
    objective = PIRObjective(
        contrast=args.objective.contrast,
        temperature=args.objective.temperature,
        margin=args.objective.margin,
        affiliation_weight=args.objective.affiliation_weight,
        affiliation_temperature=args.objective.affiliation_temperature,
        legacy=args.model.legacy,
    )
    return selected(train_pairs(model, processor, splits.train, splits.evaluation, args, objective))


def build(args: StageArguments, instruction: str | Path | None) -> tuple[PIRModel, PIRProcessor]:
    """The untrained model around pretrained towers, and its processor."""
    processor = PIRProcessor.from_vision_text_pretrained(
        args.model.vision,
        args.model.text,
        args.model.image_size,
        max_length=args.data.max_text_length,
        imagenet=args.model.imagenet_normalisation,
    )
    numbers = args.model.numbers()
    if args.model.use_instruction and args.model.instruction_layers and instruction is not None:
        prior = AutoImageProcessor.from_pretrained(instruction, backend="pil")
        numbers |= normalisation_between(processor.image_processor, prior)
    model = PIRModel.from_vision_text_pretrained(
        args.model.vision, args.model.text, instruction and str(instruction), **numbers
    )
    return model, processor


if __name__ == "__main__":
    sys.exit(main())
