"""PIR's ablations in minutes a run: towers and instruction features frozen and computed once, one knob at a time.

    python benchmarks/ablate_pir.py --data $DATA/rsicd_aid --vision $BACKBONES/mobilenet_v2 --text $MINILM

The components of the paper (its table 2), random against trained prior and hard against soft belief over `--seeds`
seeds; then sweeps with one seed. The prior is a scene classifier, trained once on the training labels. Resumable: a
finished run is a line of `OUT/results.jsonl`. `--report` prints the table alone.
"""

import argparse
from functools import partial
from pathlib import Path

import torch
from ablation import report, results_file, run_once
from transformers import AutoConfig, AutoImageProcessor, AutoModel, ResNetConfig, set_seed
from transformers.utils import logging

from vsehub.training.flags.arguments import PIR_ARGUMENTS
from vsehub.training.flags.recipe import parse_stages
from vsehub.training.pir_stages import STAGES, load, train_retrieval, train_stage
from vsehub.training.saving.resume import NEWEST
from vsehub.training.splits import read_splits
from vsehub.training.stage_arguments import StageArguments
from vsehub.training.stages import run_stages

COMMON = """--image_size 224 --freeze_vision True --freeze_text True --cache_vision True --cache_text True
--projection_dim 128 --attention_heads 4 --max_text_length 40 --text_augmentation 0 --image_augmentation
none --learning_rate 5e-4 --lr_scheduler_type linear --warmup_steps 30 --weight_decay 0.01
--per_device_train_batch_size 128 --eval_strategy no --save_strategy no --load_best_model_at_end False
--logging_steps 1000 --disable_tqdm True --bf16 True --use_cpu True""".split()
PRIOR = """--image_size 160 --image_augmentation crop --num_train_epochs 3 --learning_rate 3e-4 --warmup_steps 50
--lr_scheduler_type linear --per_device_train_batch_size 64 --logging_steps 50""".split()

BARE = {"instruction_layers": 0, "cycles": 0, "affiliation_weight": 0}
COMPONENTS = {
    "baseline": BARE,
    "baseline, triplet": {**BARE, "contrast": "triplet"},
    "+ TEL": {**BARE, "use_instruction": False, "instruction_layers": 1, "cycles": 1},
    "+ affiliation": {**BARE, "affiliation_weight": 1},
    "+ VIR": {**BARE, "instruction_layers": 2},
    "+ LCA": {**BARE, "cycles": 3},
    "PIR": {},
    "PIR, random prior": {"instruction": "random"},
    "PIR, soft belief": {"belief": "soft"},
    "PIR, from zero, affiliation x 0.1": {"local_from_zero": True, "affiliation_weight": 0.1},
}
SWEEPS = {
    "PIR, from zero": {"local_from_zero": True},
    "PIR, from zero, no affiliation": {"local_from_zero": True, "affiliation_weight": 0},
    "PIR, no affiliation": {"affiliation_weight": 0},
    **{f"filter size {n}": {"filter_size": n} for n in (5, 10, 20, 30, 50)},
    **{f"instruction layers {n}": {"instruction_layers": n} for n in (1, 3)},
    **{f"cycles {n}": {"cycles": n} for n in (1, 2, 4)},
    **{f"affiliation x {w}": {"affiliation_weight": w} for w in (0.1, 0.3, 3)},
    "TEL of the paper's equations": {"tel_norm": "branch"},
    "instructed by ImageNet": {"instruction": "imagenet"},
    "instructed by a random ResNet-50": {"instruction": "random resnet"},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--vision", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--out", default="runs/ablate_pir")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="names of settings")
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    logging.set_verbosity_error()
    results = results_file(args)
    if not args.report:
        bench = Bench(args)
        jobs = [(name, seed) for seed in range(args.seeds) for name in COMPONENTS] + [(name, 0) for name in SWEEPS]
        for name, seed in jobs:
            if not args.only or name in args.only:
                run_once(results, name, seed, partial(bench.train, {**COMPONENTS, **SWEEPS}[name], seed))
    print(report(results, "mean_recall", "PIR"))
    return 0


class Bench:
    """Reads the data and makes the priors once."""

    def __init__(self, args):
        self.args, self.root = args, Path(args.out)
        parsed = self.arguments("prior", 0, {}, PRIOR)
        parsed.resume = NEWEST  # a prior that is there is loaded
        parsed.model.instruction = args.vision
        self.splits = read_splits(parsed, need_label=True)
        run_stages({"prior": parsed}, partial(train_stage, self.splits), load)
        self.priors = {"trained": self.root / "prior" / "best", "imagenet": Path(args.vision)}
        self.priors |= {"random": self.random("random", AutoConfig.from_pretrained(args.vision))}
        self.priors |= {"random resnet": self.random("random_resnet", ResNetConfig())}

    def random(self, name: str, config) -> Path:
        """An untrained encoder: what the official code instructs with, since its weights never load."""
        folder = self.root / name
        if not (folder / "config.json").exists():
            torch.manual_seed(0)
            AutoImageProcessor.from_pretrained(self.args.vision, backend="pil").save_pretrained(folder)
            AutoModel.from_config(config).save_pretrained(folder)
        return folder

    def train(self, changes: dict, seed: int) -> dict:
        """Train one setting; return its validation metrics."""
        changes = dict(changes)
        prior = self.priors[changes.pop("instruction", "trained")]
        args = self.arguments("retrieval", seed, {"max_steps": self.args.steps, **changes}, [])
        set_seed(seed)
        return train_retrieval(self.splits, args, prior)[2]

    def arguments(self, stage: str, seed: int, changes: dict, extra: list[str]) -> StageArguments:
        args = self.args
        words = [
            *COMMON,
            "--data",
            args.data,
            "--vision",
            args.vision,
            "--text",
            args.text,
            "--seed",
            str(seed),
            *extra,
        ]
        words += ["--output_dir", args.out]
        words += [word for key, value in changes.items() for word in (f"--{key}", str(value))]
        return StageArguments(stage, *parse_stages(words, STAGES, PIR_ARGUMENTS)[0][stage])


if __name__ == "__main__":
    raise SystemExit(main())
