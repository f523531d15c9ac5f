"""Sums over all pairs of a batch in memory that grows with its rows: no matrix of N x N is ever kept.

Rows are taken a block at a time, and of a block's matrix only its share of the gradient, or its log-sums, stay. The
gradients are exact. Nothing here may be differentiated twice.

Shapes: N rows, M columns, D features.
"""

from collections.abc import Callable

import torch
from torch.autograd.function import once_differentiable

BLOCK = 1 << 20  # entries of a block's matrix: 4 MiB in float32, which stays in a processor's cache


def row_blocks(rows: int, columns: int) -> list[slice]:
    """Cut rows into blocks whose matrix with all columns has about `BLOCK` entries."""
    size = max(1, BLOCK // max(1, columns))
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def chunked_sum(function: Callable[..., torch.Tensor], rows: int, columns: int, *tensors: torch.Tensor) -> torch.Tensor:
    """Sum a function over blocks of rows; what is kept for the backward pass is the gradient of each tensor.

    Args:
        function: (block, *tensors) -> scalar, the share of the rows of `block` (a slice).
        rows, columns: N and M.
        *tensors: what the function reads, whole.
    """
    return _ChunkedSum.apply(function, row_blocks(rows, columns), *tensors)


class _ChunkedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, blocks, *tensors):
        wanted = [tensor for tensor, needed in zip(tensors, ctx.needs_input_grad[2:]) if needed]
        total, gradients = None, [torch.zeros_like(tensor) for tensor in wanted]
        with torch.autocast(tensors[0].device.type, enabled=False), torch.set_grad_enabled(bool(wanted)):
            inputs = [
                tensor.detach().requires_grad_(needed) for tensor, needed in zip(tensors, ctx.needs_input_grad[2:])
            ]
            leaves = [tensor for tensor in inputs if tensor.requires_grad]
            for block in blocks:
                share = function(block, *inputs)
                total = share.detach() if total is None else total + share.detach()
                if leaves:
                    parts = torch.autograd.grad(share, leaves, allow_unused=True)
                    for gradient, part in zip(gradients, parts):
                        if part is not None:
                            gradient += part
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        gradients = iter(ctx.saved_tensors)
        return None, None, *(next(gradients) * upstream if needed else None for needed in ctx.needs_input_grad[2:])


def log_sums(rows: torch.Tensor, columns: torch.Tensor, temperature: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-sums of exp(row . column / temperature): of each row over all columns (N,), and the other way round (M,).

    Args:
        rows, columns: (N, D) and (M, D).
        temperature: tau, of one element.
    """
    return _LogSums.apply(rows, columns, temperature)


class _LogSums(torch.autograd.Function):
    """One pass forward; the backward pass computes each block's scores again."""

    @staticmethod
    def forward(ctx, rows, columns, temperature):
        of_rows = rows.new_empty(len(rows))
        of_columns = rows.new_full((len(columns),), -torch.inf)
        with torch.autocast(rows.device.type, enabled=False):
            for block in row_blocks(len(rows), len(columns)):
                scores = rows[block] @ columns.t() / temperature
                of_rows[block] = scores.logsumexp(1)
                of_columns = torch.logaddexp(of_columns, scores.logsumexp(0))
        ctx.save_for_backward(rows, columns, temperature, of_rows, of_columns)
        return of_rows, of_columns

    @staticmethod
    @once_differentiable
    def backward(ctx, of_rows_gradient, of_columns_gradient):
        rows, columns, temperature, of_rows, of_columns = ctx.saved_tensors
        rows_gradient, columns_gradient = torch.empty_like(rows), torch.zeros_like(columns)
        temperature_gradient = torch.zeros_like(temperature)
        with torch.autocast(rows.device.type, enabled=False):
            for block in row_blocks(len(rows), len(columns)):
                scores = rows[block] @ columns.t() / temperature
                weights = (scores - of_rows[block, None]).exp_().mul_(of_rows_gradient[block, None])
                weights += (scores - of_columns).exp_().mul_(of_columns_gradient)  # d loss / d scores
                temperature_gradient -= (weights * scores).sum() / temperature
                weights /= temperature
                rows_gradient[block] = weights @ columns
                columns_gradient += weights.t() @ rows[block]
        return rows_gradient, columns_gradient, temperature_gradient


__all__ = ["chunked_sum", "log_sums", "row_blocks"]
