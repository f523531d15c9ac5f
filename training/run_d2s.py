"""Train D2S-VSE: dense captions first, then short captions under the dense teacher.

    accelerate launch training/run_d2s.py training/recipes/d2s_vse_flickr30k_vit.yaml --data PATH
    vsehub train training/recipes/d2s_vse_flickr8k_cpu.yaml
    python training/run_d2s.py --vision google/vit-base-patch16-224-in21k --text bert-base-uncased --data org/pairs

`--stages pretrain`, `--stages finetune --stage1_model FOLDER` and `--stages baseline` run one part alone. Each stage
selects its best epoch on the evaluation split. The result is a Hub folder, `OUTPUT_DIR/hub`.
"""

import sys
from pathlib import Path

from vsehub import D2SVSEModel, D2SVSEProcessor
from vsehub.training.arguments import D2S_ARGUMENTS
from vsehub.training.d2s_stages import STAGES, add_decoder, fresh_model, run_stage
from vsehub.training.recipe import parse_stages
from vsehub.training.stage_card import card_of
from vsehub.training.stages import StageArguments, publish, read_splits, run_stages


def main(argv: list[str] | None = None) -> int:
    """Parse, run the stages one after the other, and write the Hub folder."""
    parsed, wanted = parse_stages(sys.argv[1:] if argv is None else argv, STAGES, D2S_ARGUMENTS)
    stages = {stage: StageArguments(*parsed[stage]) for stage in wanted}
    args = stages[wanted[0]]
    root = Path(args.training.output_dir).parent
    distil = "finetune" in stages and stages["finetune"].objective.distill_weight > 0
    splits = read_splits(args, root, need_dense="pretrain" in stages or distil)

    def train(stage, args, previous):
        teacher = None
        if stage == "finetune":
            teacher, processor = previous or stage1_of(args)
            model = add_decoder(teacher, args.model)
        else:
            model, processor = fresh_model(args.model, args.data)
        trainer = run_stage(stage, model, processor, splits, args, teacher)
        return trainer.model, processor, trainer.evaluate()

    last, results = run_stages(stages, root, train, load)
    if args.training.process_index == 0:
        publish(root, *last, card_of(stages, results, root.name), results)
    return 0


def load(stage: str, folder: Path):
    """Read what a finished stage saved."""
    return D2SVSEModel.from_pretrained(folder), D2SVSEProcessor.from_pretrained(folder)


def stage1_of(args: StageArguments):
    """The stage-1 model that `--stage1_model` names."""
    if not args.model.stage1_model:
        raise ValueError("stage 2 alone needs the result of stage 1: --stage1_model FOLDER, or run both stages")
    return load("pretrain", args.model.stage1_model)


if __name__ == "__main__":
    sys.exit(main())
