"""D2S-VSE's two stages: dense captions first, then short ones under a dense teacher, with a checked hand-over.

Stage 1 (`pretrain`): image + dense text, no decoder. Stage 2 (`finetune`): image + short captions, a fresh mask-token
decoder, and distillation from the frozen stage-1 text side. `baseline` is stage 2's alignment alone, from scratch.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from tqdm.auto import tqdm

from ..configuration.configuration_d2s_vse import D2SVSEConfig
from ..modeling.modeling_d2s_vse import D2SVSEModel
from ..processing.processing_d2s_vse import D2SVSEProcessor
from .arguments import DataArguments, ModelArguments, ObjectiveArguments, RetrievalTrainingArguments
from .objectives import D2SObjective
from .pairs import PairCollator, PairDataset
from .tower_cache import cache_text, cache_vision
from .trainer import RetrievalTrainer

STAGES = ("pretrain", "finetune", "baseline")
TEACHER_COLUMN = "dense_text_embeds"  # rows that have it already keep it: a teacher is a column


@dataclass
class StageArguments:
    """The parsed arguments of one stage."""

    model: ModelArguments
    data: DataArguments
    objective: ObjectiveArguments
    training: RetrievalTrainingArguments


@dataclass
class Splits:
    """Prepared rows."""

    train: Dataset
    evaluation: Dataset


def fresh_model(args: ModelArguments, data: DataArguments) -> tuple[D2SVSEModel, D2SVSEProcessor]:
    """Build the stage-1 model around pretrained towers, and its processor."""
    model = D2SVSEModel.from_vision_text_pretrained(args.vision, args.text, **model_numbers(args), use_decoder=False)
    processor = D2SVSEProcessor.from_vision_text_pretrained(
        args.vision,
        args.text,
        args.image_size,
        max_length=max(data.max_text_length, data.max_dense_length),
        imagenet=args.imagenet_normalisation,
    )
    return model, processor


def model_numbers(args: ModelArguments) -> dict:
    """The configuration fields that a recipe sets."""
    names = (
        "projection_dim image_size num_mask_tokens decoder_layers decoder_heads token_placement decoder_positions "
        "size_augmentation text_dropout legacy freeze_vision_batch_norm"
    )
    return {name: getattr(args, name) for name in names.split()}


def add_decoder(stage1: D2SVSEModel, args: ModelArguments) -> D2SVSEModel:
    """Hand over: a stage-2 model with every weight of stage 1 and a fresh decoder.

    Raises:
        ValueError: the two do not fit; the message names the weights.
    """
    if stage1.config.model_type != D2SVSEConfig.model_type or stage1.config.use_decoder:
        raise ValueError(
            f"{stage1.name_or_path or 'this model'} is not a stage-1 model: it must be D2S-VSE without decoder"
        )
    if stage1.config.projection_dim != args.projection_dim:
        raise ValueError(
            f"stage 1 has projection_dim {stage1.config.projection_dim}, this stage {args.projection_dim}: "
            "set them alike"
        )
    settings = {**stage1.config.to_dict(), **model_numbers(args), "use_decoder": True}
    for name in ("auto_map", "architectures", "transformers_version", "model_type", "dtype", "_name_or_path"):
        settings.pop(name, None)
    model = D2SVSEModel(D2SVSEConfig(**settings))
    report = model.load_state_dict(stage1.state_dict(), strict=False)
    fresh = [key for key in report.missing_keys if not key.startswith("mask_token_decoder.")]
    if fresh or report.unexpected_keys:
        raise ValueError(f"the hand-over lost weights: fresh {fresh}, left over {report.unexpected_keys}")
    return model


def run_stage(stage: str, model, processor, splits: Splits, args: StageArguments, teacher=None) -> RetrievalTrainer:
    """Train one stage, select on the evaluation split, and return the trainer holding the best model.

    Args:
        stage: `pretrain`, `finetune` or `baseline`.
        model, processor: what to train.
        splits: prepared rows.
        args: of this stage.
        teacher: the stage-1 model; required by `finetune` with distillation.
    """
    freeze(model, args.model)
    distil = stage == "finetune" and teacher is not None and args.objective.distill_weight > 0
    online = distil and args.objective.teacher == "online"
    rows = splits.train
    if distil and not online:
        rows = with_teacher_column(rows, teacher, processor, args)
    caches = build_caches(stage, model, processor, splits, args)
    dataset = PairDataset(
        rows,
        processor,
        texts="dense_text" if stage == "pretrain" else "captions",
        max_length=args.data.max_dense_length if stage == "pretrain" else args.data.max_text_length,
        image_augmentation=args.data.image_augmentation,
        text_augmentation=0.0 if caches["text"] else args.data.text_augmentation,
        with_dense=args.data.max_dense_length if online else None,
        vision_cache=caches["vision"],
        text_cache=caches["text"],
        seed=args.training.seed,
    )
    check_batch(len(dataset), args.training)
    trainer = RetrievalTrainer(
        model=with_lora(model, args.model) if args.model.lora else model,
        args=args.training,
        objective=objective_of(args.objective, distil),
        processor=processor,
        train_dataset=dataset,
        data_collator=PairCollator(processor),
        eval_rows=splits.evaluation,
        eval_caches=(caches["eval_vision"], caches["eval_text"]),
        teacher=copy.deepcopy(teacher) if online else None,
        max_text_length=args.data.max_text_length,
    )
    trainer.train(resume_from_checkpoint=args.training.resume_from_checkpoint)
    if args.model.lora:
        trainer.model = trainer.model.merge_and_unload()
    return trainer


def freeze(model: D2SVSEModel, args: ModelArguments):
    """Freeze the towers that the arguments name; a frozen tower stays in eval mode."""
    for tower, frozen in ((model.vision_model, args.freeze_vision), (model.text_model, args.freeze_text)):
        if frozen:
            tower.requires_grad_(False)


def check_batch(size: int, args: RetrievalTrainingArguments):
    """Refuse a batch that the data cannot fill: with `drop_last`, nothing would be trained."""
    batch = args.per_device_train_batch_size * args.world_size
    if args.dataloader_drop_last and size < batch:
        raise ValueError(f"{size} training items do not fill one batch of {batch}: set --per_device_train_batch_size")


def objective_of(args: ObjectiveArguments, distil: bool) -> D2SObjective:
    """Build the objective that the arguments describe."""
    return D2SObjective(
        align=args.align,
        margin=args.margin,
        temperature=args.temperature,
        mean_warmup_epochs=args.mean_warmup_epochs,
        ramp_epochs=args.ramp_epochs,
        distance=args.distance,
        distill_weight=args.distill_weight if distil else 0.0,
    )


def build_caches(stage: str, model, processor, splits: Splits, args: StageArguments) -> dict:
    """Run frozen towers once, where the arguments ask for it.

    Raises:
        ValueError: a cache of a tower that is trained.
    """
    training, data = args.training, args.data
    caches = dict.fromkeys(("vision", "text", "eval_vision", "eval_text"))
    for kind in ("vision", "text"):
        if getattr(training, f"cache_{kind}") and not getattr(args.model, f"freeze_{kind}"):
            raise ValueError(f"--cache_{kind} needs --freeze_{kind}: a tower that is trained cannot be cached")
    folder = Path(training.output_dir).parent / "cache"
    if training.cache_vision:
        caches["vision"] = cache_vision(
            model, processor, splits.train, folder, training.cache_views, seed=training.seed
        )
        caches["eval_vision"] = cache_vision(model, processor, splits.evaluation, folder)
    if training.cache_text:
        captions = [text for texts in splits.train["captions"] for text in texts]
        texts = list(splits.train["dense_text"]) if stage == "pretrain" else captions
        length = data.max_dense_length if stage == "pretrain" else data.max_text_length
        evaluated = [text for texts in splits.evaluation["captions"] for text in texts]
        caches["text"] = cache_text(model, processor, texts, folder, length)
        caches["eval_text"] = cache_text(model, processor, evaluated, folder, data.max_text_length)
    return caches


@torch.no_grad()
def with_teacher_column(rows: Dataset, teacher, processor, args: StageArguments) -> Dataset:
    """Add `dense_text_embeds`: the stage-1 text side's raw vector of each row's dense text, in eval mode.

    Raises:
        ValueError: the rows bring such a column, of another width than this teacher's.
    """
    if TEACHER_COLUMN in rows.column_names:
        width = len(rows[0][TEACHER_COLUMN])
        if width != teacher.config.projection_dim:
            raise ValueError(
                f"column {TEACHER_COLUMN} holds vectors of {width} numbers, the teacher makes "
                f"{teacher.config.projection_dim}: remove the column, and it is computed anew"
            )
        return rows
    teacher = teacher.to(args.training.device).eval()
    texts = rows["dense_text"]
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    vectors = torch.empty(len(texts), teacher.config.projection_dim)
    for start in tqdm(range(0, len(order), 64), desc="teacher embeds dense text"):
        batch = order[start : start + 64]
        tokens = processor.tokenizer(
            [texts[row] for row in batch],
            padding=True,
            truncation=True,
            max_length=args.data.max_dense_length,
            return_tensors="pt",
        ).to(teacher.device)
        features = teacher.get_text_features(tokens["input_ids"], attention_mask=tokens["attention_mask"])
        vectors[batch] = features.pooler_output.float().cpu()
    return rows.add_column(TEACHER_COLUMN, list(vectors.numpy()))


def with_lora(model, args: ModelArguments):
    """Wrap both towers in LoRA adapters; everything outside the towers trains in full."""
    from peft import LoraConfig, get_peft_model

    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith(("vision_model.", "text_model."))
    ]
    heads = [name for name, _ in model.named_children() if name not in ("vision_model", "text_model")]
    config = LoraConfig(r=args.lora_rank, lora_alpha=2 * args.lora_rank, target_modules=linear, modules_to_save=heads)
    return get_peft_model(model, config)


def find_resume(args: RetrievalTrainingArguments):
    """Turn `--resume_from_checkpoint true` into the stage's last checkpoint, or None where there is none yet."""
    from transformers.trainer_utils import get_last_checkpoint

    if str(args.resume_from_checkpoint).lower() != "true":
        return args.resume_from_checkpoint
    return get_last_checkpoint(args.output_dir) if Path(args.output_dir).is_dir() else None
