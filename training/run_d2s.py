"""Train D2S-VSE: dense captions first, then short captions under the dense teacher.

    accelerate launch training/run_d2s.py training/recipes/d2s_vse_flickr30k_vit.yaml --data PATH
    vsehub train training/recipes/d2s_vse_flickr8k_cpu.yaml
    python training/run_d2s.py --vision google/vit-base-patch16-224-in21k --text bert-base-uncased --data org/pairs

`--stages pretrain`, `--stages finetune --stage1_model FOLDER` and `--stages baseline` run one part alone. Each stage
selects its best epoch on the evaluation split. The result is a Hub folder, `OUTPUT_DIR/hub`.
"""

import sys
from functools import partial
from pathlib import Path

from transformers import AutoConfig

from vsehub import D2SVSEConfig, D2SVSEModel, D2SVSEProcessor
from vsehub.modeling.towers import weights_of
from vsehub.training.arguments import D2S_ARGUMENTS, D2SModelArguments
from vsehub.training.d2s_stages import STAGES, add_decoder, fresh_model, run_stage
from vsehub.training.pair_stage import selected
from vsehub.training.recipe import parse_stages
from vsehub.training.stage_card import card_of, widget_examples
from vsehub.training.stages import StageArguments, publish, read_splits, run_stages


def main(argv: list[str] | None = None, defaults: dict | None = None) -> int:
    """Parse, run the stages one after the other, and write the Hub folder; `defaults` are as for `parse_stages`."""
    parsed, wanted = parse_stages(sys.argv[1:] if argv is None else argv, STAGES, D2S_ARGUMENTS, defaults)
    stages = {stage: StageArguments(*parsed[stage]) for stage in wanted}
    args = stages[wanted[0]]
    if args.model.stage1_model and wanted[0] != "finetune":
        raise ValueError(
            f"--stage1_model {args.model.stage1_model}: this run starts with {wanted[0]} and would not use it; add "
            "--stages finetune, or leave it out"
        )
    root = Path(args.training.output_dir).parent
    distil = "finetune" in stages and stages["finetune"].objective.distill_weight > 0
    splits = read_splits(args, root, need_dense="pretrain" in stages or distil)

    def train(stage, args, previous):
        teacher = None
        if stage == "finetune":
            teacher, processor = previous or stage1_of(args)
            model = add_decoder(teacher, args.model)
            limit = min(processor.tokenizer.model_max_length, args.data.max_text_length)
            processor.tokenizer.model_max_length = limit
        else:
            model, processor = fresh_model(args.model, args.data)
        return selected(run_stage(stage, model, processor, splits, args, teacher))

    last, results = run_stages(stages, root, train, load)
    if args.training.process_index == 0:
        of = {"model": last[0], "processor": last[1], "rows": splits.evaluation, "count": args.training.card_images}
        publish(root, *last, card_of(stages, results, root.name), results, partial(widget_examples, **of))
    return 0


def load(stage: str, folder: Path):
    """Read what a finished stage saved."""
    with weights_of(folder):
        return D2SVSEModel.from_pretrained(folder), D2SVSEProcessor.from_pretrained(folder)


def stage1_of(args: StageArguments):
    """The stage-1 model that `--stage1_model` names; it brings its towers.

    Raises:
        ValueError: none is named, it is another model, or `--vision` or `--text` name other towers.
    """
    source = args.model.stage1_model
    if not source:
        raise ValueError("stage 2 alone needs the result of stage 1: --stage1_model FOLDER, or run both stages")
    config = AutoConfig.from_pretrained(source)
    if config.model_type != D2SVSEConfig.model_type:
        raise ValueError(f"--stage1_model {source} is a {config.model_type}, not a stage-1 model of D2S-VSE")
    for tower in ("vision", "text"):
        named, own = getattr(args.model, tower), getattr(config, f"{tower}_config")
        if named == getattr(D2SModelArguments, tower):
            continue
        other = AutoConfig.from_pretrained(named)
        other = getattr(other, f"{tower}_config", other)
        if (own.model_type, _width(own)) != (other.model_type, _width(other)):
            raise ValueError(
                f"--{tower} {named} is a {other.model_type}, but {source} was trained with a {own.model_type} "
                f"(widths {_width(other)} and {_width(own)}): leave --{tower} out, or train stage 1 anew"
            )
    return load("pretrain", source)


def _width(config):
    return getattr(config, "hidden_size", None) or getattr(config, "hidden_sizes", None)


if __name__ == "__main__":
    sys.exit(main())
