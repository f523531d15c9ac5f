"""Checkpoints that are whole or absent: written aside, sealed, renamed; a damaged one is reported and skipped.

The seal lists the files of a checkpoint and their sizes, and is written last. Checkpoints of earlier versions have
none: their parts are looked at one by one.
"""

import json
import os
import re
import shutil
import socket
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from pickle import UnpicklingError

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from ...files.whole import recover, whole_folder, write_json
from ...modeling.towers import load_errors
from ..processes.fsdp import load_whole_state
from .averaged import AveragedTrainer, is_statistic
from .settings import RECORD, read_record, run_of

SEAL, STATE = "sealed.json", "trainer_state.json"
HISTORY = "history.json"  # in the folder of a stage that has made all its steps: what was logged
NAME = re.compile(r"checkpoint-(\d+)")
PARTS = {  # what a run needs to go on as if it had not stopped, and how its files begin
    "weights": ("model.", "model-", "adapter_model", "pytorch_model"),
    "optimizer": ("optimizer",),
    "scheduler": ("scheduler",),
    "rng_state": ("rng_state",),
}
logger = logging.get_logger(__name__)


class SealedCheckpoints(AveragedTrainer):
    """A `Trainer` whose checkpoints get their names once they are whole on the disk; older ones are removed then."""

    _draft: str | None = None  # where a checkpoint is being written

    def trained_modules(self) -> Iterable[nn.Module]:
        """What a checkpoint holds; none of it may be NaN or infinite."""
        yield self.model

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        """Train; a pickle of a checkpoint that wants to call something is an error in one line, and runs nothing."""
        try:
            output = super().train(resume_from_checkpoint, *args, **kwargs)
        except UnpicklingError:  # torch's text advises to open it unsafely
            raise ValueError(
                f"{resume_from_checkpoint}: its optimizer, scheduler or random states hold more than tensors, and "
                "nothing of them was run: start anew from its weights"
            ) from None
        if self.args.should_save:  # of all steps: at the end only the best checkpoint may be left
            write_json(Path(self.args.output_dir, HISTORY), {"log_history": self.state.log_history})
        return output

    def _load_scaler(self, checkpoint):
        if self.accelerator.scaler is not None:  # fp16 left a scaler, and this run has none
            super()._load_scaler(checkpoint)

    def _get_output_dir(self, trial):
        return self._draft or super()._get_output_dir(trial)

    def _save_checkpoint(self, model, trial):
        refuse_non_finite(self.trained_modules(), self.optimizer, self.state.global_step)
        path = Path(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}")
        push, self.args.push_to_hub = self.args.push_to_hub, False  # nothing is uploaded from a draft
        try:
            with whole_folder(path) if self.args.should_save else nullcontext() as mine:
                draft = _draft_of_this_host(mine)
                self._draft = str(draft.parent)
                super()._save_checkpoint(model, trial)
                self._draft = None
                if self.state.best_model_checkpoint == str(draft):
                    self.state.best_model_checkpoint = str(path)
                self.accelerator.wait_for_everyone()  # each process has written its part
                if self.args.should_save:
                    self.state.save_to_json(str(draft / STATE))
                    with suppress(FileNotFoundError):
                        shutil.copyfile(Path(self.args.output_dir, RECORD), draft / RECORD)
                    seal(draft)
        finally:
            self._draft, self.args.push_to_hub = None, push
        self.accelerator.wait_for_everyone()
        if push:
            self._push_from_checkpoint(str(path))
        if self.args.should_save:
            best = Path(self.state.best_model_checkpoint or path)
            rotate(path.parent, self.args.save_total_limit, {path.name, best.name})


class WholeCheckpoints(SealedCheckpoints):
    """`SealedCheckpoints` that also resumes and loads the best model through `from_pretrained`: no weight is lost."""

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        """Train; a checkpoint that has all `max_steps` is only loaded, where the stock Trainer takes one step more."""
        if isinstance(resume_from_checkpoint, (str, os.PathLike)):
            state = TrainerState.load_from_json(os.path.join(resume_from_checkpoint, STATE))
            best = state.best_model_checkpoint = best_beside(Path(resume_from_checkpoint), state, self.args)
            if 0 < self.args.max_steps <= state.global_step:
                self.state = state
                self.stay_whole()
                self._load_from_checkpoint(resume_from_checkpoint)
                if self.args.load_best_model_at_end and state.best_model_checkpoint is not None:
                    self._load_best_model()
                return TrainOutput(state.global_step, 0.0, {})
            refuse_other_batches(Path(resume_from_checkpoint), state, self.args)
            self.add_callback(_BestIs(best))
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        load_whole(resume_from_checkpoint, self.model if model is None else model)

    def _load_best_model(self):
        self._load_from_checkpoint(self.state.best_model_checkpoint)


def load_whole(folder: str | Path, model: nn.Module):
    """Load a saved model into `model`, every tensor of it, through `from_pretrained` (which knows old and new names).

    Raises:
        ValueError: a weight is missing, left over or of another shape.
    """
    if hasattr(model, "peft_config"):
        from peft import load_peft_weights, set_peft_model_state_dict

        with load_errors(folder):
            set_peft_model_state_dict(model, load_peft_weights(folder, device="cpu"))
        return
    with load_errors(folder):
        reported = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # an error below
        fresh, info = type(model).from_pretrained(folder, dtype=model.dtype, **reported)
    wrong = {kind: sorted(map(str, keys)) for kind, keys in info.items() if keys and kind != "error_msgs"}
    if wrong:
        raise ValueError(f"{folder} does not hold this model: {wrong}")
    load_whole_state(model, fresh.state_dict())


def refuse_other_batches(folder: Path, state: TrainerState, args: TrainingArguments):
    """Refuse to go on with other batches than before: pairs would be seen twice or never, and nobody would know.

    Raises:
        ValueError: the checkpoint was written by another number of processes, or with other batches.
    """
    processes = len(list(folder.glob("rng_state*.pth")))
    if processes != args.world_size:
        raise ValueError(
            f"{folder} was written by {processes} processes, and here run {args.world_size}: start as many as then "
            f"(torchrun --nproc_per_node {processes} ...), or start anew from its weights"
        )
    size = state.train_batch_size
    if size is not None and size != args.per_device_train_batch_size:
        raise ValueError(
            f"{folder} was written with --per_device_train_batch_size {size}, not {args.per_device_train_batch_size}: "
            "set it as it was, or start anew from its weights"
        )


class _BestIs(TrainerCallback):
    """Says which checkpoint is the best so far, after Trainer has read a path that may be that of another folder."""

    def __init__(self, best: str | None):
        self.best = best

    def on_train_begin(self, args, state, control, **kwargs):
        state.best_model_checkpoint = self.best


def best_beside(folder: Path, state: TrainerState, args: TrainingArguments) -> str | None:
    """The best checkpoint of a run that goes on: beside the one that it goes on from, even if it was moved.

    Raises:
        ValueError: it is gone or damaged, and would be loaded at the end.
    """
    if state.best_model_checkpoint is None:
        return None
    stored = Path(state.best_model_checkpoint)
    best = next((path for path in (folder.parent / stored.name, stored) if path.is_dir()), None)
    wrong = "is gone" if best is None else torn_part(best)
    if wrong and args.load_best_model_at_end:
        raise ValueError(
            f"{folder}: its run's best checkpoint, {stored.name}, is not whole beside it ({wrong}): put it back, name "
            "another checkpoint, or go on with --load_best_model_at_end False"
        )
    return None if best is None else str(best)


def seal(folder: Path):
    """Write down which files a checkpoint has, and how long they are."""
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    (folder / SEAL).write_text(json.dumps({"files": files}, indent=1))


def checkpoints_of(folder: Path) -> list[Path]:
    """The checkpoints of a run by step, whole or not."""
    named = [(NAME.fullmatch(path.name), path) for path in folder.iterdir()] if folder.is_dir() else []
    return [path for _, path in sorted((int(name[1]), path) for name, path in named if name and path.is_dir())]


def own_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of the run that a stage's folder belongs to, by step, whole or not.

    Raises:
        ValueError: the folder's record is damaged.
    """
    record = read_record(folder)
    found = checkpoints_of(folder)
    return found if record is None else [path for path in found if run_of(path) in (record.run, None)]


def newest_whole(folder: Path, own: bool = False) -> Path | None:
    """The newest checkpoint that a run can go on from; None if there is none at all.

    Args:
        folder: of the stage.
        own: whether only those of the run that the folder belongs to count.

    Raises:
        ValueError: there are some, and none is whole.
    """
    torn = []
    for path in reversed(own_checkpoints(folder) if own else checkpoints_of(folder)):
        missing = missing_part(path)
        if not missing:
            if torn and PartialState().is_main_process:
                logger.warning("%s; going on from %s", "; ".join(torn), path)
            return path
        torn.append(f"{path} is not whole ({missing})")
    if torn:
        raise ValueError(f"{torn[0]}, and no older one is: leave --resume_from_checkpoint out to start anew")
    return None


def missing_part(folder: Path) -> str:
    """What a checkpoint lacks to go on from, with its name; nothing if it is whole."""
    missing = torn_part(folder) or _absent(folder, PARTS)
    return f"{missing}; --save_only_model saves none" if missing == "optimizer is missing" else missing


def torn_part(folder: Path) -> str:
    """What a checkpoint lacks of what was saved, and of its weights, with its name; nothing if it can be loaded.

    `--save_only_model True` saves no optimizer: such a checkpoint can be loaded, and no run goes on from it.
    """
    try:
        int(json.loads((folder / STATE).read_text(encoding="utf-8"))["global_step"])
        seal = json.loads((folder / SEAL).read_text(encoding="utf-8"))["files"] if (folder / SEAL).exists() else None
        for name, size in (seal or {}).items():
            actual = (folder / name).stat().st_size
            if actual != size:
                return f"{name} has {actual:,} bytes, not {size:,}"
        if absent := _absent(folder, ["weights"]):
            return absent
        files = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError as error:
        return f"{os.path.relpath(error.filename, folder)} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{STATE} or {SEAL} is damaged ({error})"
    return "" if seal else next(filter(None, (_damage(folder / name) for name in files)), "")


def _absent(folder: Path, parts: Iterable[str]) -> str:
    """The first of these `PARTS` of which a checkpoint has no file."""
    files = [path.name for path in folder.iterdir()]
    gone = [part for part in parts if not any(name.startswith(PARTS[part]) for name in files)]
    return f"{gone[0]} is missing" if gone else ""


def _damage(path: Path) -> str:
    """What is wrong with one file of a checkpoint without a seal, as far as its form tells."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt"):
                return ""
        except (SafetensorError, OSError) as error:
            return f"{path.name} is damaged ({error})"
    broken = path.suffix in (".pt", ".pth") and not zipfile.is_zipfile(path)
    return f"{path.name} is damaged" if broken else ""


def rotate(folder: Path, limit: int | None, protected: set[str]):
    """Remove the oldest checkpoints, those of other runs, and what is left of damaged ones; those named stay.

    Args:
        folder: of the stage.
        limit: how many are kept; None: all.
        protected: names.
    """
    for draft in folder.glob(".checkpoint-*.draft"):
        recover(folder / draft.name[1:].rsplit(".", 2)[0])
    if not limit or limit < 1:
        return
    keep = set(protected)
    runs = {run_of(folder / name) for name in protected}
    for path in reversed(checkpoints_of(folder)):
        if path.name not in keep and (len(keep) >= limit or run_of(path) not in runs or torn_part(path)):
            shutil.rmtree(path, ignore_errors=True)
        else:
            keep.add(path.name)


def refuse_non_finite(modules: Iterable[nn.Module], optimizer=None, step: int | None = None):
    """Refuse to save what is NaN or infinite: it would take the place of the last good weights.

    Raises:
        FloatingPointError: names the parameter.
    """
    named = list(_saved_tensors(list(modules), optimizer))
    finite = [tensor.isfinite().all() for _, tensor in named]
    if not finite or torch.stack([each.cpu() for each in finite]).all():
        return
    name = next(name for (name, _), ok in zip(named, finite) if not ok)
    after = "" if step is None else f" after step {step}"
    raise FloatingPointError(
        f"{name} is not finite{after}, and so it is not saved; what was saved before stays. Lower the learning rate or "
        "max_grad_norm, or train in bf16 or float32 instead of fp16"
    )


def _saved_tensors(modules: list[nn.Module], optimizer) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters, running statistics, and the optimizer's state of each parameter, as far as they lie here."""
    names = {}
    for module in modules:
        for name, tensor in module.named_parameters():
            names[tensor] = name
            yield name, _local(tensor)
        yield from ((name, _local(tensor)) for name, tensor in module.named_buffers() if is_statistic(name))
    if optimizer is None:
        return
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if torch.is_tensor(value) and value.is_floating_point():
                yield f"the optimizer's {key} of {names.get(parameter, 'a parameter')}", _local(value)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor.detach()


def _draft_of_this_host(mine: Path | None) -> Path:
    """The draft that a process writes its part to: that of its host, where each host saves, or the only one."""
    drafts = [each for each in gather_object([(socket.gethostname(), mine)]) if each[1] is not None]
    return next((path for host, path in drafts if host == socket.gethostname()), drafts[0][1])


__all__ = [
    "SealedCheckpoints",
    "WholeCheckpoints",
    "checkpoints_of",
    "load_whole",
    "missing_part",
    "torn_part",
    "newest_whole",
    "own_checkpoints",
    "refuse_non_finite",
    "rotate",
    "seal",
]
