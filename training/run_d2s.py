"""Train D2S-VSE: dense captions first, then short captions under the dense teacher.

    accelerate launch training/run_d2s.py training/recipes/d2s_vse_flickr30k_vit.yaml --data PATH
    vsehub train training/recipes/d2s_vse_flickr8k_cpu.yaml
    python training/run_d2s.py --vision google/vit-base-patch16-224-in21k --text bert-base-uncased --data org/pairs

`--stages pretrain`, `--stages finetune --stage1_model FOLDER` and `--stages baseline` run one part alone. Each stage
selects its best epoch on the evaluation split. The result is a Hub folder, `OUTPUT_DIR/hub`.
"""

import json
import sys
from pathlib import Path

from transformers import set_seed

from vsehub import D2SVSEModel, D2SVSEProcessor
from vsehub.hub_cards.model_card import write_model_card
from vsehub.training.d2s_card import card_of
from vsehub.training.d2s_stages import STAGES, Splits, StageArguments, add_decoder, find_resume, fresh_model, run_stage
from vsehub.training.data import prepare_rows
from vsehub.training.recipe import parse_stages

FINISHED = "finished.json"  # written last in a stage's folder: its metrics, and the sign that `best` is whole


def main(argv: list[str] | None = None) -> int:
    """Parse, run the stages one after the other, and write the Hub folder."""
    parsed, wanted = parse_stages(sys.argv[1:] if argv is None else argv, STAGES)
    stages = {stage: StageArguments(*arguments) for stage, arguments in parsed.items()}
    first = stages[wanted[0]]
    root = Path(first.training.output_dir).parent
    is_main = first.training.process_index == 0
    splits = read_splits(first, wanted, root)
    model = processor = None
    results = {}
    for stage in wanted:
        args, done = stages[stage], root / stage / FINISHED
        if str(args.training.resume_from_checkpoint).lower() == "true" and done.exists():
            model, processor = load(root / stage / "best")  # Trainer would take one step more and move batch-norm
            results[stage] = json.loads(done.read_text())
            continue
        done.unlink(missing_ok=True)
        model, processor, results[stage] = train_stage(stage, model, processor, splits, args)
        if is_main:
            save(model, processor, root / stage / "best")
            done.write_text(json.dumps(results[stage]))
            print(f"{stage}: rsum {results[stage]['eval_rsum']:.1f} on {args.data.eval_split}")
    if is_main:
        save(model, processor, root / "hub")
        card = card_of({stage: stages[stage] for stage in wanted}, results, root.name)
        write_model_card(root / "hub", model=model, **card)
        (root / "validation.json").write_text(json.dumps(results, indent=2))
        print(f"Hub folder: {root / 'hub'}")
    return 0


def train_stage(stage: str, model, processor, splits: Splits, args: StageArguments):
    """Start a stage from the one before (or from towers), train it, and return model, processor and metrics."""
    args.training.resume_from_checkpoint = find_resume(args.training)
    set_seed(args.training.seed)  # before the heads are drawn, not only before the first batch
    teacher = None
    if stage == "finetune":
        teacher, processor = stage1_of(model, processor, args)
        model = add_decoder(teacher, args.model)
    else:
        model, processor = fresh_model(args.model, args.data)
    trainer = run_stage(stage, model, processor, splits, args, teacher)
    return trainer.model, processor, trainer.evaluate()


def save(model, processor, folder: Path):
    """Write weights, code and processor: a folder that loads anywhere."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def load(folder: str | Path):
    """Read what `save` wrote."""
    return D2SVSEModel.from_pretrained(folder), D2SVSEProcessor.from_pretrained(folder)


def read_splits(args: StageArguments, wanted: list[str], root: Path) -> Splits:
    """Prepare the training and the evaluation rows, once for all stages."""
    distil = "finetune" in wanted and args.objective.distill_weight > 0
    need_dense = "pretrain" in wanted or distil
    reports = str(root) if args.training.process_index == 0 else None  # one process writes bad_samples.jsonl
    train = prepare_rows(args.data, args.data.train_split, reports, need_dense, args.data.max_train_images)
    held_out = prepare_rows(args.data, args.data.eval_split, reports, False, args.data.max_eval_images)
    return Splits(train, held_out)


def stage1_of(model, processor, args: StageArguments):
    """The stage-1 model just trained, or the one that `--stage1_model` names."""
    if model is not None:
        return model, processor
    if not args.model.stage1_model:
        raise ValueError("stage 2 alone needs the result of stage 1: --stage1_model FOLDER, or run both stages")
    return load(args.model.stage1_model)


if __name__ == "__main__":
    sys.exit(main())
