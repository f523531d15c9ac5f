"""Our flags of a training run; the keys of a recipe have the same names.

Nothing here needs torch: `vsehub train --help` lists these flags at once. `arguments.py` joins them with transformers'.
"""

from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal

from ..data.arguments import DataArguments


def _there_is_a_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@dataclass
class TowerArguments:
    """The towers, and the settings that all systems share."""

    vision: str = field(
        default="google/vit-base-patch16-224-in21k", metadata={"help": "Hub id or folder of any vision backbone."}
    )
    text: str = field(
        default="bert-base-uncased", metadata={"help": "Hub id or folder of any text backbone and its tokenizer."}
    )
    projection_dim: int = 512
    image_size: int = 384
    imagenet_normalisation: bool = field(
        default=False, metadata={"help": "Use ImageNet's mean and std, whatever the tower expects (official code)."}
    )
    legacy: bool = field(default=False, metadata={"help": "Reproduce the official code's quirks; see the config."})
    freeze_vision: bool = False
    freeze_text: bool = False
    freeze_vision_batch_norm: bool = True
    lora: bool = field(
        default=False,
        metadata={"help": "Train LoRA adapters in the towers that are not frozen; merged before saving."},
    )
    lora_rank: int = 16

    def numbers(self) -> dict:
        """The fields that are also fields of the model's configuration."""
        mine = {item.name for item in fields(self)} - {item.name for item in fields(TowerArguments)}
        common = {"projection_dim", "image_size", "legacy", "freeze_vision_batch_norm"}
        return {name: getattr(self, name) for name in sorted(common | mine) if name not in self.sources}

    sources: ClassVar[tuple[str, ...]] = ()  # fields of a subclass that name models


@dataclass
class D2SModelArguments(TowerArguments):
    """The numbers of D2S-VSE; see `D2SVSEConfig`."""

    stage1_model: str | None = field(
        default=None, metadata={"help": "Folder of a finished stage 1 from which stage 2 starts."}
    )
    num_mask_tokens: int = 100
    decoder_layers: int = 4
    decoder_heads: int = 4
    token_placement: Literal["prefix", "postfix", "surround"] = "postfix"
    decoder_positions: bool = False
    size_augmentation: float = 0.2
    text_dropout: float = 0.2

    sources: ClassVar[tuple[str, ...]] = ("stage1_model",)


@dataclass
class PIRModelArguments(TowerArguments):
    """The numbers of PIR; see `PIRConfig`."""

    vision: str = field(
        default="microsoft/swin-tiny-patch4-window7-224", metadata={"help": "Hub id or folder of any vision backbone."}
    )
    image_size: int = 224
    instruction: str | None = field(
        default="microsoft/resnet-50",
        metadata={"help": "The stage `prior` starts from it; without that stage it is the instruction encoder."},
    )
    use_instruction: bool = True
    instruction_layers: int = 2
    cycles: int = 3
    filter_size: int = 40
    belief: Literal["hard", "soft"] = "hard"
    tel_norm: Literal["sum", "branch"] = "sum"
    local_from_zero: bool = field(default=False, metadata={"help": "Training starts from the plain baseline."})
    attention_heads: int = 8
    dropout: float = 0.2

    sources: ClassVar[tuple[str, ...]] = ("instruction",)


@dataclass
class StructureArguments:
    """Structure-aware distillation beside any objective; see `StructureDistillationLoss`."""

    structure_weight: float = field(
        default=0.0,
        metadata={
            "help": "0: none; paper: 2. Beside a hinge, which is a sum over the batch, multiply it by the pairs of a "
            "step. Needs the columns of `vsehub teachers`."
        },
    )
    structure_relation: Literal["own", "fused"] = "own"
    structure_centre: Literal["dataset", "none"] = field(
        default="dataset",
        metadata={"help": "Subtract the mean of a teacher's features over the dataset; none: official code."},
    )
    structure_bank: int = field(
        default=0, metadata={"help": "Pairs of earlier batches to which each pair of a batch is also related."}
    )
    text_share: float = field(
        default=0.5, metadata={"help": "Weight of the text teacher in the target of `fused` (lambda)."}
    )
    learn_text_share: bool = False
    representation_image_weight: float = field(
        default=0.0, metadata={"help": "InfoNCE to the image teacher (paper 1)."}
    )
    representation_text_weight: float = field(default=0.0, metadata={"help": "InfoNCE to the text teacher (paper 2)."})

    @property
    def needs_teachers(self) -> bool:
        """Whether training needs features of the image and the text teacher."""
        return bool(self.structure_weight or self.representation_image_weight or self.representation_text_weight)


@dataclass
class D2SObjectiveArguments(StructureArguments):
    """The losses of D2S-VSE; see `D2SObjective`."""

    align: Literal["hinge", "infonce"] = "hinge"
    margin: float = 0.2
    temperature: float = 0.07
    mean_warmup_epochs: float = 1.0
    ramp_epochs: float = 1.0
    distance: Literal["cosine", "l2", "l1"] = "cosine"
    distill_weight: float = 1.0
    dense_teacher: Literal["cached", "online"] = field(
        default="cached",
        metadata={"help": "Dense texts are embedded once, or in each step, augmented (online: paper)."},
    )


@dataclass
class PIRObjectiveArguments(StructureArguments):
    """The losses of PIR; see `PIRObjective`."""

    contrast: Literal["infonce", "triplet"] = "infonce"
    temperature: float = 0.07
    margin: float = 0.2
    affiliation_weight: float = field(default=1.0, metadata={"help": "0: no affiliation loss; labels are not needed."})
    affiliation_temperature: float = 0.07


@dataclass
class RetrievalArguments:
    """What a run sets otherwise than `TrainingArguments` of transformers, and what it adds: schedule, caches, card."""

    output_dir: str | None = field(default="runs/d2s", metadata={"help": "Where checkpoints and the Hub folder go."})
    per_device_train_batch_size: int = 128
    per_device_eval_batch_size: int = 64
    learning_rate: float = 2e-4
    tower_lr_scale: float = field(
        default=0.1, metadata={"help": "Learning rate of the towers as a fraction of learning_rate."}
    )
    objective_lr: float | None = field(
        default=None, metadata={"help": "Learning rate of the objective's own parameters; default learning_rate."}
    )
    weight_decay: float = 1e-4
    decay_biases_and_norms: bool = field(
        default=True, metadata={"help": "Apply weight decay to biases and norms, too (PIR's recipe: False)."}
    )
    num_train_epochs: float = 30
    max_grad_norm: float = 2.0
    lr_milestones: list[float] | None = field(
        default=None,
        metadata={
            "help": "Epochs at which lr_decay multiplies the rate (paper: 9 15 20 25), instead of lr_scheduler_type."
        },
    )
    lr_decay: float = 0.3
    chunk_size: int | None = field(
        default=None,
        metadata={
            "help": "Pairs that go through the model at once (gradient caching): a large batch, with its negatives, in "
            "the memory of this many. About a third more time; the same gradients."
        },
    )
    cache_vision: bool = field(
        default=False,
        metadata={
            "help": "Run the frozen vision tower once and cache its tokens; images are augmented only by cache_views."
        },
    )
    cache_text: bool = field(
        default=False,
        metadata={"help": "Run the frozen text tower once and cache its tokens; texts are not augmented."},
    )
    cache_views: int = field(
        default=1, metadata={"help": "Augmented views per image in the vision cache; the first is the plain image."}
    )
    card_images: int = field(
        default=0,
        metadata={"help": "Number of evaluation pictures published as examples; their licence must allow it."},
    )
    dataloader_drop_last: bool = True
    dataloader_pin_memory: bool = field(default_factory=_there_is_a_gpu)
    remove_unused_columns: bool = False
    save_total_limit: int | None = 1
    load_best_model_at_end: bool = True
    metric_for_best_model: str | None = "eval_rsum"
    greater_is_better: bool | None = True
    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    logging_steps: float = 50


OURS = {  # by system; the last of each is joined with `TrainingArguments`
    "d2s": (D2SModelArguments, DataArguments, D2SObjectiveArguments, RetrievalArguments),
    "pir": (PIRModelArguments, DataArguments, PIRObjectiveArguments, RetrievalArguments),
}
