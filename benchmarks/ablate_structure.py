"""Structure-aware distillation on photographs whose training captions lost words: where does it help?

    python benchmarks/ablate_structure.py --data $DATA/flickr8k --vision $BACKBONES/mobilenet_v2 --text $MINILM

Each word of a training caption is dropped with probability p; validation captions stay whole. Both models, without and
with the objective, at equal steps; on data with scene classes also beside the affiliation loss. Towers are frozen and
computed once; `--trained` trains them, which wants a GPU. The teachers are the same two backbones, which see what the
student sees: the captions that lost words, but where a setting says that the teacher reads whole ones. `--classifier`
adds rows in which a scene classifier, trained on the same images, teaches the images.
Resumable: a finished run is a line of `OUT/results.jsonl`. `--report` prints the table alone.
"""

import argparse
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from ablation import metrics_table, results_file, run_once
from datasets import Dataset
from transformers import set_seed
from transformers.utils import logging

from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows
from vsehub.evaluation.graded import class_relevance, graded_metrics, rouge_l_relevance
from vsehub.training.d2s_stages import STAGES as D2S_STAGES
from vsehub.training.d2s_stages import fresh_model, objective_of
from vsehub.training.flags.arguments import D2S_ARGUMENTS, PIR_ARGUMENTS
from vsehub.training.flags.recipe import parse_stages
from vsehub.training.inputs.teacher_columns import IMAGE, TEXT
from vsehub.training.pair_stage import train_pairs
from vsehub.training.pir_stages import STAGES as PIR_STAGES
from vsehub.training.pir_stages import fresh_model as fresh_pir_model
from vsehub.training.pir_stages import objective_of as pir_objective_of
from vsehub.training.stage_arguments import StageArguments
from vsehub.training.teachers import ImageTeacher, TextTeacher, add_teachers

COMMON = """--image_size 224 --projection_dim 128 --max_text_length 40 --text_augmentation 0 --image_augmentation none
--warmup_steps 30 --per_device_train_batch_size 128 --eval_strategy no --save_strategy no --load_best_model_at_end False
--logging_steps 1000 --disable_tqdm True --bf16 True --temperature 0.07""".split()
FROZEN = "--freeze_vision True --freeze_text True --cache_vision True --cache_text True --use_cpu True".split()
TRAINED = "--tower_lr_scale 0.1 --dataloader_num_workers 8".split() + ["--use_cpu", str(not torch.cuda.is_available())]
D2S = "--learning_rate 1e-3 --lr_scheduler_type cosine --align infonce --ramp_epochs 0 --text_dropout 0.1".split()
PIR = """--learning_rate 5e-4 --lr_scheduler_type linear --weight_decay 0.01 --attention_heads 4 --local_from_zero True
--instruction_layers 1 --cycles 1 --affiliation_weight 0""".split()
BARE = {"instruction_layers": 0, "cycles": 0}
DROPS = (0.0, 0.3, 0.5)
STRUCTURE, LIGHT = {"structure_weight": 2}, {"structure_weight": 0.2}


@dataclass(frozen=True)
class Setting:
    """What is trained, with which flags, on captions that lost words with which probability, beside which teachers."""

    model: str
    drop: float
    changes: dict = field(default_factory=dict)
    whole: bool = False  # the text teacher reads whole captions
    classifier: bool = False  # the image teacher is `--classifier`

    @property
    def bare(self) -> bool:
        """Two towers, which neither instruct nor re-read."""
        return self.changes.get("cycles") == 0


PLAIN = {  # D2SVSEModel without decoder; PIRModel
    f"{model}{', structure' if added else ''}, p {drop}": Setting(model, drop, added)
    for model in ("D2SVSE", "PIR")
    for drop in DROPS
    for added in ({}, STRUCTURE)
}
PLAIN |= {  # the paper's weight may be too much where the towers are frozen
    f"D2SVSE, structure x 0.1, p {drop}": Setting("D2SVSE", drop, LIGHT) for drop in DROPS
}
PLAIN |= {  # where a teacher has read what the student has not: as D2S-VSE's dense text beside short captions
    f"D2SVSE, structure{name}, whole captions for the teacher, p {drop}": Setting("D2SVSE", drop, added, whole=True)
    for drop in DROPS[1:]
    for name, added in (("", STRUCTURE), (" x 0.1", LIGHT))
}
CLASSIFIER = {  # where the image teacher knows what the backbone does not
    f"D2SVSE, structure{name}, classifier teaches, p {drop}": Setting("D2SVSE", drop, added, classifier=True)
    for drop in DROPS
    for name, added in (("", STRUCTURE), (" x 0.1", LIGHT))
}
AFFILIATION = {  # the two pull the images of one class in opposite directions
    f"two towers, contrast{name}": Setting("PIR", 0.0, {**BARE, **changes})
    for name, changes in {
        "": {},
        " + structure": STRUCTURE,
        **{f" + affiliation x {w}": {"affiliation_weight": w} for w in (0.1, 1)},
        **{f" + affiliation x {w} + structure": {"affiliation_weight": w, **STRUCTURE} for w in (0.1, 1)},
    }.items()
}
METRICS = (
    "mean_recall",
    "rsum",
    "image_to_image_ndcg@50",
    "text_to_text_ndcg@50",
    "image_to_mixed_ndcg@50",
    "text_to_mixed_ndcg@50",
    "class_image_to_image_ndcg@50",
    "class_text_to_text_ndcg@50",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--vision", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--out", default="runs/ablate_structure")
    parser.add_argument("--steps", type=int, nargs=2, default=(900, 300), help="of D2SVSE and two towers, of PIR")
    parser.add_argument("--classifier", help="scene classifier (the `prior` of a PIR run) that teaches images, too")
    parser.add_argument("--trained", action="store_true", help="train the towers, too: for a GPU")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="names of settings")
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    logging.set_verbosity_error()
    results = results_file(args, "classifier", "trained")
    if not args.report:
        bench = Bench(args)
        settings = {**PLAIN, **(AFFILIATION if bench.labels else {}), **(CLASSIFIER if args.classifier else {})}
        for name in ("teachers alone", *(["classifier alone"] if args.classifier else [])):
            if not args.only or name in args.only:
                run_once(results, name, 0, partial(bench.teach, name == "classifier alone"))
        jobs = [(name, seed) for kind in ("D2SVSE", "two", "PIR") for seed in range(args.seeds) for name in settings
                if name.startswith(kind)]  # fmt: skip
        for name, seed in jobs:
            if not args.only or name in args.only:
                run_once(results, name, seed, partial(bench.train, settings[name], seed))
    print(metrics_table(results, METRICS))
    return 0


class Bench:
    """Reads the data, damages the captions and asks the teachers once."""

    def __init__(self, args):
        self.args, self.root = args, Path(args.out)
        data = DataArguments(data=args.data)
        self.evaluation = prepare_rows(data, "validation", None, need_dense=False)
        self.rows = prepare_rows(data, "train", None, need_dense=False)
        self.labels = list(self.evaluation["label"]) if "label" in self.evaluation.column_names else None
        device = "cuda" if args.trained and torch.cuda.is_available() else "cpu"
        self.text_teacher = TextTeacher(args.text, device)
        self.image_teachers = [ImageTeacher(name, device) for name in (args.vision, args.classifier) if name]
        self.damaged: tuple[tuple, Dataset] = ((), self.rows)
        self.relevance = self.relevances()

    def training_rows(self, drop: float, whole: bool, classifier: bool) -> Dataset:
        """The training rows at a drop rate, with teachers' columns; the same for every seed."""
        wanted = (drop, whole, classifier)
        if self.damaged[0] != wanted:
            rows = self.damage(drop, classifier)
            if whole:
                texts = self.damage(0.0, classifier)[TEXT]
                rows = rows.remove_columns(TEXT).add_column(TEXT, texts, feature=rows.features[TEXT])
            self.damaged = wanted, rows
        return self.damaged[1]

    def damage(self, drop: float, classifier: bool) -> Dataset:
        """Leave words out of the training captions, and ask the teachers, who read what is left."""
        captions = [
            [drop_words(text, drop, (row, place)) for place, text in enumerate(texts)]
            for row, texts in enumerate(self.rows["captions"])
        ]
        return self.ask(self.rows.remove_columns("captions").add_column("captions", captions), classifier)

    def ask(self, rows: Dataset, classifier: bool) -> Dataset:
        """Add the teachers' columns."""
        folder = self.root / "teachers" / ("classifier" if classifier else "backbone")
        return add_teachers(rows, self.image_teachers[classifier], self.text_teacher, folder, 128)

    def relevances(self) -> dict[str, np.ndarray]:
        """By wording and, where there are classes, by class; (captions, images)."""
        path, captions = self.root / "rouge.npy", self.evaluation["captions"]
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, rouge_l_relevance(list(captions)).astype(np.float16))
        found = {"": np.load(path).astype(np.float32)}
        if self.labels:
            owners = [row for row, texts in enumerate(captions) for _ in texts]
            found["class_"] = class_relevance(self.labels, owners)
        return found

    def train(self, setting: Setting, seed: int) -> dict:
        """Train one setting; return its validation metrics."""
        steps = self.args.steps[setting.model == "PIR" and not setting.bare]
        args = self.arguments(setting.model, {"max_steps": steps, "seed": seed, **setting.changes})
        set_seed(seed)
        if setting.model == "PIR":
            network, processor = fresh_pir_model(args, None if setting.bare else self.args.vision)
            objective = pir_objective_of(args.objective, legacy=False)
        else:
            network, processor = fresh_model(args.model, args.data)
            objective = objective_of(args.objective, distil=False)
        rows = self.training_rows(setting.drop, setting.whole, setting.classifier)
        trainer = train_pairs(network, processor, rows, self.evaluation, args, objective)
        metrics = trainer.evaluate()
        return metrics | self.graded(*trainer.last_embeds)

    def teach(self, classifier: bool) -> dict:
        """How well the teachers order the validation items, each within its modality; centred, as they teach."""
        rows = self.ask(self.evaluation, classifier)
        images = np.array(rows[IMAGE], np.float32)[:, 0]
        texts = np.array([vector for several in rows[TEXT] for vector in several], np.float32)
        owners = np.repeat(np.arange(len(rows)), [len(captions) for captions in rows["captions"]])
        width = max(images.shape[1], texts.shape[1])  # across modalities they say nothing
        embeds = (np.pad(x - x.mean(0), ((0, 0), (0, width - x.shape[1]))) for x in (images, texts))
        embeds = (torch.nn.functional.normalize(torch.from_numpy(x), dim=-1) for x in embeds)
        return {name: value for name, value in self.graded(*embeds, owners).items() if "mixed" not in name}

    def graded(self, images, texts, owners) -> dict[str, float]:
        """NDCG within and across modalities, by wording and by class."""
        found = {}
        for kind, relevance in self.relevance.items():
            values = graded_metrics(images, texts, owners, relevance, ks=(10, 50))
            found |= {f"{kind}{name}": value for name, value in values.items()}
        return found

    def arguments(self, model: str, changes: dict) -> StageArguments:
        args = self.args
        own, stages, kinds = (PIR, PIR_STAGES, PIR_ARGUMENTS) if model == "PIR" else (D2S, D2S_STAGES, D2S_ARGUMENTS)
        words = [*COMMON, *(TRAINED if args.trained else FROZEN), *own, "--output_dir", f"{args.out}/work"]
        words += ["--data", args.data, "--vision", args.vision, "--text", args.text]
        words += [word for key, value in changes.items() for word in (f"--{key}", str(value))]
        stage = "retrieval" if model == "PIR" else "baseline"
        return StageArguments(stage, *parse_stages(words, stages, kinds)[0][stage])


def drop_words(text: str, probability: float, seed: tuple) -> str:
    """Leave each word out with this probability; one stays."""
    words = text.split()
    kept = np.random.default_rng(seed).random(len(words)) >= probability
    if not kept.any():
        kept[0] = True
    return " ".join(word for word, keep in zip(words, kept) if keep)


if __name__ == "__main__":
    raise SystemExit(main())
