"""Sums over all pairs of a batch in memory that grows with its rows: no matrix of N x N is ever kept.

Rows are taken a block at a time, and of a block's matrix only its share of the gradient, or its log-sums, stay. The
gradients are exact. Nothing here may be differentiated twice.

Where all processes hold the same rows (`rows_are_shared`), each takes its part of the blocks, and sums are exchanged.

Shapes: N rows, M columns, D features.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed as dist
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

BLOCK = 1 << 20  # entries of a block's matrix: 4 MiB in float32, which stays in a processor's cache


@dataclass(frozen=True)
class Part:
    """The blocks that one process computes."""

    rank: int = 0
    processes: int = 1

    def blocks(self, rows: int, columns: int) -> list[slice]:
        """The blocks of rows that this process computes: at most `BLOCK` entries each, but at least one row."""
        size = max(1, min(BLOCK // max(1, columns), -(-rows // self.processes)))
        blocks = [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
        return blocks[self.rank :: self.processes]

    def exchange(self, tensor: torch.Tensor, how: str = "SUM") -> torch.Tensor:
        """Combine a tensor with those of the other processes, in place."""
        if self.processes > 1:
            dist.all_reduce(tensor, getattr(dist.ReduceOp, how))
        return tensor


ALL = Part()
_part: ContextVar[Part | None] = ContextVar("part", default=None)


def own_part() -> Part:
    """What this process computes: everything, unless rows are shared."""
    return _part.get() or ALL


@contextmanager
def rows_are_shared() -> Iterator[None]:
    """Within this context, all processes hold the same rows, so that the losses divide the work among them."""
    ready = dist.is_available() and dist.is_initialized()
    token = _part.set(Part(dist.get_rank(), dist.get_world_size()) if ready else None)
    try:
        yield
    finally:
        _part.reset(token)


def chunked_sum(function: Callable[..., torch.Tensor], rows: int, columns: int, *tensors: torch.Tensor) -> torch.Tensor:
    """Sum a function over blocks of rows; what is kept for the backward pass is the gradient of each tensor.

    Args:
        function: (block, *tensors) -> scalar, the share of the rows of `block` (a slice).
        rows, columns: N and M.
        *tensors: what the function reads, whole.
    """
    return _ChunkedSum.apply(function, own_part(), (rows, columns), *tensors)


class _ChunkedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, part, shape, *tensors):
        wanted = [tensor for tensor, needed in zip(tensors, ctx.needs_input_grad[3:]) if needed]
        total, gradients = tensors[0].new_zeros(()), [torch.zeros_like(tensor) for tensor in wanted]
        with torch.autocast(tensors[0].device.type, enabled=False), torch.set_grad_enabled(bool(wanted)):
            inputs = [
                tensor.detach().requires_grad_(needed) for tensor, needed in zip(tensors, ctx.needs_input_grad[3:])
            ]
            leaves = [tensor for tensor in inputs if tensor.requires_grad]
            for block in part.blocks(*shape):
                share = function(block, *inputs)
                total = total + share.detach()
                if leaves:
                    slopes = torch.autograd.grad(share, leaves, allow_unused=True)
                    for gradient, slope in zip(gradients, slopes):
                        if slope is not None:
                            gradient += slope
        ctx.save_for_backward(*map(part.exchange, gradients))
        return part.exchange(total)

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        gradients = iter(ctx.saved_tensors)
        slopes = (next(gradients) * upstream if needed else None for needed in ctx.needs_input_grad[3:])
        return None, None, None, *slopes


def recomputed(function: Callable[..., Any], *tensors: torch.Tensor) -> Any:
    """Call a function of which only the arguments are kept; the backward pass computes the rest again."""
    return checkpoint(function, *tensors, use_reentrant=False, preserve_rng_state=False)


def log_sums(
    rows: torch.Tensor, columns: torch.Tensor, temperature: torch.Tensor, bias: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-sums of exp(row . column / temperature + bias): of each row over all columns (N,), and of each column (M,).

    Args:
        rows, columns: (N, D) and (M, D).
        temperature: tau, of one element.
        bias: of the columns (M,), a constant.
    """
    return _LogSums.apply(rows, columns, temperature, columns.new_zeros(()) if bias is None else bias.detach())


class _LogSums(torch.autograd.Function):
    """One pass forward; the backward pass computes each block's scores again."""

    @staticmethod
    def forward(ctx, rows, columns, temperature, bias):
        ctx.part = part = own_part()
        of_rows = rows.new_zeros(len(rows))
        of_columns = rows.new_full((len(columns),), -torch.inf)
        with torch.autocast(rows.device.type, enabled=False):
            for block in part.blocks(len(rows), len(columns)):
                scores = rows[block] @ columns.t() / temperature + bias
                of_rows[block] = scores.logsumexp(1)
                of_columns = torch.logaddexp(of_columns, scores.logsumexp(0))
        part.exchange(of_rows)
        highest = part.exchange(of_columns.clone(), "MAX")
        of_columns = highest + part.exchange((of_columns - highest).exp()).log() if part.processes > 1 else of_columns
        ctx.save_for_backward(rows, columns, temperature, bias, of_rows, of_columns)
        return of_rows, of_columns

    @staticmethod
    @once_differentiable
    def backward(ctx, of_rows_gradient, of_columns_gradient):
        rows, columns, temperature, bias, of_rows, of_columns = ctx.saved_tensors
        part = ctx.part
        rows_gradient, columns_gradient = torch.zeros_like(rows), torch.zeros_like(columns)
        temperature_gradient = torch.zeros_like(temperature)
        with torch.autocast(rows.device.type, enabled=False):
            for block in part.blocks(len(rows), len(columns)):
                scores = rows[block] @ columns.t() / temperature
                weights = (scores + (bias - of_rows[block, None])).exp_().mul_(of_rows_gradient[block, None])
                weights += (scores + (bias - of_columns)).exp_().mul_(of_columns_gradient)  # d loss / d scores
                temperature_gradient -= (weights * scores).sum() / temperature
                weights /= temperature
                rows_gradient[block] = weights @ columns
                columns_gradient += weights.t() @ rows[block]
        return *map(part.exchange, (rows_gradient, columns_gradient, temperature_gradient)), None


__all__ = ["chunked_sum", "log_sums", "own_part", "recomputed", "rows_are_shared"]
