"""One stage of training on image-text pairs: freeze, cache, adapt, train, select. The same for every system."""

import copy
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..configuration.configuration_dual_encoder import DualEncoderConfig
from ..data.streams import Stream
from ..evaluation.protocols import protocols_outcomes
from ..evaluation.significance import intervals
from ..losses.matryoshka import MatryoshkaObjective
from ..modeling.modeling_dual_encoder import DualEncoderPreTrainedModel
from ..processing.processing_dual_encoder import DualEncoderProcessor
from .default_cutoff import measured_cutoff
from .flags.arguments import RetrievalTrainingArguments, StructureArguments, TowerArguments
from .inputs.bad_pictures import BadPictures
from .inputs.batches import HostBatch, PairBatch, PairCollator
from .inputs.pairs import PairDataset
from .inputs.sentences import sentences
from .inputs.streamed_pairs import StreamedPairs, keep_order
from .inputs.structure_teachers import structured
from .inputs.tower_cache import CachedRowInputs, Caches, cache_images, cache_text
from .inputs.views import Views
from .inputs.vision_tail import VisionTail
from .lora import with_lora
from .modality_means import MOST, keep_means, modality_means
from .preflight import count_cut, freeze_without_gradient
from .stage_arguments import StageArguments
from .trainer import RetrievalTrainer


def train_pairs(
    model: DualEncoderPreTrainedModel,
    processor: DualEncoderProcessor,
    rows: Dataset | Stream,
    eval_rows: Dataset,
    args: StageArguments,
    objective: nn.Module,
    *,
    texts: str = "captions",
    dense_teacher: DualEncoderPreTrainedModel | None = None,
) -> RetrievalTrainer:
    """Train one stage, select on the evaluation rows, and return the trainer holding the best model.

    Args:
        model, processor: what to train.
        rows, eval_rows: prepared rows (`prepare_rows`); those to train on may be a stream.
        args: of this stage.
        objective: module `(PairEmbeddings, epoch) -> (loss, parts)`.
        texts: `captions` or `dense_text`: what the training pairs hold.
        dense_teacher: a frozen model whose text side embeds the dense text of each pair in each step, or None.
    """
    forget_measurements(model.config)
    tail = freeze(model, args.model)
    data, training = args.data, args.training
    if training.world_size > 1:
        freeze_without_gradient(model)
    _tell_cuts(processor.tokenizer, [] if isinstance(rows, Stream) else rows[texts], training.process_index)
    caches, eval_caches = build_caches(model, processor, rows, eval_rows, args, texts, tail)
    with_teachers = texts == "captions" and args.objective.needs_teachers
    settings = {
        "processor": processor,
        "texts": texts,
        "text_augmentation": 0.0 if caches.text else data.text_augmentation,
        "with_dense": dense_teacher is not None,
        **_common(args),
    }
    if isinstance(rows, Stream):
        dataset = _streamed(rows, args, settings)
    else:
        dataset = PairDataset(rows, with_teachers=with_teachers, caches=caches, **settings)
    check_batch(len(dataset), training)
    means = dataset.teachers.means() if with_teachers else None
    objective = whole_objective(objective, args.objective, means, model.config)
    trainer = RetrievalTrainer(
        model=with_lora(model, args.model.lora_rank) if args.model.lora else model,
        args=args.for_trainer(),
        objective=objective,
        processor=processor,
        train_dataset=dataset,
        data_collator=PairCollator(processor, HostBatch if training.chunk_size else PairBatch),
        eval_rows=eval_rows,
        eval_caches=eval_caches,
        vision_tail=tail if caches.below else None,
        dense_teacher=copy.deepcopy(dense_teacher),
    )
    trainer.train(resume_from_checkpoint=args.checkpoint)
    if args.model.lora:
        trainer.model = trainer.model.merge_and_unload()
    return _with_means(trainer, rows, caches if texts == "captions" else replace(caches, text=None))


def forget_measurements(config: DualEncoderConfig):
    """Take out what was measured of other weights, those of the stage before: a checkpoint would carry it on."""
    config.image_embeds_mean = config.text_embeds_mean = config.text_cutoff = None


def _with_means(trainer: RetrievalTrainer, rows: Dataset | Stream, caches: Caches) -> RetrievalTrainer:
    """The trainer, with the mean embeddings of training images and captions in its model's configuration.

    Args:
        trainer: holds the best model.
        rows: of training; of a stream, the first ones count.
        caches: of `rows`; that of the text tower is one of captions.
    """
    rows = rows.some(MOST) if isinstance(rows, Stream) else rows
    inputs = CachedRowInputs(trainer.processing_class, rows, caches)
    size, seed = trainer.args.per_device_eval_batch_size, trainer.args.seed
    with trainer.accelerator.autocast():
        means = modality_means(trainer.model, inputs, trainer.accelerator, size, seed)
    keep_means(trainer.model.config, means)
    return trainer


def whole_objective(
    objective: nn.Module,
    args: StructureArguments,
    means: tuple[torch.Tensor, torch.Tensor] | None,
    config: DualEncoderConfig,
) -> nn.Module:
    """What a stage minimises: the objective of its system, with structure where there are teachers, at each width.

    Args:
        objective: of the system.
        args: of the structure.
        means: of the teachers' features, see `structured`; None: no teachers.
        config: of the model; `matryoshka` names the nested widths.
    """
    widths = [*(config.matryoshka or ()), config.projection_dim]
    several = {}
    for width in widths:
        own = copy.deepcopy(objective) if len(widths) > 1 else objective
        several[width] = own if means is None else structured(own, args, means, width)
    return several[widths[0]] if len(widths) == 1 else MatryoshkaObjective(several)


def _common(args: StageArguments) -> dict[str, Any]:
    """Settings of training items that follow from the arguments alone."""
    data = args.data
    return {
        "image_augmentation": data.image_augmentation,
        "dense_sampling": data.dense_sampling,
        "seed": args.training.seed,
        "bad_pictures": BadPictures(data.on_bad_sample, args.root, data.train_split),
    }


def _streamed(stream: Stream, args: StageArguments, settings: dict[str, Any]) -> StreamedPairs:
    """The items of a source that is read as it comes.

    Raises:
        ValueError: nobody knows how many pairs make an epoch, or a resumed run would take another order.
    """
    data, training = args.data, args.training
    pairs = data.pairs_per_epoch or stream.count
    if pairs is None:
        raise ValueError(
            "--streaming: nobody knows how many rows there are before all are read; say how many pairs make an epoch, "
            "between two evaluations: --pairs_per_epoch N"
        )
    shares = training.world_size * max(1, training.dataloader_num_workers)
    order = {"processes and workers": shares, "--shuffle_buffer": data.shuffle_buffer, "pairs of an epoch": pairs}
    order["files"] = stream.table.num_shards
    keep_order(args.folder, order, args.checkpoint is not None, written=training.process_index == 0)
    batch = training.per_device_train_batch_size
    return StreamedPairs(stream, pairs=pairs, batch_size=batch, shares=shares, buffer=data.shuffle_buffer, **settings)


def _tell_cuts(tokenizer: PreTrainedTokenizerBase, column: Iterable[str | list[str]], process: int):
    """Print how many of the training texts are cut, in the first process."""
    if process:
        return
    texts = (text for item in column for text in ([item] if isinstance(item, str) else item))
    cut, count = count_cut(tokenizer, texts)
    if cut:
        print(f"{cut} of {count} texts are cut at {tokenizer.model_max_length} tokens", file=sys.stderr)


def selected(trainer: RetrievalTrainer) -> tuple[DualEncoderPreTrainedModel, Any, dict[str, Any]]:
    """The trained model, its processor and its metrics.

    The metrics hold `eval_intervals`, name -> (low, high): 95 % by bootstrap over images. The model's `logit_scale` is
    set to the value that is calibrated on validation, and its `text_cutoff` is measured there.
    """
    metrics = trainer.evaluate()
    metrics["eval_intervals"] = intervals(protocols_outcomes({"recall": None}, *trainer.last_embeds)["recall"])
    if trainer.vision_tail is not None:
        trainer.vision_tail.detach()
    config = trainer.model.config
    config.logit_scale = round(metrics["eval_logit_scale"], 1)
    with trainer.accelerator.autocast():  # as the evaluation
        captions = _flat(trainer.eval_dataset["captions"])
        config.text_cutoff = measured_cutoff(trainer.model, trainer.processing_class, captions, trainer.last_embeds)
    return trainer.model, trainer.processing_class, metrics


def freeze(model: DualEncoderPreTrainedModel, args: TowerArguments) -> VisionTail | None:
    """Freeze the towers that the arguments name, and what is below the first block that is trained.

    A frozen tower stays in eval mode.

    Raises:
        ValueError: a vision tower that is to be frozen and trained, or no such block.
    """
    for tower, frozen in ((model.vision_model, args.freeze_vision), (model.text_model, args.freeze_text)):
        if frozen:
            tower.requires_grad_(False)
    if args.train_vision_from is None:
        return None
    if args.lora:
        raise ValueError("--lora trains adapters in whole towers: leave it or --train_vision_from out")
    if args.freeze_vision:
        raise ValueError("--freeze_vision freezes what --train_vision_from trains: leave one of them out")
    tail = VisionTail(model.vision_model, args.train_vision_from, args.image_size)
    tail.freeze_below()
    return tail


def check_batch(size: int, args: RetrievalTrainingArguments):
    """Refuse a batch that the data cannot fill: with `drop_last`, nothing would be trained."""
    batch = args.per_device_train_batch_size * args.world_size
    if args.dataloader_drop_last and size < batch:
        raise ValueError(f"{size} training items do not fill one batch of {batch}: set --per_device_train_batch_size")


def build_caches(
    model: DualEncoderPreTrainedModel,
    processor: DualEncoderProcessor,
    rows: Dataset,
    eval_rows: Dataset,
    args: StageArguments,
    texts: str,
    tail: VisionTail | None = None,
) -> tuple[Caches, Caches]:
    """Run frozen towers once, where the arguments ask for it: caches for training and for evaluation.

    With a `tail`, the vision tower is run up to its first trained block.

    Raises:
        ValueError: a cache of a tower that is trained.
    """
    training = args.training
    below = tail is not None and training.cache_vision
    caches, eval_caches = Caches(below=below), Caches(below=below)
    for kind in ("vision", "text"):
        frozen = getattr(args.model, f"freeze_{kind}") or (kind == "vision" and tail is not None)
        if getattr(training, f"cache_{kind}") and not frozen:
            raise ValueError(f"--cache_{kind} needs --freeze_{kind}: a tower that is trained cannot be cached")
    if below and training.gradient_checkpointing:
        raise ValueError("--gradient_checkpointing would run the blocks that --cache_vision cached: leave one out")
    folder = args.root / "cache"
    if training.cache_vision or training.cache_text:
        model.to(training.device)  # Trainer would move it, but only after the caches are filled
    if training.cache_vision:
        views = Views(training.cache_views, args.data.image_augmentation)
        run, facts = (model.vision_tokens, []) if tail is None else (tail.lower, [tail.name])
        vision = (model, tail or model.vision_model, run, processor)
        caches.vision = cache_images(*vision, rows, folder, views, facts)
        eval_caches.vision = cache_images(*vision, eval_rows, folder, facts=facts)
        prior = getattr(model, "instruction_model", None)
        if prior is not None:
            facts = (model.config.instruction_scale or [], model.config.instruction_shift or [])
            scene = (model, prior, lambda pixels: model.instruct(pixels)[:, None], processor)  # one token per image
            caches.scene = cache_images(*scene, rows, folder, views, facts)
            eval_caches.scene = cache_images(*scene, eval_rows, folder, facts=facts)
    if training.cache_text:
        strings = rows["dense_text"] if texts == "dense_text" else _flat(rows["captions"])
        if texts == "dense_text" and args.data.dense_sampling:
            strings = _flat(map(sentences, strings))
        caches.text = cache_text(model, processor, list(strings), folder)
        eval_caches.text = cache_text(model, processor, _flat(eval_rows["captions"]), folder)
    return caches, eval_caches


def _flat(captions: Iterable[list[str]]) -> list[str]:
    return [text for texts in captions for text in texts]
