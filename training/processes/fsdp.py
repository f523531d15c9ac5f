"""Sharded training (FSDP2): each process holds a part of every weight, gradient and optimizer state.

accelerate shards the model with torch's `fully_shard`. What it leaves out is here: optimizers that hold more than the
model's weights, evaluation with batches of its own for each process, states that resume bit for bit, and the whole
model after training.
"""

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, convert_outputs_to_fp32
from torch import distributed, nn
from torch.optim import Optimizer

from ..reports.progress import StderrTrainer

if distributed.is_available():  # some builds of torch have no part of it
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
    from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
    from torch.distributed.tensor import DTensor

METHODS = ("get_image_features", "get_text_features", "vision_tokens", "instruct")  # that use weights, beside `forward`
SCHEDULER = "scheduler.pt"


class ShardedTrainer(StderrTrainer):
    """A `Trainer` whose `--fsdp` shards (FSDP2), on a CPU, too; after `train`, its model is whole on every process."""

    model: Any
    whole: nn.Module | None = None  # the model without its weights, until the end of training

    def create_accelerator_and_postprocess(self):
        """Shard where it was asked for.

        Raises:
            ValueError: the run would be another than the one that was asked for.
        """
        super().create_accelerator_and_postprocess()
        if not self.args.fsdp:
            return
        state = self.accelerator.state
        if self.args.device.type == "cpu":  # where accelerate would train with DDP instead, and say nothing
            state.distributed_type = DistributedType.FSDP
            state.fsdp_plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
            self.is_fsdp_enabled = True
        if not (self.is_fsdp_enabled and getattr(self.accelerator, "is_fsdp2", False)):
            raise ValueError(f"--fsdp: accelerate would not shard, but train with {state.distributed_type}")
        state.fsdp_plugin.mixed_precision_policy = None  # mixed precision is autocast's, as without shards
        self.accelerator.prepare = functools.partial(self._prepared, self.accelerator.prepare)

    def _prepared(self, prepare: Callable, *objects, **kwargs):
        """`Accelerator.prepare`, which expects that all parameters of an optimizer are the model's.

        Groups of other parameters (those of the objective) are taken out before, and put back afterwards.
        """
        if len(objects) != 2 or not isinstance(objects[1], Optimizer):
            return prepare(*objects, **kwargs)
        model, optimizer = objects
        self.whole = without_weights(model)
        plugin = self.accelerator.state.fsdp_plugin
        if not self.args.fsdp_config.get("transformer_layer_cls_to_wrap"):
            plugin.transformer_cls_names_to_wrap = blocks_of(model)
        if input_embeddings(model) is None:
            model.get_input_embeddings = lambda: None  # accelerate asks for them
        own = {id(parameter) for parameter in model.parameters()}
        others = [group for group in optimizer.param_groups if id(group["params"][0]) not in own]
        optimizer.param_groups[:] = [group for group in optimizer.param_groups if id(group["params"][0]) in own]
        model, optimizer = prepare(model, optimizer, **kwargs)
        for group in others:
            optimizer.add_param_group(group)
        if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
            raise ValueError("--fsdp: the model was not sharded")
        for name in METHODS:
            shard_method(model, name)
        with_autocast(model, self.accelerator)
        return model, optimizer

    def train(self, *args, **kwargs):
        """Train; then each process gets the whole model."""
        result = super().train(*args, **kwargs)
        if self.whole is not None:
            self.whole.load_state_dict(whole_state(self.model), assign=True)
            self.model = self.model_wrapped = with_autocast(self.whole.to(self.args.device), self.accelerator)
            self.callback_handler.model, self.optimizer, self.whole = self.model, None, None
            self.is_fsdp_enabled = False
        return result

    def stay_whole(self):
        """Do not shard the model of a run that has all its steps already: it is only evaluated."""
        if self.is_fsdp_enabled:
            self.is_fsdp_enabled = False
            self.model.to(self.args.device)

    def training_step(self, *args, **kwargs) -> torch.Tensor:
        """One forward and backward pass; running statistics are those of the first process, as with DDP."""
        if self.whole is not None:
            for buffer in self.model.buffers():
                if buffer.is_floating_point():
                    distributed.broadcast(buffer, 0)
        return super().training_step(*args, **kwargs)

    def evaluate(self, *args, **kwargs) -> dict[str, Any]:
        """Evaluate with whole weights: processes have different numbers of batches, and could not meet in each."""
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        with unsharded(self.model, reshard=plugin is None or plugin.reshard_after_forward):
            return super().evaluate(*args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False):
        """Write whole weights, which the first process holds meanwhile."""
        if self.whole is None:
            return super().save_model(output_dir, _internal_call)
        state = whole_state(self.model, on_first=True)
        if self.args.should_save:
            self._save(output_dir, state_dict=state)

    def _save_optimizer_and_scheduler(self, output_dir):
        if self.whole is None:
            return super()._save_optimizer_and_scheduler(output_dir)
        torch.save(parts_of(self.optimizer.state_dict()), self._own_part(output_dir))
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir, SCHEDULER))

    def _load_optimizer_and_scheduler(self, checkpoint):
        sharded = checkpoint is not None and any(Path(checkpoint).glob("optimizer_*_of_*.pt"))
        if checkpoint is not None and sharded != (self.whole is not None):
            how = "with --fsdp: add it" if sharded else "without --fsdp: leave it out"
            raise ValueError(f"{checkpoint} was written {how}, or start anew from its weights")
        if not sharded:
            return super()._load_optimizer_and_scheduler(checkpoint)
        load_parts(self.optimizer, torch.load(self._own_part(checkpoint), map_location="cpu", weights_only=True))
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint, SCHEDULER), weights_only=True))

    def _own_part(self, folder: str) -> Path:
        """Where this process keeps its part of the optimizer's state."""
        return Path(folder, f"optimizer_{self.args.process_index}_of_{self.args.world_size}.pt")


def blocks_of(model: nn.Module) -> list[str]:
    """Names of the classes whose modules are gathered one at a time: those in `_no_split_modules` that the model has.

    The word embeddings are a unit of their own, and cannot be in one of these blocks.
    """
    embeddings = input_embeddings(model)
    words = set() if embeddings is None else set(embeddings.parameters())
    named = set(getattr(model, "_no_split_modules", None) or ())
    there = [module for module in model.modules() if type(module).__name__ in named]
    whole = {type(module).__name__ for module in there if words & set(module.parameters())}
    return sorted({type(module).__name__ for module in there} - whole)


def input_embeddings(model: nn.Module) -> nn.Module | None:
    """What a model calls its input embeddings; convolutional classifiers have none, and raise."""
    try:
        return model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None


def shard_method(model: nn.Module, name: str):
    """Let a method gather the weights that it uses, as `forward` does; within another such call they are there.

    Args:
        model: sharded; of another one, nothing changes.
        name: of the method; one that the model lacks is passed over.
    """
    if not _is_sharded(model) or not hasattr(model, name):
        return
    plain = getattr(model, name)
    register_fsdp_forward_method(model, name)
    gathering = getattr(model, name)

    @functools.wraps(plain)
    def method(*args, **kwargs):
        inside = model._get_fsdp_state()._state_ctx.iter_forward_root is not None
        return (plain if inside else gathering)(*args, **kwargs)

    setattr(model, name, method)


@contextlib.contextmanager
def unsharded(model: nn.Module, reshard: bool = True) -> Iterator[None]:
    """Keep whole weights on each process inside, so that each may call the model as often as it likes.

    Args:
        model: sharded, or not.
        reshard: whether its blocks drop whole weights after each forward pass, outside.
    """
    shards = [module for module in model.modules() if _is_sharded(module)]
    for module in shards:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in shards:
            module.reshard()
            module.set_reshard_after_forward(reshard and module is not model, recurse=False)


def without_weights(model: nn.Module) -> nn.Module:
    """A copy of a model whose parameters have shapes, but no memory."""
    empty = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, empty)


def whole_state(model: nn.Module, on_first: bool = False) -> dict[str, torch.Tensor]:
    """The whole weights of a sharded model; all processes must ask for them.

    Args:
        model: sharded.
        on_first: only the first process gets them, on the CPU.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=on_first)
    return get_model_state_dict(model, options=options)


def load_whole_state(model: nn.Module, state: dict[str, torch.Tensor]):
    """Load whole weights, every one of them, into a model that may be sharded.

    Raises:
        ValueError, RuntimeError: some are missing, or left over.
    """
    if _is_sharded(model):
        if other := state.keys() ^ model.state_dict().keys():  # torch would keep those that are missing as they are
            raise ValueError(f"these are not the weights of this model: {', '.join(sorted(other)[:5])}")
        own = dict(state)  # where torch puts the parts
        set_model_state_dict(model, own, options=StateDictOptions(full_state_dict=True, strict=True))
    else:
        model.load_state_dict(state, strict=True)


def with_autocast(model: nn.Module, accelerator) -> nn.Module:
    """The model, whose `forward` runs in mixed precision where the accelerator is set to it."""
    if accelerator.mixed_precision == "no":
        return model
    plain = model.forward

    @functools.wraps(plain)
    def forward(self, *args, **kwargs):
        with accelerator.autocast():
            return plain(*args, **kwargs)

    model.forward = convert_outputs_to_fp32(MethodType(forward, model))
    return model


def _is_sharded(module: nn.Module) -> bool:
    return distributed.is_available() and isinstance(module, FSDPModule)


def parts_of(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state with this process's parts in place of sharded tensors."""
    local = {
        number: {key: value.to_local() if isinstance(value, DTensor) else value for key, value in entry.items()}
        for number, entry in state["state"].items()
    }
    return {**state, "state": local}


def load_parts(optimizer: Optimizer, state: dict[str, Any]):
    """Load what `parts_of` gave."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    whole = {
        number: {key: _as_sharded(value, parameters[number]) for key, value in entry.items()}
        for number, entry in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": whole})


def _as_sharded(value: Any, parameter: torch.Tensor) -> Any:
    """A part as a sharded tensor, if it is of a sharded parameter; numbers such as the step stay as they are."""
    if not (torch.is_tensor(value) and value.dim() and isinstance(parameter, DTensor)):
        return value
    mesh, placements = parameter.device_mesh, parameter.placements
    local = value.to(parameter.device)
    return DTensor.from_local(local, mesh, placements, shape=parameter.shape, stride=parameter.stride())


__all__ = ["ShardedTrainer", "load_whole_state", "shard_method", "unsharded", "whole_state", "without_weights"]
