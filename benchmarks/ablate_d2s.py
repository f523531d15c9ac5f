"""The paper's ablations in minutes a run: both towers frozen and cached, one knob turned at a time.

    python benchmarks/ablate_d2s.py --data $DATA/flickr8k --vision $BACKBONES/mobilenet_v2 --text $MINILM

Depth 1 to 6, tokens 10 to 120, heads 4 / 8, placement with and without positions, distance, and which of
pre-training / alignment / distillation. Resumable: a finished run is a line of `OUT/results.jsonl`. The spread over
`--noise-seeds` runs of the default setting says which differences mean anything. `--report` prints the table alone.
"""

import argparse
import json
from functools import partial
from pathlib import Path

from ablation import report, results_file, run_once
from transformers import set_seed
from transformers.utils import logging

from vsehub import D2SVSEModel, D2SVSEProcessor
from vsehub.training.d2s_stages import STAGES, add_decoder, fresh_model, run_stage
from vsehub.training.flags.arguments import D2S_ARGUMENTS
from vsehub.training.flags.recipe import parse_stages
from vsehub.training.inputs.dense_teacher import add_dense_text_embeds
from vsehub.training.splits import Splits, read_splits
from vsehub.training.stage_arguments import StageArguments
from vsehub.training.stages import save

COMMON = """--image_size 224 --dense_text union --freeze_vision True --freeze_text True --cache_vision True
--cache_text True --projection_dim 128 --text_dropout 0.1 --size_augmentation 0.2 --num_mask_tokens 20
--text_augmentation 0 --align infonce --temperature 0.05 --ramp_epochs 0 --learning_rate 1e-3 --lr_scheduler_type cosine
--per_device_train_batch_size 128 --max_text_length 160 --eval_strategy no --save_strategy no
--load_best_model_at_end False --logging_steps 1000 --disable_tqdm True""".split()

ABLATIONS = {
    "default": {},
    **{f"depth {n}": {"decoder_layers": n} for n in (1, 2, 3, 5, 6)},
    **{f"tokens {n}": {"num_mask_tokens": n} for n in (10, 40, 60, 80, 100, 120)},
    "heads 8": {"decoder_heads": 8},
    **{f"{place}, no positions": {"token_placement": place} for place in ("prefix", "surround")},
    **{
        f"{place}, positions": {"token_placement": place, "decoder_positions": True}
        for place in ("prefix", "postfix", "surround")
    },
    **{f"distance {name}": {"distance": name} for name in ("l1", "l2")},
    **{f"distillation x {weight}": {"distill_weight": weight} for weight in (0.1, 5)},
}
COMPONENTS = ("pretrain", "align", "pretrain + align", "align + distil", "pretrain + align + distil", "no decoder")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--vision", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--out", default="runs/ablate")
    parser.add_argument("--steps", type=int, nargs=2, default=(300, 300), help="of stage 1 and of stage 2")
    parser.add_argument("--noise-seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="names of runs")
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    logging.set_verbosity_error()
    results = results_file(args)
    if not args.report:
        bench = Bench(args)
        jobs = [("default", seed) for seed in range(args.noise_seeds)]
        jobs += [(name, 0) for name in (*COMPONENTS[:-2], COMPONENTS[-1], *list(ABLATIONS)[1:])]
        for name, seed in jobs:
            if not args.only or name in args.only:
                run_once(results, name, seed, partial(bench.train, name, seed))
    print(report(results, "rsum", "default"))
    return 0


class Bench:
    """Runs one setting at a time; stage 1 is shared by all that start from it."""

    def __init__(self, args):
        self.args = args
        self.stage1: dict[int, tuple] = {}
        self.taught: dict[int, object] = {}
        self.splits = read_splits(self.arguments("pretrain", 0, {}), need_dense=True)

    def train(self, name: str, seed: int) -> dict:
        """Train one setting; return its validation metrics."""
        steps = sum(self.args.steps)
        if name == "align":  # equal optimisation steps, sparse text only
            return self.stage("baseline", seed, None, None, {"max_steps": steps}).evaluate()
        teacher, processor = self.pretrained(seed)
        if name == "pretrain":
            return json.loads((self.saved(seed) / "metrics.json").read_text())
        arguments = self.arguments("finetune", seed, {})
        if name == "no decoder":
            return self.stage("finetune", seed, D2SVSEModel.from_pretrained(self.saved(seed)), teacher).evaluate()
        if name == "align + distil":
            model = add_decoder(fresh_model(arguments.model, arguments.data)[0], arguments.model)
            return self.stage("finetune", seed, model, teacher).evaluate()
        changes = {"distill_weight": 0} if name == "pretrain + align" else ABLATIONS[name]
        set_seed(seed)
        model = add_decoder(teacher, self.arguments("finetune", seed, changes).model)
        return self.stage("finetune", seed, model, teacher, changes).evaluate()

    def pretrained(self, seed: int):
        """Stage 1 of a seed: from memory, from disk, or trained."""
        folder = self.saved(seed)
        if not (folder / "metrics.json").exists():  # written last
            trainer = self.stage("pretrain", seed, None, None)
            save(trainer.model, trainer.processing_class, folder)
            (folder / "metrics.json").write_text(json.dumps(trainer.evaluate()))
        if seed not in self.stage1:
            self.stage1[seed] = (D2SVSEModel.from_pretrained(folder), D2SVSEProcessor.from_pretrained(folder))
        return self.stage1[seed]

    def saved(self, seed: int) -> Path:
        return Path(self.args.out) / f"stage1-{seed}"

    def stage(self, stage: str, seed: int, model, teacher, changes=None):
        """Run one stage and return its trainer."""
        arguments = self.arguments(stage, seed, changes or {})
        splits = self.splits
        if teacher is not None:
            if seed not in self.taught:  # the teacher's vectors are the slow part, and the same for every setting
                processor = self.pretrained(seed)[1]
                device = arguments.training.device
                self.taught[seed] = add_dense_text_embeds(splits.train, teacher, processor, device)
            splits = Splits(self.taught[seed], splits.evaluation)
        set_seed(seed)
        fresh, processor = fresh_model(arguments.model, arguments.data)
        return run_stage(model or fresh, processor, splits, arguments, teacher)

    def arguments(self, stage: str, seed: int, changes: dict) -> StageArguments:
        steps = {"pretrain": self.args.steps[0], "finetune": self.args.steps[1]}.get(stage, sum(self.args.steps))
        flags = {"max_steps": steps, **changes}
        words = [*COMMON, "--data", self.args.data, "--vision", self.args.vision, "--text", self.args.text]
        words += ["--output_dir", f"{self.args.out}/work", "--seed", str(seed)]
        words += [word for key, value in flags.items() for word in (f"--{key}", str(value))]
        return StageArguments(stage, *parse_stages(words, STAGES, D2S_ARGUMENTS)[0][stage])


if __name__ == "__main__":
    raise SystemExit(main())
