"""D2S-VSE's two stages: dense captions first, then short ones under a dense teacher, with a checked hand-over.

Stage 1 (`pretrain`): image + dense text, no decoder. Stage 2 (`finetune`): image + short captions, a fresh mask-token
decoder, and distillation from the frozen stage-1 text side. `baseline` is stage 2's alignment alone, from scratch.
"""

import torch
from datasets import Dataset
from tqdm.auto import tqdm

from ..configuration.configuration_d2s_vse import D2SVSEConfig
from ..modeling.modeling_d2s_vse import D2SVSEModel
from ..processing.batching import batches_of, by_length, run_batches, tokenize
from ..processing.processing_d2s_vse import D2SVSEProcessor
from .arguments import D2SModelArguments, D2SObjectiveArguments, DataArguments
from .objectives import D2SObjective
from .pair_stage import train_pairs
from .stages import Splits, StageArguments
from .trainer import RetrievalTrainer

STAGES = ("pretrain", "finetune", "baseline")
TEACHER_COLUMN = "dense_text_embeds"  # rows that have it already keep it: a teacher is a column


def fresh_model(args: D2SModelArguments, data: DataArguments) -> tuple[D2SVSEModel, D2SVSEProcessor]:
    """Build the stage-1 model around pretrained towers, and its processor."""
    model = D2SVSEModel.from_vision_text_pretrained(args.vision, args.text, **args.numbers(), use_decoder=False)
    processor = D2SVSEProcessor.from_vision_text_pretrained(
        args.vision,
        args.text,
        args.image_size,
        max_length=data.max_text_length,
        imagenet=args.imagenet_normalisation,
    )
    return model, processor


def add_decoder(stage1: D2SVSEModel, args: D2SModelArguments) -> D2SVSEModel:
    """Hand over: a stage-2 model with every weight of stage 1 and a fresh decoder.

    Raises:
        ValueError: the two do not fit; the message names the weights.
    """
    if stage1.config.model_type != D2SVSEConfig.model_type or stage1.config.use_decoder:
        raise ValueError(
            f"{stage1.name_or_path or 'this model'} is not a stage-1 model: it must be D2S-VSE without decoder"
        )
    for name in ("projection_dim", "image_size"):  # the processor comes from stage 1, and so its size
        own, asked = getattr(stage1.config, name), getattr(args, name)
        if own != asked:
            raise ValueError(f"stage 1 has {name} {own}, this stage {asked}: set them alike")
    settings = {**stage1.config.to_dict(), **args.numbers(), "use_decoder": True}
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
    distil = stage == "finetune" and teacher is not None and args.objective.distill_weight > 0
    online = distil and args.objective.teacher == "online"
    rows = splits.train
    if distil and not online:
        rows = with_teacher_column(rows, teacher, processor, args)
    return train_pairs(
        model,
        processor,
        rows,
        splits.evaluation,
        args,
        objective_of(args.objective, distil),
        texts="dense_text" if stage == "pretrain" else "captions",
        teacher=teacher if online else None,
    )


def objective_of(args: D2SObjectiveArguments, distil: bool) -> D2SObjective:
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
    texts = list(rows["dense_text"])
    vectors = torch.empty(len(texts), teacher.config.projection_dim)

    def prepare(batch: list[int]) -> dict[str, torch.Tensor]:
        return tokenize(processor.tokenizer, [texts[row] for row in batch])

    def embed(tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        features = teacher.get_text_features(tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return features.pooler_output.float().cpu()

    batches = tqdm(batches_of(by_length(texts), 64), desc="teacher embeds dense text")
    for batch, part in run_batches(batches, prepare, embed, teacher.device):
        vectors[batch] = part
    return rows.add_column(TEACHER_COLUMN, list(vectors.numpy()))
