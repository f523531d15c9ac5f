"""Averaged weights: what is evaluated, selected and saved is a moving average of the weights over the steps.

A learning rate that falls to zero ends the noise of the last steps; an average ends it too, and the rate can stay high.
Training itself goes on from the weights of the last step, which a checkpoint holds beside their average.

Source: Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import distributed, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import TrainerCallback

from ..processes.fsdp import ShardedTrainer

LAST_WEIGHTS = "last_weights"  # the file of a checkpoint from which training goes on


class AveragedTrainer(ShardedTrainer):
    """A `Trainer` with `--average_weights DECAY`: `average = DECAY * average + (1 - DECAY) * weights` in each step.

    As long as few steps were taken it is their plain mean; otherwise the untrained weights would stay in it for long.
    After `train` the model holds the average, or the best checkpoint, which is one.
    """

    average: dict[str, torch.Tensor] | None = None  # while training, from the first step

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.decay:
            self.add_callback(_Average(self))

    @property
    def decay(self) -> float | None:
        """How much of the average each step keeps; None: there is no average."""
        return getattr(self.args, "average_weights", None)

    def evaluate(self, *args, **kwargs) -> dict[str, Any]:
        """Evaluate the average."""
        with self._averaged():
            return super().evaluate(*args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False):
        """Write the average."""
        with self._averaged():
            super().save_model(output_dir, _internal_call)

    def _save_optimizer_and_scheduler(self, output_dir):
        super()._save_optimizer_and_scheduler(output_dir)
        if self.average is not None and (self.args.should_save or self.whole is not None):
            last = {name: tensor.cpu().contiguous() for name, tensor in moving(self.model)}
            save_file(last, self._last_weights(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        path = self._last_weights(checkpoint)
        if path.exists() != bool(self.decay):
            how = "with --average_weights: add it" if path.exists() else "without --average_weights: leave it out"
            raise ValueError(f"{checkpoint} was written {how}, or start anew from its weights")
        if self.decay:
            self.average = {name: tensor.clone() for name, tensor in moving(self.model)}
            write(self.model, load_file(path))

    def _last_weights(self, folder: str) -> Path:
        """Where the weights of the last step are kept; where they are sharded, this process's part of them."""
        part = "" if self.whole is None else f"_{self.args.process_index}_of_{self.args.world_size}"
        return Path(folder, f"{LAST_WEIGHTS}{part}.safetensors")

    def add_to_average(self, step: int):
        """Add the weights after a step, counted from 1."""
        now = dict(moving(self.model))
        if self.average is None:
            self.average = {name: tensor.clone() for name, tensor in now.items()}
        kept = min(self.decay or 0.0, 1 - 1 / step)
        get_ema_multi_avg_fn(kept)(list(self.average.values()), list(now.values()), step)

    def keep_average(self, best_is_loaded: bool):
        """Leave the average in the model, where training ends; the best checkpoint, if it was loaded, is one."""
        if self.average is not None and not best_is_loaded:
            self._share_statistics()
            write(self.model, self.average)
        self.average = None

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model holds the average inside, and the weights of the last step afterwards."""
        if self.average is None:
            yield
            return
        self._share_statistics()
        last = {name: tensor.clone() for name, tensor in moving(self.model)}
        write(self.model, self.average)
        try:
            yield
        finally:
            write(self.model, last)

    def _share_statistics(self):
        """Give each process the averaged running statistics of the first, whose checkpoint is read by all."""
        if self.args.world_size > 1 and self.average is not None:
            for name, tensor in self.average.items():
                if is_statistic(name):
                    distributed.broadcast(tensor, 0)


class _Average(TrainerCallback):
    """Adds to the average after each step of the optimizer, before it is evaluated or saved."""

    def __init__(self, trainer: AveragedTrainer):
        self.trainer = trainer

    def on_step_end(self, args, state, control, **kwargs):
        self.trainer.add_to_average(state.global_step)

    def on_train_end(self, args, state, control, **kwargs):
        self.trainer.keep_average(args.load_best_model_at_end and state.best_model_checkpoint is not None)


def is_statistic(name: str) -> bool:
    """Whether a tensor of this name holds running statistics of a batch norm."""
    return name.rsplit(".", 1)[-1].startswith("running_")


def moving(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """What training changes in a model, by name: trained weights and running statistics; of shards, those here."""
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            tensor = weight.detach()
            yield name, tensor.to_local() if hasattr(tensor, "to_local") else tensor
    yield from ((name, tensor) for name, tensor in model.named_buffers() if is_statistic(name))


@torch.no_grad()
def write(model: nn.Module, tensors: dict[str, torch.Tensor]):
    """Write tensors over the weights and statistics that `moving` gives, by name.

    Raises:
        ValueError: they are of another model.
    """
    own = dict(moving(model))
    wrong = own.keys() ^ tensors.keys() or [name for name in own if own[name].shape != tensors[name].shape]
    if wrong:
        raise ValueError(f"these are not the weights of this model: {', '.join(sorted(wrong)[:5])}")
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


__all__ = ["LAST_WEIGHTS", "AveragedTrainer", "moving", "write"]
