"""Train the last blocks of a vision tower whose frozen lower part is cached.

The cache holds what enters the first trained block. In training the tower runs on one blank picture up to that block
(its lower blocks repeat what they answered once), and there the cached states of the batch take the blank one's place.
So it works for any tower whose states flow from block to block, whatever its blocks return beside them.
"""

import functools
from typing import Any

import torch
from torch import nn

from ...modeling.towers import as_tokens, freeze_unused, image_tokens, run_vision_tower


class VisionTail:
    """The part of a vision tower from one of its blocks on.

    Between `attach` and `detach`, the tower takes pictures (B, 3, S, S) and also the states (B, N, C) of `lower`.

    Args:
        tower: a backbone of transformers.
        block: name of one of its blocks, such as `layer.13` (MobileNetV2) or `layers.10` (ViT).
        side: pixels of a picture's side.

    Raises:
        ValueError: no such block, or a tower whose later blocks also need something from before that block.
    """

    def __init__(self, tower: nn.Module, block: str, side: int):
        self.tower, self.name, self.side = tower, block, side
        blocks, place = _blocks_with(tower, block)
        self.block, self._below = blocks[place], blocks[:place]
        self.states: torch.Tensor | None = None
        self._answers: list[Any] = []
        self._inside = False  # whether a forward pass has reached the block
        training = tower.training
        tower.eval()
        try:
            self._measure()
        finally:
            tower.train(training)

    @torch.no_grad()
    def _measure(self):
        """Run the tower on a blank picture and on noise: shapes, answers of the lower blocks, modules that follow."""
        device = next(self.tower.parameters()).device
        answers: list[Any] = []
        hooks = [module.register_forward_hook(lambda m, args, out: answers.append(out)) for module in self._below]
        self._enter(torch.zeros(1, 3, self.side, self.side, device=device))
        for hook in hooks:
            hook.remove()
        noise = torch.randn(2, 3, self.side, self.side, device=device, generator=_generator(device))
        entering = self._enter(noise)
        self.shape = tuple(entering.shape[1:])
        self._answers = answers
        expected, after = image_tokens(self.tower, noise), []
        hooks = [
            module.register_forward_pre_hook(lambda m, args: after.append(m) if self._inside else None)
            for module in self.tower.modules()
        ]
        self.attach()
        got = image_tokens(self.tower, as_tokens(entering))
        self.detach()
        for hook in hooks:
            hook.remove()
        self.modules = [self.block, *after]
        if got.shape != expected.shape or not torch.allclose(got, expected, atol=1e-4 * float(expected.abs().max())):
            raise ValueError(
                f"--train_vision_from {self.name}: this {self.tower.config.model_type} cannot be cut there, since "
                "later blocks need more than what enters that one; name a later block"
            )

    def _enter(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What enters the block, (B, C, H, W) or (B, N, C); the tower stops there."""

        def reached(module, args, kwargs):
            raise _ReachedError(_first(args, kwargs))

        hook = self.block.register_forward_pre_hook(reached, with_kwargs=True)
        try:
            run_vision_tower(self.tower, pixel_values)
        except _ReachedError as stop:
            return stop.args[0]
        finally:
            hook.remove()
        raise ValueError(f"--train_vision_from {self.name}: the tower never runs this block")

    def lower(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Run the frozen part: (B, 3, S, S) -> (B, N, C), what enters the block as tokens."""
        return as_tokens(self._enter(pixel_values))

    def eval(self):
        """Put the tower in eval mode."""
        self.tower.eval()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The weights below the block, on which the cached states depend."""
        trained = {id(tensor) for module in self.modules for tensor in (*module.parameters(), *module.buffers())}
        tensors = {**dict(self.tower.named_parameters()), **dict(self.tower.named_buffers())}
        return {name: tensor for name, tensor in tensors.items() if id(tensor) not in trained}

    def freeze_below(self):
        """Freeze every weight of the tower that is used before the block."""
        self.tower.requires_grad_(False)
        for module in self.modules:
            module.requires_grad_(True)
        freeze_unused(self.tower)

    def attach(self):
        """Let the tower take states in place of pictures, until `detach`."""
        self.tower.forward = self._forward_of(self.tower.forward)
        for module, answer in zip(self._below, self._answers):
            module.forward = self._or_answer(module.forward, answer)
        self._hook = self.block.register_forward_pre_hook(self._swap, with_kwargs=True)

    def detach(self):
        """Undo `attach`."""
        self._hook.remove()
        for module in (self.tower, *self._below):
            del module.forward  # the class's own again

    def _forward_of(self, whole):
        @functools.wraps(whole)  # callers look at its signature
        def forward(pixel_values: torch.Tensor, *args, **kwargs):
            if pixel_values.dim() == 4:
                return whole(pixel_values, *args, **kwargs)
            self.states = _as_entered(pixel_values, self.shape)
            try:
                return whole(pixel_values.new_zeros(1, 3, self.side, self.side), *args, **kwargs)
            finally:
                self.states, self._inside = None, False

        return forward

    def _or_answer(self, forward, answer):
        @functools.wraps(forward)
        def lower(*args, **kwargs):
            return forward(*args, **kwargs) if self.states is None else answer

        return lower

    def _swap(self, module, args, kwargs):
        """Put the batch's states in the place of the blank picture's."""
        if self.states is None:
            return None
        self._inside = True
        if args:
            return (self.states, *args[1:]), kwargs
        return args, {**kwargs, next(iter(kwargs)): self.states}


class _ReachedError(Exception):
    """Carries what enters the block out of the tower."""


def _blocks_with(tower: nn.Module, name: str) -> tuple[nn.ModuleList, int]:
    """The list of blocks that the name points into, and the place there."""
    lists = {
        path: list(module)
        for path, module in tower.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module) > 1
    }
    parent, _, place = name.rpartition(".")
    if parent not in lists or not place.isdigit() or int(place) >= len(lists[parent]):
        depth = min((path.count(".") for path in lists), default=0)
        known = [f"{path}.0 to {path}.{len(blocks) - 1}" for path, blocks in lists.items() if path.count(".") == depth]
        raise ValueError(
            f"--train_vision_from {name}: no such block of this {tower.config.model_type}; it has {', '.join(known)}"
        )
    return lists[parent], int(place)


def _first(args: tuple, kwargs: dict) -> torch.Tensor:
    return args[0] if args else next(iter(kwargs.values()))


def _as_entered(tokens: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Tokens (B, N, C) in the block's own shape, (B, N, C) or (B, C, H, W)."""
    return tokens if len(shape) == 2 else tokens.transpose(1, 2).reshape(len(tokens), *shape)


def _generator(device: torch.device) -> torch.Generator:
    return torch.Generator(device=device).manual_seed(0)


__all__ = ["VisionTail"]
