"""Gradient caching: a step on a large batch in the memory of a chunk (Gao et al., RepL4NLP 2021).

1. Chunk by chunk, the model embeds the batch without a graph.
2. The objective sees the vectors of the whole batch and gives their gradients.
3. Chunk by chunk, the model runs again, with the same random draws, and passes the gradients on to its weights.

Gradients are those of a step on the whole batch at once. The batch-norm of D2S-VSE's text head is no exception: see
`NormalisedTexts`. The model is called without its DistributedDataParallel wrapper, so gradients are averaged over
processes at the end (`average_gradients`).

Shapes: B pairs of a process, L text tokens, C tower channels, D shared space, F features of the batch-norm.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import distributed as dist
from torch import nn

from ..modeling.modeling_d2s_vse import D2SVSEModel, MaskedBatchNorm1d
from ..modeling.modeling_dual_encoder import DualEncoderPreTrainedModel
from .inputs.batches import PairBatch

IMAGE_INPUTS = ("pixel_values", "vision_hidden_states", "scene_states")
TEXT_INPUTS = ("input_ids", "text_hidden_states", "attention_mask")


class GradientCache:
    """Embeds batches chunk by chunk.

    Args:
        model: to train; with adapters, what `get_base_model` gives.
        chunk_size: pairs that go through the model at once.
        autocast: makes the context of mixed precision.
    """

    def __init__(
        self,
        model: DualEncoderPreTrainedModel,
        chunk_size: int,
        autocast: Callable[[], AbstractContextManager] = contextlib.nullcontext,
    ):
        self.model, self.chunk_size, self.autocast = model, chunk_size, autocast
        self.sides: list[Side] = []

    def embed(self, batch: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors of images and texts before normalisation, (B, D) each: leaves that a loss is to differentiate.

        Raises:
            ValueError: a batch-norm that would take its statistics from a chunk.
        """
        _check_batch_norms(self.model)
        chunks = [batch.rows(start, start + self.chunk_size) for start in range(0, len(batch), self.chunk_size)]
        image = Side(self._image_vectors, chunks, self.autocast, self.model.device)
        if isinstance(self.model, D2SVSEModel):
            text: Side = NormalisedTexts(self.model, chunks, self.autocast)
        else:
            text = Side(self._text_vectors, chunks, self.autocast, self.model.device)
        self.sides = [image, text]
        return image.embed(), text.embed()

    def backward(self):
        """Pass the gradients of the vectors on to the weights, after the loss has been differentiated."""
        for side in self.sides:
            side.backward()
        self.sides = []

    def _image_vectors(self, chunk: PairBatch) -> torch.Tensor:
        inputs = {name: chunk[name] for name in IMAGE_INPUTS if name in chunk}
        return self.model.get_image_features(**inputs).pooler_output

    def _text_vectors(self, chunk: PairBatch) -> torch.Tensor:
        inputs = {name: chunk[name] for name in TEXT_INPUTS if name in chunk}
        return self.model.get_text_features(**inputs).pooler_output


class Side:
    """One modality of a batch.

    Args:
        forward: a chunk on the device to its vectors (b, D).
        chunks: of the batch.
        autocast: makes the context of mixed precision.
        device: of the model.
    """

    def __init__(
        self,
        forward: Callable[[PairBatch], torch.Tensor],
        chunks: list[PairBatch],
        autocast: Callable[[], AbstractContextManager],
        device: torch.device,
    ):
        self.forward, self.chunks, self.autocast, self.device = forward, chunks, autocast, device
        self.draws: list[Draws] = []
        self.vectors: torch.Tensor | None = None

    def embed(self) -> torch.Tensor:
        """Vectors (B, D) of the batch: a leaf."""
        parts = []
        for chunk in self.chunks:
            self.draws.append(Draws(self.device))
            with torch.no_grad(), self.autocast():
                parts.append(self.forward(chunk.to(self.device)).float())
        self.vectors = torch.cat(parts).requires_grad_()
        return self.vectors

    def backward(self):
        """Run each chunk again, with a graph."""
        for chunk, draws, gradient in zip(self.chunks, self.draws, self.gradients()):
            with draws.again(), self.autocast():
                vectors = self.forward(chunk.to(self.device)).float()
            if vectors.requires_grad:
                vectors.backward(gradient)

    def gradients(self) -> tuple[torch.Tensor, ...]:
        """The gradients of the chunks' vectors, (b, D) each; zeros where the loss does not depend on them."""
        gradient = torch.zeros_like(self.vectors) if self.vectors.grad is None else self.vectors.grad
        return gradient.split([len(chunk) for chunk in self.chunks])


class NormalisedTexts(Side):
    """The texts of D2S-VSE, whose head has one batch-norm: statistics are those of the global batch, and exact.

    What the text tower gives for the whole batch is kept, (B, L, C), and its gradients. Over it the head runs chunk by
    chunk with the statistics as given numbers, which collect gradients from all chunks and processes; those reach the
    features f of n tokens as (g_mean + 2 (f - mean) g_variance) / n, and only then the tower runs again.
    """

    def __init__(self, model: D2SVSEModel, chunks: list[PairBatch], autocast: Callable[[], AbstractContextManager]):
        super().__init__(self._hidden, chunks, autocast, model.device)
        self.model, self.head = model, model.text_head
        self.norm: MaskedBatchNorm1d = self.head.norm
        self.hidden: list[torch.Tensor] = []
        self.moments: tuple[torch.Tensor, torch.Tensor] | None = None
        self.count: torch.Tensor | None = None  # tokens of the global batch
        self.head_draws: list[Draws] = []
        self.tower_learns = any(parameter.requires_grad for parameter in model.text_model.parameters())

    def embed(self) -> torch.Tensor:
        """Vectors (B, D) of the batch: a leaf."""
        with torch.no_grad():
            for chunk in self.chunks:
                self.draws.append(Draws(self.device))
                with self.autocast():
                    self.hidden.append(self.forward(chunk.to(self.device)))
            self.moments, self.count = self._measure()
            parts = [self._pool(index) for index in range(len(self.chunks))]
        self.vectors = torch.cat(parts).requires_grad_()
        self.norm.moments = None
        return self.vectors

    def backward(self):
        """Backward through the head, the statistics, the tower."""
        self.norm.moments = self.moments
        for index, gradient in enumerate(self.gradients()):
            self.hidden[index].requires_grad_(self.tower_learns)
            vectors = self._pool(index)
            if vectors.requires_grad:
                vectors.backward(gradient)
        self.norm.moments = None
        slopes = self._slopes()
        for index, draws in enumerate(self.draws):
            self._backward_of_statistics(index, *slopes)
            if self.tower_learns:
                with draws.again(), self.autocast():
                    hidden = self.forward(self.chunks[index].to(self.device))
                hidden.backward(self.hidden[index].grad)
            self.hidden[index] = torch.empty(0)  # frees it

    def _hidden(self, chunk: PairBatch) -> torch.Tensor:
        if "text_hidden_states" in chunk:
            return chunk.text_hidden_states
        return self.model.text_states(chunk.input_ids, chunk.attention_mask)

    def _pool(self, index: int) -> torch.Tensor:
        mask = self.chunks[index].attention_mask.to(self.device)
        with self.head_draws[index].again(), self.autocast():
            return self.model.pool_text(self.hidden[index], mask).float()

    def _features(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What the batch-norm sees of a chunk, (b L, F), and which of these tokens count, (b L, 1)."""
        with self.autocast():
            inner = self.head.fc1(self.head.dropout(self.hidden[index].to(self.head.fc1.weight.dtype))).float()
        mask = self.head.counted(self.chunks[index].attention_mask.to(self.device))
        flat = inner.reshape(-1, inner.shape[-1])
        return flat, torch.ones_like(flat[:, :1]) if mask is None else mask.reshape(-1, 1).float()

    def _measure(self) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Statistics of the global batch from those of all chunks (Chan et al., 1979): no digits are lost."""
        parts = []
        for index in range(len(self.chunks)):
            self.head_draws.append(Draws(self.device))
            flat, valid = self._features(index)
            count = valid.sum()
            mean = (flat * valid).sum(0) / count
            squares = ((flat - mean).square() * valid).sum(0)
            parts.append(torch.cat([count[None], mean, squares]))
        table = _stacked_over_processes(torch.stack(parts))  # (chunks, 1 + 2 F)
        counts, means, squares = table.split([1, *[self.norm.num_features] * 2], dim=1)
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        variance = (squares + counts * (means - mean).square()).sum(0) / total
        self.norm.track(mean, variance, total)
        self.norm.moments = mean.requires_grad_(), variance.requires_grad_()
        return self.norm.moments, total

    def _slopes(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of the mean and of the variance, (F,) each, over all processes."""
        slopes = torch.stack([moment.grad for moment in self.moments])
        if _processes() > 1:
            dist.all_reduce(slopes)
        return slopes[0], slopes[1]

    def _backward_of_statistics(self, index: int, of_mean: torch.Tensor, of_variance: torch.Tensor):
        with self.head_draws[index].again():
            flat, valid = self._features(index)
        if flat.requires_grad:
            mean = self.moments[0].detach()
            flat.backward(valid * (of_mean + 2 * (flat.detach() - mean) * of_variance) / self.count)


class Draws:
    """The state of the random generators, to draw the same numbers again."""

    def __init__(self, device: torch.device):
        self.device = device
        self.host = torch.get_rng_state()
        self.own = None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """Draw as then inside; afterwards the generators go on as if nothing had been drawn."""
        if self.own is None:
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(self.host)
                yield
            return
        with torch.random.fork_rng(devices=[self.device], device_type=self.device.type):
            torch.set_rng_state(self.host)
            torch.get_device_module(self.device).set_rng_state(self.own, self.device)
            yield


def average_gradients(parameters: Iterator[nn.Parameter]):
    """Replace gradients by their means over processes, as DistributedDataParallel would."""
    if _processes() == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= _processes()


def _check_batch_norms(model: nn.Module):
    for name, module in model.named_modules():
        is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, MaskedBatchNorm1d)
        if is_norm and module.training:
            raise ValueError(
                f"--chunk_size: the batch-norm {name} would take its statistics from a chunk; set "
                "--freeze_vision_batch_norm True, or leave --chunk_size out"
            )


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _stacked_over_processes(rows: torch.Tensor) -> torch.Tensor:
    if _processes() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(_processes())]
    dist.all_gather(parts, rows)
    return torch.cat(parts)


__all__ = ["GradientCache", "average_gradients"]
