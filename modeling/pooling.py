"""GPO, the generalised pooling operator: a learned weighting of *sorted* features (Chen et al., CVPR 2021, eq. 3-6).

Shapes: B batch, N set size (image or text tokens, padded), D features, P width of the position encodings.
"""

import math
import re
import warnings
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

# cuDNN copies the weights of a GRU of 32 units to one place in each call, 25 kB; each call would say so.
warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk of memory")


def run_gru(
    inputs: torch.Tensor, w_ih: torch.Tensor, w_hh: torch.Tensor, b_ih: torch.Tensor, b_hh: torch.Tensor
) -> torch.Tensor:
    """Run one direction of a GRU over (B, N, P), left to right, from a zero state: (B, N, P)."""
    state = inputs.new_zeros(1, inputs.shape[0], w_hh.shape[1])
    # The second True is `train`: without it, cuDNN keeps nothing for the backward pass and refuses it. It changes no
    # value, because one layer has no dropout.
    with torch.autocast(inputs.device.type, enabled=False):  # on a GPU it would run in float16, whatever was asked for
        output, _ = torch.gru(inputs, state, [w_ih, w_hh, b_ih, b_hh], True, 1, 0.0, True, False, True)
    return output.contiguous()  # as the fake of the operator below says


def gru_gradients(
    gradient: torch.Tensor,
    inputs: torch.Tensor,
    w_ih: torch.Tensor,
    w_hh: torch.Tensor,
    b_ih: torch.Tensor,
    b_hh: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the inputs of `run_gru`, given that of its output (B, N, P); the recurrence runs again."""
    given = (inputs, w_ih, w_hh, b_ih, b_hh)
    stream = torch.cuda.current_stream(inputs.device) if inputs.is_cuda else None

    def differentiate() -> tuple[torch.Tensor, ...]:
        with torch.enable_grad(), torch.cuda.stream(stream):
            leaves = [x.detach().requires_grad_() for x in given]
            return torch.autograd.grad(run_gru(*leaves), leaves, gradient)

    with ThreadPoolExecutor(1) as other:  # in this thread, autograd is off: an operator has no graph
        first, second, third, fourth, fifth = other.submit(differentiate).result()
    return first.contiguous(), second.contiguous(), third.contiguous(), fourth.contiguous(), fifth.contiguous()


def _one_operator():
    """Register `run_gru` as one operator, and its backward pass as another.

    `torch.compile` would unroll either step by step, minutes for a picture's 197 tokens, or break the graph. This file
    may be imported under several names (installed, from the Hub), each with its own operators.
    """
    name = re.sub(r"\W", "_", __name__)
    operator = torch.library.custom_op(f"{name}::run_gru", run_gru, mutates_args=())
    operator.register_fake(lambda inputs, w_ih, w_hh, b_ih, b_hh: inputs.new_empty(*inputs.shape[:2], w_hh.shape[1]))
    gradients = torch.library.custom_op(f"{name}::gru_gradients", gru_gradients, mutates_args=())
    gradients.register_fake(lambda gradient, *given: tuple(x.new_empty(x.shape) for x in given))

    def backward(context, gradient):
        found = gradients(gradient.contiguous(), *context.saved_tensors)
        return tuple(x if need else None for x, need in zip(found, context.needs_input_grad))

    operator.register_autograd(backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))
    return operator


compiled_gru = _one_operator()


class RankGRU(nn.Module):
    """A bidirectional GRU of P inputs and P units whose weights have the names of `torch.nn.GRU`.

    `torch.nn.GRU` itself cannot be traced by `torch.compile`.
    """

    def __init__(self, width: int):
        super().__init__()
        bound = 1 / math.sqrt(width)
        for suffix in ("", "_reverse"):
            for name, shape in (
                ("weight_ih_l0", (3 * width, width)),
                ("weight_hh_l0", (3 * width, width)),
                ("bias_ih_l0", (3 * width,)),
                ("bias_hh_l0", (3 * width,)),
            ):
                self.register_parameter(name + suffix, nn.Parameter(torch.empty(shape).uniform_(-bound, bound)))
        self.width = width

    def forward(self, inputs: torch.Tensor, reverse: bool) -> torch.Tensor:
        """Run the weights of one direction over (B, N, P), left to right."""
        suffix = "_reverse" if reverse else ""
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        weights = [getattr(self, name + suffix) for name in names]
        run = compiled_gru if torch.compiler.is_compiling() else run_gru
        return run(inputs.to(weights[0].dtype), *weights)


class GPO(nn.Module):
    """Pool a padded set of vectors into one.

    The weights depend on the set's size alone: a bidirectional GRU reads sinusoidal encodings of the ranks 0..n-1, a
    linear layer scores each rank, and a softmax at a low temperature turns the scores into weights. Each feature is
    sorted separately, descending, before it is weighted, so the order of the set and its padding do not matter.

    Args:
        position_dim: P, even; also the GRU's width per direction.
        temperature: of the softmax over ranks.
    """

    def __init__(self, position_dim: int, temperature: float):
        super().__init__()
        self.position_dim = position_dim
        self.temperature = temperature
        self.gru = RankGRU(position_dim)
        self.score = nn.Linear(position_dim, 1, bias=False)

    def forward(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Pool `features` (B, N, D) under `mask` (B, N; non-zero = member; None = all) to (B, D)."""
        if mask is None:
            lengths = torch.full((1,), features.shape[1], device=features.device)  # one row serves the batch
        else:
            mask = mask.bool()
            lengths = mask.sum(1)  # (B,)
            features = features.masked_fill(~mask.unsqueeze(-1), torch.finfo(features.dtype).min)
        ranks = torch.arange(features.shape[1], device=features.device)
        outside = ranks >= lengths.unsqueeze(1)  # (B or 1, N)
        weights = self.weights(lengths, outside)  # (B or 1, N)
        ordered = features.sort(dim=1, descending=True).values  # (B, N, D), padding last
        ordered = ordered.masked_fill(outside.unsqueeze(-1), 0.0)  # 0 * finfo.min would spoil the gradient
        return (ordered * weights.to(ordered.dtype).unsqueeze(-1)).sum(1)

    def weights(self, lengths: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
        """Return the rank weights (B, N) of sets of the given `lengths` (B,); `outside` (B, N) marks the padding."""
        size = outside.shape[1]
        traced = torch.compiler.is_compiling()  # asked first: a comparison would fix the sizes
        if not traced and size < len(lengths):  # fewer lengths than sets: one row for each length
            every = torch.arange(1, size + 1, device=lengths.device)
            table = self.weights(every, torch.arange(size, device=lengths.device) >= every.unsqueeze(1))
            return table[(lengths - 1).clamp(min=0)]
        ranks = torch.arange(size, device=lengths.device)
        encoding = self._encoding(size, lengths.device)  # (N, P)
        # The forward direction sees ranks 0, 1, ..., the same for every length; the backward one starts at n - 1.
        forward_in = encoding.unsqueeze(0)
        reversal = (lengths.unsqueeze(1) - 1 - ranks).clamp(min=0)  # (B, N)
        backward_in = encoding[reversal]  # (B, N, P)
        forward_out = self.gru(forward_in, reverse=False)
        backward_out = self.gru(backward_in, reverse=True)
        index = reversal.unsqueeze(-1).expand(-1, -1, self.position_dim)
        hidden = (forward_out + backward_out.gather(1, index)) / 2
        scores = self.score(hidden).squeeze(-1).float() / self.temperature  # (B, N)
        return torch.softmax(scores.masked_fill(outside, torch.finfo(scores.dtype).min), dim=-1)

    def _encoding(self, size: int, device: torch.device) -> torch.Tensor:
        """Sinusoidal encodings of the ranks, (size, P); not a buffer, which would be lost on the device `meta`."""
        return sinusoid(torch.arange(size, device=device), self.position_dim)


def sinusoid(positions: torch.Tensor, width: int) -> torch.Tensor:
    """Interleaved sine and cosine of integer `positions` (...), giving (..., width); wavelengths up to 10000 * 2 pi."""
    rates = torch.exp(torch.arange(0, width, 2, device=positions.device) * (-math.log(10000.0) / width))
    angles = positions.unsqueeze(-1).float() * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


__all__ = ["GPO", "RankGRU", "sinusoid"]
