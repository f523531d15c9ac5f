"""RetrievalTrainer: transformers' Trainer with objectives over the global batch, retrieval evaluation and safe resume.

The stock Trainer loses weights of ViT, Swin and DINOv2 towers on resume (their names in memory differ from those on
disk), has no negatives from other processes, and uploads pickles.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from huggingface_hub import upload_folder
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torch.utils.data import RandomSampler, SequentialSampler
from transformers import TrainerCallback
from transformers.trainer_utils import EvalLoopOutput, HubStrategy

from ..evaluation.calibration import calibrate_logit_scale
from ..evaluation.embed import Embeds, embed_rows, row_metrics
from ..hub_cards.model_card import write_model_card
from ..hub_cards.shipped import files_to_ship
from ..losses.chunked import rows_are_shared
from ..losses.objectives import PairEmbeddings
from ..modeling.modeling_dual_encoder import DualEncoderOutput
from ..processing.processing_dual_encoder import DualEncoderProcessor
from .flags.selection import FOLDED, FOLDS
from .gradient_cache import GradientCache, average_gradients
from .inputs.batches import PairBatch
from .inputs.dense_teacher import teach
from .inputs.random_order import RandomOrder
from .inputs.streamed_pairs import StreamedPairs
from .inputs.tower_cache import CachedRowInputs, Caches
from .inputs.vision_tail import VisionTail
from .processes import workers
from .processes.meeting import Meeting
from .processes.workers import told_in_one_line
from .saving.checkpoints import WholeCheckpoints

OBJECTIVE_FILE = "objective.safetensors"
ZERO_STEPS = 20  # in a row without any loss, after which a run stops


class RetrievalTrainer(WholeCheckpoints):
    """Trains a dual encoder with an objective over embeddings of the global batch.

    Args:
        objective: module `(PairEmbeddings, epoch) -> (loss, parts)`; see `objectives.py`.
        processor: saved beside the model; it prepares the evaluation inputs.
        eval_rows: prepared rows (`prepare_rows`) for `evaluate`.
        eval_caches: `Caches` of the evaluation rows.
        vision_tail: of the model, where the caches hold what enters it; attached until the caller detaches it.
        dense_teacher: frozen stage-1 model that embeds dense texts in each step; never saved, never a submodule of
            the model.
        card: arguments of `write_model_card` about the data, the towers and the results.
        **kwargs: as for `Trainer`; `args` is a `RetrievalTrainingArguments`.

    Raises:
        ValueError: several GPUs and one process.
    """

    optimizer: Any
    lr_scheduler: Any
    loss_is_scaled_for_ga = False  # a loss per batch: Trainer divides it by the accumulation steps

    def __init__(
        self,
        *,
        objective: nn.Module,
        processor: DualEncoderProcessor,
        eval_rows: Dataset | None = None,
        eval_caches: Caches | None = None,
        vision_tail: VisionTail | None = None,
        dense_teacher: nn.Module | None = None,
        card: dict | None = None,
        **kwargs,
    ):
        if kwargs["args"].n_gpu > 1:
            raise ValueError(
                "one process would split each batch over all GPUs, with its statistics and negatives: start with "
                "`accelerate launch`, or make one GPU visible (CUDA_VISIBLE_DEVICES=0)"
            )
        super().__init__(eval_dataset=eval_rows, processing_class=processor, **kwargs)
        self.objective = objective.to(self.args.device)
        self.dense_teacher = None
        if dense_teacher is not None:
            self.dense_teacher = dense_teacher.to(self.args.device).eval().requires_grad_(False)
        self.eval_caches = eval_caches or Caches()
        self.gradient_cache = None
        if self.args.chunk_size:
            base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
            self.gradient_cache = GradientCache(base, self.args.chunk_size, self.accelerator.autocast)
        self.vision_tail = vision_tail
        if vision_tail is not None:
            vision_tail.attach()
        self.meeting = Meeting()
        self.card = card or {}
        self.nonzero_step: int | None = None  # the last step whose loss was not 0
        self.last_embeds: Embeds | None = None  # of the last evaluation
        self.loss_parts: dict[str, list[torch.Tensor]] = {}
        self.add_callback(_Epochs(self))

    def train(self, *args, **kwargs):
        """Train; a process that loads items and fails, dies or hangs is an error in one line."""
        with told_in_one_line(self.train_dataset):
            return super().train(*args, **kwargs)

    def _get_train_sampler(self, train_dataset=None):
        """Trainer's order of a shuffled epoch, in less memory; a stream comes as it is."""
        if isinstance(self.train_dataset, StreamedPairs):
            return SequentialSampler(self.train_dataset)
        sampler = super()._get_train_sampler(train_dataset)
        return RandomOrder(len(sampler), self.args.data_seed) if type(sampler) is RandomSampler else sampler

    def get_train_dataloader(self):
        """Trainer's, which waits for its processes no longer than they may take."""
        loader = super().get_train_dataloader()
        if self.args.dataloader_num_workers:
            inner = getattr(loader, "base_dataloader", loader)  # accelerate wraps what is iterated over
            inner.timeout = max(workers.SECONDS, workers.PER_PAIR * self.args.per_device_train_batch_size)
        return loader

    def training_step(
        self, model: nn.Module, inputs: PairBatch, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """One forward and backward pass; with gradient caching, the second half of it."""
        self.meeting.wait(self.state.global_step + 1)
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.gradient_cache is not None:
            self.gradient_cache.backward()
            if self.accelerator.sync_gradients:
                average_gradients(model.parameters())
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: PairBatch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, DualEncoderOutput]:
        """Embed the local batch, gather the global one with gradients, and compute the objective.

        Raises:
            FloatingPointError: the loss is NaN or infinite, or has been exactly 0 for `ZERO_STEPS` steps.
        """
        dense_text_embeds = self._dense_text_embeds(inputs)
        outputs, embeds = self._embed(model, inputs)
        pairs = PairEmbeddings(
            **embeds,
            image_ids=inputs.image_ids,
            dense_text_embeds=dense_text_embeds,
            labels=inputs.scene_labels,
            image_teacher=inputs.image_teacher,
            text_teacher=inputs.text_teacher,
            process_ids=torch.full_like(inputs.image_ids, self.args.process_index),
        )
        pairs = pairs.map(_gathered)
        with rows_are_shared():
            loss, parts = self.objective(pairs, self._epoch())
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} at step {self.state.global_step} (parts: "
                f"{ {name: part.item() for name, part in parts.items()} }; {not_finite(pairs)}). Lower "
                "the learning rate, lower max_grad_norm, or train in bf16 or float32 instead of fp16"
            )
        self._check_zero(loss, len(inputs.image_ids) * self.args.world_size)
        for name, part in parts.items():
            self.loss_parts.setdefault(f"loss_{name}", []).append(part.detach())
        return (loss, outputs) if return_outputs else loss

    def _embed(self, model: nn.Module, batch: PairBatch) -> tuple[DualEncoderOutput | None, dict[str, torch.Tensor]]:
        """The model's output, unless gradients are cached, and the first fields of `PairEmbeddings`."""
        if self.gradient_cache is not None:
            images, texts = self.gradient_cache.embed(batch)
            units = {"image_embeds": F.normalize(images, dim=-1), "text_embeds": F.normalize(texts, dim=-1)}
            return None, {**units, "text_vectors": texts}
        outputs = model(**batch.model_inputs())
        units = {"image_embeds": outputs.image_embeds, "text_embeds": outputs.text_embeds}
        return outputs, {**units, "text_vectors": outputs.text_model_output.pooler_output}

    def _check_zero(self, loss: torch.Tensor, pairs: int):
        """Stop where nothing is learned any more.

        Raises:
            FloatingPointError: the loss has been exactly 0 for `ZERO_STEPS` steps.
        """
        step = self.state.global_step
        if loss.item() != 0 or self.nonzero_step is None:
            self.nonzero_step = step
        elif step - self.nonzero_step >= ZERO_STEPS:
            raise FloatingPointError(
                f"the loss has been exactly 0 for {ZERO_STEPS} steps, up to step {step}, and nothing is learned: the "
                f"{pairs} pairs of a step hold no negative that counts. Take more pairs "
                "(--per_device_train_batch_size), a larger --margin, or fewer steps (--max_steps) if the model has "
                "learned these data; checkpoints are kept"
            )

    def _dense_text_embeds(self, batch: PairBatch) -> torch.Tensor | None:
        """The dense teacher's vectors of a batch: computed now, or before training."""
        if self.dense_teacher is None:
            return batch.dense_text_embeds
        size = self.args.chunk_size or len(batch)
        vectors = []
        for start in range(0, len(batch), size):
            texts = [part[start : start + size] for part in (batch.dense_input_ids, batch.dense_attention_mask)]
            texts = [part.to(self.args.device) for part in texts]
            with self.accelerator.autocast():  # as the student: in float32, a long text costs as much as all the rest
                vectors.append(teach(self.dense_teacher, *texts, training=self.model.training))
        return torch.cat(vectors)

    def _epoch(self) -> float:
        return float(self.state.epoch or 0.0)

    def log(self, logs: dict[str, float], start_time: float | None = None):
        """Log the parts of the loss, too: their means since the last log."""
        if "loss" in logs:
            logs |= {name: torch.stack(values).mean().item() for name, values in self.loss_parts.items()}
            self.loss_parts.clear()
        super().log(logs, start_time)

    def create_optimizer(self, model: nn.Module | None = None) -> Any:
        """AdamW with groups: heads, towers at `tower_lr_scale`, the objective without weight decay."""
        if self.optimizer is None:
            args, target = self.args, self.model if model is None else model
            groups = {}
            for name, parameter in target.named_parameters():
                tower = "vision_model." in name or "text_model." in name
                decays = args.decay_biases_and_norms or parameter.dim() > 1
                if parameter.requires_grad:
                    groups.setdefault((tower, decays), []).append(parameter)
            own = [p for p in self.objective.parameters() if p.requires_grad]
            options = [
                {
                    "params": parameters,
                    "lr": args.learning_rate * (args.tower_lr_scale if tower else 1.0),
                    "weight_decay": args.weight_decay if decays else 0.0,
                }
                for (tower, decays), parameters in sorted(groups.items())
            ] + [{"params": own, "lr": args.objective_lr or args.learning_rate, "weight_decay": 0.0}]
            optimizer_class, kwargs = self.get_optimizer_cls_and_kwargs(args, target)
            self.optimizer = optimizer_class([group for group in options if group["params"]], **kwargs)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The paper's step schedule if `lr_milestones` is set, else that of `lr_scheduler_type`."""
        milestones = self.args.lr_milestones
        if self.lr_scheduler is not None or not milestones:
            return super().create_scheduler(num_training_steps, optimizer)
        # Not a share of num_training_steps: with max_steps, these are not num_train_epochs epochs.
        per_epoch = -(-len(self.get_train_dataloader()) // self.args.gradient_accumulation_steps)
        steps = [round(epoch * per_epoch) for epoch in milestones]
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.optimizer,
            lambda step: self.args.lr_decay ** sum(step >= milestone for milestone in steps),
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_eval_dataloader(self, eval_dataset: Dataset | None = None) -> Dataset:
        """Return the rows: `evaluation_loop` batches images and captions separately, each image once.

        Raises:
            ValueError: there are none.
        """
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        if rows is None:
            raise ValueError("evaluate needs rows: pass eval_rows to the trainer")
        return rows

    def evaluation_loop(
        self,
        dataloader: Dataset,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The metrics of `row_metrics`, 5-fold 1K if there are 5,000 images, and the calibrated `logit_scale`."""
        rows = dataloader
        caches = self.eval_caches if rows is self.eval_dataset else Caches()
        embeds = embed_rows(
            self._wrap_model(self.model, training=False),
            CachedRowInputs(self.processing_class, rows, caches),
            self.accelerator,
            self.args.per_device_eval_batch_size,
        )
        self.last_embeds = embeds
        metrics = row_metrics(rows, embeds, folds=FOLDS if len(rows) == FOLDED else 0)
        metrics["logit_scale"] = calibrate_logit_scale(*embeds)
        metrics = {f"{metric_key_prefix}_{key}": value for key, value in metrics.items()}
        return EvalLoopOutput(predictions=embeds[:2], label_ids=None, metrics=metrics, num_samples=len(rows))

    def trained_modules(self) -> Iterator[nn.Module]:
        """The model and the objective."""
        yield from (self.model, self.objective)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None):
        super()._save(output_dir, state_dict)
        folder = output_dir or self.args.output_dir
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.objective.state_dict().items()}
        if state and self.args.should_save:
            save_file(state, os.path.join(folder, OBJECTIVE_FILE))

    def _load_from_checkpoint(self, resume_from_checkpoint: str | Path, model: nn.Module | None = None):
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if not self.objective.state_dict():
            return
        path = os.path.join(resume_from_checkpoint, OBJECTIVE_FILE)
        if not os.path.exists(path):
            raise ValueError(f"{path} is missing: the learned state of the objective cannot be restored; start anew")
        try:
            self.objective.load_state_dict(load_file(path), strict=True)  # which copies it to where the objective is
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(
                f"{path}: state of another objective ({' '.join(str(error).split())}); set the flags of the run that "
                "saved it, or start anew"
            ) from None

    def create_model_card(self, *args, **kwargs):
        """Write the card of a retrieval model; Trainer's own would overwrite it with a generic one."""
        args = self.args
        facts = {
            "steps": self.state.global_step,
            "pairs per step": args.per_device_train_batch_size * args.world_size * args.gradient_accumulation_steps,
            "learning rate": args.learning_rate,
            "seed": args.seed,
        }
        card = {"name": self.hub_model_id or Path(args.output_dir).name, "results": [], "training": facts, **self.card}
        write_model_card(args.output_dir, model=self.accelerator.unwrap_model(self.model), **card)

    def push_to_hub(
        self,
        commit_message: str = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs,
    ) -> Any:
        """Upload the self-contained repository: weights, code, processor and card; no pickles, no optimizer."""
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card()
        return self._upload(self.args.output_dir, commit_message, not blocking, token=token, revision=revision)

    def _push_from_checkpoint(self, checkpoint_folder: str):
        """Upload a checkpoint's model; Trainer's own would upload the optimizer and everything else in the folder."""
        if self.is_world_process_zero() and self.args.hub_strategy != HubStrategy.END:
            self._upload(checkpoint_folder, f"Training in progress, step {self.state.global_step}", False)

    def _upload(
        self, folder: str, message: str, in_background: bool, token: str | None = None, revision: str | None = None
    ) -> Any:
        return upload_folder(
            repo_id=self.hub_model_id,
            folder_path=folder,
            commit_message=message,
            token=token or self.args.hub_token,
            revision=revision or self.args.hub_revision,
            run_as_future=in_background,
            allow_patterns=[name for name, _ in files_to_ship(folder)],
        )


class _Epochs(TrainerCallback):
    """Tells the dataset its epoch, and clears the gradients of the objective, which Trainer does not know of."""

    def __init__(self, trainer: RetrievalTrainer):
        self.trainer = trainer

    def on_epoch_begin(self, args, state, control, **kwargs):
        if hasattr(self.trainer.train_dataset, "set_epoch"):
            self.trainer.train_dataset.set_epoch(int(state.epoch or 0))

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.trainer.objective.zero_grad()


def not_finite(pairs: PairEmbeddings) -> str:
    """Say which pairs of a batch have embeddings that are NaN or infinite, and of which process; if none, the first."""
    finite = pairs.image_embeds.isfinite().all(-1) & pairs.text_embeds.isfinite().all(-1)
    rows = torch.nonzero(~finite).flatten().tolist()
    said = "embeddings are not finite of" if rows else "all embeddings are finite, also those of"
    owners = [0] * len(finite) if pairs.process_ids is None else pairs.process_ids.tolist()
    of: dict[int, list[int]] = {}
    for row in (rows or range(len(finite)))[:8]:
        of.setdefault(owners[row], []).append(int(pairs.image_ids[row]))
    return f"{said} " + ", ".join(f"process {owner}, image rows {ids}" for owner, ids in of.items())


def _gathered(tensor: torch.Tensor) -> torch.Tensor:
    """Concatenate over processes, with gradients if the tensor has any; all batches must have the same size."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return tensor
    if torch.distributed.get_world_size() == 1:
        return tensor
    if tensor.requires_grad:
        from torch.distributed.nn.functional import all_gather

        return torch.cat(all_gather(tensor.contiguous()))
    parts = [torch.empty_like(tensor) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)
