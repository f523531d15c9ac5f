"""The claims of docs/protocol.md as data: which arms, which flags; and how one arm is trained.

The towers, MobileNetV2 and all-MiniLM-L6-v2, are frozen and their outputs cached, so a run takes minutes on a CPU; what
has `gpu` trains both.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import ledger
import numpy as np
import torch
from datasets import Dataset
from transformers import set_seed

from vsehub.data.rows import prepare_rows
from vsehub.evaluation.graded import graded_metrics, rouge_l_relevance
from vsehub.training.d2s_stages import STAGES as D2S_STAGES
from vsehub.training.d2s_stages import add_decoder, run_stage
from vsehub.training.d2s_stages import fresh_model as fresh_d2s
from vsehub.training.flags.arguments import D2S_ARGUMENTS, PIR_ARGUMENTS
from vsehub.training.flags.recipe import parse_stages
from vsehub.training.pair_stage import train_pairs
from vsehub.training.pir_stages import STAGES as PIR_STAGES
from vsehub.training.pir_stages import fresh_model as fresh_pir
from vsehub.training.pir_stages import objective_of
from vsehub.training.splits import Splits, read_splits
from vsehub.training.stage_arguments import StageArguments
from vsehub.training.teachers import CaptionTeacher, TextTeacher, add_teachers
from vsehub.training.trainer import RetrievalTrainer

COMMON = """--image_size 224 --freeze_vision True --freeze_text True --cache_vision True --cache_text True
--projection_dim 128 --image_augmentation none --text_augmentation 0 --per_device_train_batch_size 128
--eval_strategy no --save_strategy no --load_best_model_at_end False --logging_steps 1000 --disable_tqdm True
--use_cpu True""".split()
OF_SYSTEM = {
    "d2s": """--num_mask_tokens 8 --decoder_layers 1 --text_dropout 0.1 --max_text_length 160 --align infonce
--temperature 0.05 --ramp_epochs 0 --learning_rate 1e-3 --lr_scheduler_type cosine""".split(),
    "pir": """--attention_heads 4 --max_text_length 40 --learning_rate 5e-4 --lr_scheduler_type linear --warmup_steps 30
--weight_decay 0.01""".split(),
}
PLAIN = ("--instruction_layers", "0", "--cycles", "0", "--affiliation_weight", "0")
MOVING = """--freeze_vision False --train_vision_from layer.13 --cache_views 2 --image_augmentation crop
--projection_dim 512 --tower_lr_scale 0.2""".split()
ON_GPU = """--freeze_vision False --freeze_text False --cache_vision False --cache_text False --use_cpu False
--bf16 True --image_augmentation crop --projection_dim 512 --num_mask_tokens 100 --decoder_layers 4 --learning_rate 5e-4
--tower_lr_scale 0.2 --warmup_steps 50 --dataloader_num_workers 2 --dataloader_persistent_workers True""".split()
AVERAGED = ("--average_weights", "0.98", "--lr_scheduler_type", "constant_with_warmup")
CORRECTED = ("--local_from_zero", "True", "--affiliation_weight", "0.1")
EQUAL_TIME = {"d2s-one": 550, "d2s-five": 550, "pir": 1500}  # steps of the base arm in the time of the slower one


@dataclass(frozen=True)
class Arm:
    """One way of training: the steps of each stage, in order, and flags.

    Args:
        stages: (stage, steps).
        flags: of all stages.
        captions: how many of the short captions of a training picture are used.
        taught: whether the rows carry teachers' features: the text tower's own, and those of `CaptionTeacher`.
    """

    stages: tuple[tuple[str, int], ...]
    flags: tuple[str, ...] = ()
    captions: int = 5
    taught: bool = False


@dataclass(frozen=True)
class Claim:
    """Arms that are measured on the same pictures.

    Args:
        name: in the ledger.
        data: folder below `--data`.
        system: `d2s` or `pir`.
        metric: the primary one.
        base: the arm that the others are compared with.
        arms: by the names that tables use.
        gallery: this many of the validation pictures, the same in every run, are searched instead of all.
        gpu: both towers are trained, which takes a GPU.
        further: flags of all arms, beside those of the system.
        seeds: how many the protocol asks for.
        first_seed: of the runs; a claim that is measured again has others than the first time.
    """

    name: str
    data: str
    system: str
    metric: str
    base: str
    arms: dict[str, Arm]
    gallery: int | None = None
    gpu: bool = False
    further: tuple[str, ...] = ()
    seeds: int = 10
    first_seed: int = 100

    @property
    def flags(self) -> list[str]:
        """The flags of all arms; an arm's own come after them."""
        return [*COMMON, *OF_SYSTEM[self.system], *(ON_GPU if self.gpu else ()), *self.further]

    def searched(self, image_embeds, text_embeds, text_to_image):
        """The embeddings of the gallery and of its texts: (N, D), (T, D), (T,)."""
        if self.gallery is None:
            return image_embeds, text_embeds, text_to_image
        rows = np.sort(np.random.default_rng(0).choice(len(image_embeds), self.gallery, replace=False))
        owners = np.asarray(text_to_image)
        inside = np.isin(owners, rows)
        return image_embeds[rows], text_embeds[inside], torch.from_numpy(np.searchsorted(rows, owners[inside]))


def _d2s(name: str, captions: int, further: dict[str, Arm]) -> Claim:
    arms = {
        "sparse only": Arm((("baseline", 300),), captions=captions),
        "sparse only, equal time": Arm((("baseline", EQUAL_TIME[name]),), captions=captions),
        "D2S-VSE": Arm((("pretrain", 150), ("finetune", 150)), captions=captions),
        "D2S-VSE, dense texts sampled": Arm(
            (("pretrain", 150), ("finetune", 150)), ("--dense_sampling", "True"), captions
        ),
    }
    return Claim(name, "flickr8k", "d2s", "rsum", "sparse only", arms | further)


def _structure(name: str, data: str) -> Claim:
    """Structure-aware distillation beside the same training without it; D2SVSE without a decoder on both sets."""
    arms = {"contrast alone": Arm((("baseline", 300),))}
    for weight in ("0.2", "0.5"):
        flags = ("--structure_weight", weight)
        arms[f"structure x {weight}, taught by captions"] = Arm((("baseline", 300),), flags, taught=True)
    return Claim(name, data, "d2s", "rsum", "contrast alone", arms)


def _headlines() -> dict[str, Claim]:
    """Rows to be read beside published figures: the last vision blocks are trained."""
    d2s = {
        "frozen towers": Arm((("baseline", 600),), ("--projection_dim", "512")),
        "last vision blocks trained": Arm((("baseline", 600),), tuple(MOVING)),
    }
    pir = {
        "frozen towers": Arm((("retrieval", 600),), (*PLAIN, "--projection_dim", "512")),
        "last vision blocks trained": Arm((("retrieval", 600),), (*PLAIN, *MOVING)),
    }
    base = "frozen towers"
    return {
        "headline-flickr8k": Claim("headline-flickr8k", "flickr8k", "d2s", "rsum", base, d2s, seeds=3),
        "headline-rsicd": Claim("headline-rsicd", "rsicd_aid", "pir", "mean_recall", base, pir, gallery=1027, seeds=3),
    }


def _trained() -> dict[str, Claim]:
    """What needs a GPU: both towers learn, and the decoder has the paper's size."""
    d2s = {
        "sparse only": Arm((("baseline", 400),), captions=1),
        "sparse only, equal time": Arm((("baseline", 600),), captions=1),
        "D2S-VSE": Arm((("pretrain", 200), ("finetune", 200)), captions=1),
        "all texts as captions": Arm((("baseline", 400),)),
    }
    rows = {
        "short captions": Arm((("baseline", 1500),)),
        "D2S-VSE": Arm((("pretrain", 500), ("finetune", 1000))),
    }
    return {
        "d2s-one-trained": Claim("d2s-one-trained", "flickr8k", "d2s", "rsum", "sparse only", d2s, gpu=True),
        "headline-trained": Claim("headline-trained", "flickr8k", "d2s", "rsum", "short captions", rows, gpu=True),
    }


def _again(claim: Claim, name: str, arms: tuple[str, ...], **changes) -> Claim:
    """Arms of a claim once more, under another name and with what is changed."""
    chosen = {arm: claim.arms[arm] for arm in arms}
    return replace(claim, name=f"{claim.name}-{name}", arms=chosen, **changes)


SETS = {"flickr8k": "flickr8k", "rsicd": "rsicd_aid"}
CLAIMS = {
    "d2s-one": _d2s(
        "d2s-one",
        1,
        {
            "all texts as captions": Arm((("baseline", 300),)),
            "stage 1 alone": Arm((("pretrain", 150),), captions=1),
        },
    ),
    "d2s-five": _d2s("d2s-five", 5, {}),
    **{f"structure-{short}": _structure(f"structure-{short}", data) for short, data in SETS.items()},
    "pir": Claim(
        "pir",
        "rsicd_aid",
        "pir",
        "mean_recall",
        "two plain towers",
        {
            "two plain towers": Arm((("retrieval", 300),), PLAIN),
            "two plain towers, equal time": Arm((("retrieval", EQUAL_TIME["pir"]),), PLAIN),
            "PIR, corrected": Arm((("retrieval", 300),), CORRECTED),
            "PIR, as published": Arm((("retrieval", 300),)),
        },
    ),
    **_headlines(),
    **_trained(),
}
BLOCKS = (*MOVING, "--projection_dim", "128")
MAIN_ARMS = {
    "d2s-one": ("sparse only", "sparse only, equal time", "D2S-VSE"),
    "pir": ("two plain towers", "two plain towers, equal time", "PIR, corrected"),
}
for _claim in (
    *(_again(CLAIMS[name], "averaged", arms, further=AVERAGED) for name, arms in MAIN_ARMS.items()),
    _again(CLAIMS["pir"], "again", MAIN_ARMS["pir"], seeds=20, first_seed=110),
):
    CLAIMS[_claim.name] = _claim


def _with_blocks_trained(claim: Claim) -> Claim:
    """The arms of a claim with the last vision blocks trained, where PIR costs less beside the plain towers."""
    steps = {"two plain towers": 600, "two plain towers, equal time": 1130, "PIR, corrected": 600}
    arms = {arm: replace(claim.arms[arm], stages=(("retrieval", count),)) for arm, count in steps.items()}
    parts = {"affiliation alone": (*PLAIN[:-1], CORRECTED[-1]), "PIR without affiliation": (*CORRECTED[:-1], "0")}
    arms |= {part: Arm((("retrieval", 600),), flags) for part, flags in parts.items()}
    return replace(claim, name="pir-blocks", arms=arms, further=(*claim.further, *BLOCKS), first_seed=150)


CLAIMS["pir-blocks"] = _with_blocks_trained(CLAIMS["pir-averaged"])


class Bench:
    """Trains arms; reads the data of each claim once.

    Args:
        data, backbones, text, out: as the flags of `results.py`.
        channels_last: convolutions hold their weights by channel last, which many cards compute faster.
    """

    def __init__(self, data: str, backbones: str, text: str, out: str, channels_last: bool = False):
        self.data, self.backbones, self.text, self.out = data, backbones, text, out
        self.channels_last = channels_last
        self.splits: dict[tuple[str, int], Splits] = {}
        self._taught: dict[str, Dataset] = {}
        self._relevance: dict[str, np.ndarray] = {}

    def train(self, claim: Claim, arm: str, seed: int, steps: int | None = None) -> RetrievalTrainer:
        """Train an arm and return the trainer of its last stage.

        Args:
            claim, arm, seed: what to train.
            steps: of each stage, instead of the arm's own (to fill the caches).
        """
        settings = claim.arms[arm]
        model, trainer = None, None
        for stage, own_steps in settings.stages:
            args = self.arguments(claim, settings, stage, seed, steps or own_steps)
            splits = self.rows(claim, settings.captions, args)
            if settings.taught:
                splits = Splits(self.taught(claim, splits.train), splits.evaluation)
            set_seed(seed)
            if claim.system == "pir":
                model, processor = self.fresh(claim, args)
                objective = objective_of(args.objective, legacy=False)
                trainer = train_pairs(model, processor, splits.train, splits.evaluation, args, objective)
            else:
                teacher = model if stage == "finetune" else None
                if teacher is None:
                    model, processor = self.fresh(claim, args)
                else:
                    model = self.laid_out(add_decoder(teacher, args.model))
                trainer = run_stage(model, processor, splits, args, teacher)
                model = trainer.model
        return trainer

    def laid_out(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model with the layout that was asked for."""
        return model.to(memory_format=torch.channels_last) if self.channels_last else model

    def fresh(self, claim: Claim, args: StageArguments):
        """The untrained model of a first stage, and its processor."""
        if claim.system == "pir":
            model, processor = fresh_pir(args, f"{self.backbones}/mobilenet_v2")
        else:
            model, processor = fresh_d2s(args.model, args.data)
        return self.laid_out(model), processor

    def untrained(self, claim: Claim, arm: str):
        """A model as the last stage of an arm trains it, and its processor."""
        settings = claim.arms[arm]
        every = [self.arguments(claim, settings, stage, 0, steps) for stage, steps in settings.stages]
        model, processor = self.fresh(claim, every[0])
        return (add_decoder(model, every[-1].model) if len(every) > 1 else model), processor

    def test_rows(self, claim: Claim, arm: str):
        """The prepared rows of the test split, for `results.py --test` alone."""
        args = self.arguments(claim, claim.arms[arm], claim.arms[arm].stages[0][0], 0, 1)
        return prepare_rows(args.data, "test", None, need_dense=False)

    def arguments(self, claim: Claim, arm: Arm, stage: str, seed: int, steps: int) -> StageArguments:
        """The parsed flags of one stage."""
        words = [*claim.flags, *arm.flags, "--data", f"{self.data}/{claim.data}"]
        words += ["--vision", f"{self.backbones}/mobilenet_v2", "--text", self.text, "--seed", str(seed)]
        words += ["--output_dir", f"{self.out}/{claim.data}", "--max_steps", str(steps)]
        names, kinds = (PIR_STAGES, PIR_ARGUMENTS) if claim.system == "pir" else (D2S_STAGES, D2S_ARGUMENTS)
        return StageArguments(stage, *parse_stages(words, names, kinds)[0][stage])

    def rows(self, claim: Claim, captions: int, args: StageArguments) -> Splits:
        """The prepared rows; training pictures keep their first captions, and all of them make up the dense text."""
        key = claim.data, captions
        if key not in self.splits:
            whole = self.splits.get((claim.data, 5)) or self._read(claim, args)
            self.splits[claim.data, 5] = whole
            few = whole.train.map(lambda row: {"captions": row["captions"][:captions]}, desc="captions")
            self.splits[key] = whole if captions == 5 else Splits(few, whole.evaluation)
        return self.splits[key]

    def graded(self, name: str, rows: Dataset, embeds: tuple, config) -> dict[str, float]:
        """NDCG@50 by ROUGE-L within and across modalities; the mixed ones also after the means are subtracted.

        Args:
            name: of the file in `out` that keeps the relevance of these rows.
            rows: what was embedded.
            embeds: images, texts and the rows of the texts.
            config: of the model, which knows the means.
        """
        relevance = self.relevance(name, rows)
        metrics = graded_metrics(*embeds, relevance, ks=(50,))
        means = {"image": torch.tensor(config.image_embeds_mean), "text": torch.tensor(config.text_embeds_mean)}
        less = graded_metrics(*embeds, relevance, ks=(50,), means=means)
        metrics |= {f"{task}, less the means": value for task, value in less.items() if "mixed" in task}
        return {task: round(value, 4) for task, value in metrics.items()}

    def relevance(self, name: str, rows: Dataset) -> np.ndarray:
        """ROUGE-L of each caption and each picture's captions, (T, N); computed once."""
        if name not in self._relevance:
            path = Path(self.out) / f"rouge-{name}.npy"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, rouge_l_relevance(list(rows["captions"])).astype(np.float16))
            self._relevance[name] = np.load(path).astype(np.float32)
        return self._relevance[name]

    def taught(self, claim: Claim, rows: Dataset) -> Dataset:
        """The training rows with the columns of `vsehub teachers --vision captions`."""
        if claim.name not in self._taught:
            text = TextTeacher(self.text, "cpu")
            parts = Path(self.out) / "teachers" / claim.name
            self._taught[claim.name] = add_teachers(rows, CaptionTeacher(text), text, parts, 128)
        return self._taught[claim.name]

    def _read(self, claim: Claim, args: StageArguments) -> Splits:
        whole = read_splits(args, need_label=claim.system == "pir")
        dense = whole.train.map(lambda row: {"dense_text": " ".join(row["captions"])}, desc="dense text")
        return Splits(dense, whole.evaluation)


def code_of(claim: Claim, arm: str) -> str:
    """The digest of the code and of the settings that make a run of an arm."""
    settings = claim.arms[arm]
    words = [*claim.flags, *settings.flags, claim.data, str(settings.captions)]
    words += ["taught"] * settings.taught + ([f"gallery {claim.gallery}"] if claim.gallery else [])
    return ledger.code_digest(settings=" ".join([*words, *map(str, settings.stages)]))


def texts_read(claim: Claim, arm: str) -> int:
    """Texts that an arm reads while training, each time it reads them; a dense text is one."""
    return 128 * sum(steps for _, steps in claim.arms[arm].stages)
