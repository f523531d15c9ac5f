"""Our flags of a training run; the keys of a recipe have the same names.

Nothing here needs torch: `vsehub train --help` lists these flags at once. `arguments.py` joins them with transformers'.
"""

from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal

from ...data.arguments import DataArguments


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
    projection_dim: int = field(default=512, metadata={"help": "Length of an embedding."})
    image_size: int = field(
        default=384, metadata={"help": "Height and width of a picture as the tower sees it, in pixels."}
    )
    imagenet_normalisation: bool = field(
        default=False, metadata={"help": "Use ImageNet's mean and std, whatever the tower expects (official code)."}
    )
    legacy: bool = field(default=False, metadata={"help": "Reproduce the official code's quirks; see the config."})
    matryoshka: list[int] | None = field(
        default=None,
        metadata={"help": "Widths, as 32 64 128: train so that the first so many numbers are embeddings, too."},
    )
    freeze_vision: bool = field(default=False, metadata={"help": "Do not train the vision tower."})
    freeze_text: bool = field(default=False, metadata={"help": "Do not train the text tower."})
    train_vision_from: str | None = field(
        default=None,
        metadata={
            "help": "First block of the vision tower that is trained (MobileNetV2: layer.13); what is below is frozen, "
            "and --cache_vision caches what enters the block."
        },
    )
    freeze_vision_batch_norm: bool = field(
        default=True, metadata={"help": "Keep the batch-norm statistics of the vision tower."}
    )
    lora: bool = field(
        default=False,
        metadata={"help": "Train LoRA adapters in the towers that are not frozen; merged before saving."},
    )
    lora_rank: int = field(default=16, metadata={"help": "Rank of the adapters."})

    sources: ClassVar[tuple[str, ...]] = ()  # fields of a subclass that name models

    def numbers(self) -> dict:
        """The fields that are also fields of the model's configuration."""
        mine = {item.name for item in fields(self)} - {item.name for item in fields(TowerArguments)}
        common = {"projection_dim", "image_size", "legacy", "freeze_vision_batch_norm", "matryoshka"}
        return {name: getattr(self, name) for name in sorted(common | mine) if name not in self.sources}


@dataclass
class D2SModelArguments(TowerArguments):
    """The numbers of D2S-VSE; see `D2SVSEConfig`."""

    stage1_model: str | None = field(
        default=None, metadata={"help": "Folder of a finished stage 1 from which stage 2 starts."}
    )
    num_mask_tokens: int = field(
        default=100, metadata={"help": "Learned mask tokens of the decoder; 16 suffice for a small run."}
    )
    decoder_layers: int = field(default=4, metadata={"help": "Layers of the decoder."})
    decoder_heads: int = field(default=4, metadata={"help": "Attention heads of the decoder."})
    token_placement: Literal["prefix", "postfix", "surround"] = field(
        default="postfix", metadata={"help": "Where mask tokens stand beside the text's tokens."}
    )
    decoder_positions: bool = field(default=False, metadata={"help": "Add positions to the decoder's input."})
    size_augmentation: float = field(
        default=0.2, metadata={"help": "Share of image tokens that are dropped while training."}
    )
    text_dropout: float = field(default=0.2, metadata={"help": "Dropout on the text tower's tokens."})

    sources: ClassVar[tuple[str, ...]] = ("stage1_model",)


@dataclass
class PIRModelArguments(TowerArguments):
    """The numbers of PIR; see `PIRConfig`."""

    vision: str = field(
        default="microsoft/swin-tiny-patch4-window7-224", metadata={"help": "Hub id or folder of any vision backbone."}
    )
    image_size: int = field(
        default=224, metadata={"help": "Height and width of a picture as the tower sees it, in pixels."}
    )
    instruction: str | None = field(
        default="microsoft/resnet-50",
        metadata={"help": "The stage `prior` starts from it; without that stage it is the instruction encoder."},
    )
    use_instruction: bool = field(
        default=True, metadata={"help": "Use the instruction encoder; without it, PIR is its plain baseline."}
    )
    instruction_layers: int = field(default=2, metadata={"help": "Layers that select image regions."})
    cycles: int = field(default=3, metadata={"help": "Times that the caption is encoded."})
    filter_size: int = field(default=40, metadata={"help": "Image tokens that are kept."})
    belief: Literal["hard", "soft"] = field(
        default="hard", metadata={"help": "Keep the most believed tokens, or weigh all of them."}
    )
    tel_norm: Literal["sum", "branch"] = field(
        default="sum", metadata={"help": "Layer-norm of residual plus branch (official code), or of the branch."}
    )
    local_from_zero: bool = field(default=False, metadata={"help": "Training starts from the plain baseline."})
    attention_heads: int = field(default=8, metadata={"help": "Attention heads of PIR's own layers."})
    dropout: float = field(default=0.2, metadata={"help": "Dropout in PIR's own layers."})

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
    structure_relation: Literal["own", "fused"] = field(
        default="own", metadata={"help": "Teacher of a relation: that of its own modality, or both fused."}
    )
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
    learn_text_share: bool = field(default=False, metadata={"help": "Learn that weight."})
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

    align: Literal["hinge", "infonce"] = field(
        default="hinge", metadata={"help": "Alignment loss: hinge (paper), or InfoNCE."}
    )
    margin: float = field(default=0.2, metadata={"help": "Margin of the hinge loss, in cosine."})
    temperature: float = field(default=0.07, metadata={"help": "Temperature of InfoNCE."})
    mean_warmup_epochs: float = field(
        default=1.0,
        metadata={"help": "Epochs in which the hinge sums over all negatives, before it takes the hardest."},
    )
    ramp_epochs: float = field(default=1.0, metadata={"help": "Epochs over which the alignment's weight grows to 1."})
    distance: Literal["cosine", "l2", "l1"] = field(
        default="cosine", metadata={"help": "Distance of a text's vector to its dense text's."}
    )
    distill_weight: float = field(default=1.0, metadata={"help": "Weight of that distance; 0: no distillation."})
    dense_teacher: Literal["cached", "online"] = field(
        default="cached",
        metadata={"help": "Dense texts are embedded once, or in each step, augmented (online: paper)."},
    )


@dataclass
class PIRObjectiveArguments(StructureArguments):
    """The losses of PIR; see `PIRObjective`."""

    contrast: Literal["infonce", "triplet"] = field(default="infonce", metadata={"help": "Contrastive loss."})
    temperature: float = field(default=0.07, metadata={"help": "Temperature of InfoNCE."})
    margin: float = field(default=0.2, metadata={"help": "Margin of the hinge loss, in cosine."})
    affiliation_weight: float = field(default=1.0, metadata={"help": "0: no affiliation loss; labels are not needed."})
    affiliation_temperature: float = field(default=0.07, metadata={"help": "Temperature of the affiliation loss."})


@dataclass
class RetrievalArguments:
    """What a run sets otherwise than `TrainingArguments` of transformers, and what it adds: schedule, caches, card."""

    output_dir: str | None = field(default="runs/d2s", metadata={"help": "Where checkpoints and the Hub folder go."})
    per_device_train_batch_size: int = field(default=128, metadata={"help": "Pairs of a training step, per process."})
    per_device_eval_batch_size: int = field(
        default=64, metadata={"help": "Pictures or captions at once in an evaluation."}
    )
    learning_rate: float = field(default=2e-4, metadata={"help": "Of the heads; see tower_lr_scale."})
    tower_lr_scale: float = field(
        default=0.1, metadata={"help": "Learning rate of the towers as a fraction of learning_rate."}
    )
    objective_lr: float | None = field(
        default=None, metadata={"help": "Learning rate of the objective's own parameters; default learning_rate."}
    )
    weight_decay: float = field(default=1e-4, metadata={"help": "Of AdamW."})
    decay_biases_and_norms: bool = field(
        default=True, metadata={"help": "Apply weight decay to biases and norms, too (PIR's recipe: False)."}
    )
    num_train_epochs: float = field(
        default=30, metadata={"help": "Epochs of a stage; --max_steps counts steps instead."}
    )
    max_grad_norm: float = field(default=2.0, metadata={"help": "Larger gradients are scaled to this norm."})
    lr_milestones: list[float] | None = field(
        default=None,
        metadata={
            "help": "Epochs at which lr_decay multiplies the rate (paper: 9 15 20 25), instead of lr_scheduler_type."
        },
    )
    lr_decay: float = field(default=0.3, metadata={"help": "Factor at each of lr_milestones."})
    average_weights: float | None = field(
        default=None,
        metadata={
            "help": "0.98: evaluate, select and save a moving average of the weights, which keeps so much of itself in "
            "each step. Best with --lr_scheduler_type constant."
        },
    )
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
    check_images: Literal["lazy", "all"] = field(
        default="lazy",
        metadata={"help": "Look at each training picture when it is met, or decode all of them before the first step."},
    )
    card_images: int = field(
        default=0,
        metadata={"help": "Number of evaluation pictures published as examples; their licence must allow it."},
    )
    dataloader_drop_last: bool = field(default=True, metadata={"help": "Leave out a last batch that is not full."})
    dataloader_pin_memory: bool = field(
        default_factory=_there_is_a_gpu, metadata={"help": "Pinned memory for batches; default: where there is a GPU."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay False."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints that are kept."})
    load_best_model_at_end: bool = field(
        default=True, metadata={"help": "Keep the best evaluation's model, not the last."}
    )
    metric_for_best_model: str | None = field(default="eval_rsum", metadata={"help": "What is best."})
    greater_is_better: bool | None = field(default=True, metadata={"help": "Whether more of it is better."})
    eval_strategy: str = field(default="epoch", metadata={"help": "Evaluate each epoch, or every eval_steps (steps)."})
    save_strategy: str = field(default="epoch", metadata={"help": "Save a checkpoint as often."})
    logging_steps: float = field(default=50, metadata={"help": "Steps between two lines of losses."})


OURS = {  # by system; the last of each is joined with `TrainingArguments`
    "d2s": (D2SModelArguments, DataArguments, D2SObjectiveArguments, RetrievalArguments),
    "pir": (PIRModelArguments, DataArguments, PIRObjectiveArguments, RetrievalArguments),
}
