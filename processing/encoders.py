"""One interface for every image-text model: pictures and texts to unit vectors of one space.

Search and evaluation know nothing else of a model. `load_encoder.py` says which models there are.
"""

import copy
import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch.nn import functional as F

from ..files.digests import fingerprint
from ..modeling.modeling_dual_encoder import (
    TOKENIZING,
    DualEncoderOutput,
    DualEncoderPreTrainedModel,
    checked_images,
    checked_texts,
    eval_mode,
    warn_of_cuts,
)
from .batching import batches_of, by_length, run_batches
from .pixels import to_rgb
from .processing_dual_encoder import text_positions

logger = logging.getLogger(__name__)

KINDS = "D2S-VSE, PIR, CLIP, SigLIP, SigLIP 2, ALIGN, or a sentence-transformers model of images and texts"


class Encoder:
    """A dual encoder and its processor.

    Args:
        model: with `get_image_features` and `get_text_features`; None where only texts are to be measured.
        processor: with an image processor and a tokenizer.
        name: how errors call the model.
        config: of the model, where there is no model.

    Attributes:
        text_limit: number of tokens of a text that are read; None if there is no limit.
        config: of the model; None where it has none.
        width: how many numbers of each vector are kept, see `with_width`; None: all.
    """

    width: int | None = None
    config: Any = None

    def __init__(self, model, processor, name: str = "", config=None):
        self.model, self.processor = model, processor
        self.name = name or type(model).__name__
        self.config = config or getattr(model, "config", None)
        self._settings = _text_settings(processor, self.config)
        self.text_limit: int | None = self._settings.get("max_length")
        if model is not None:
            self.eval()

    def eval(self):
        """Put the model in eval mode."""
        self.model.eval()
        return self

    def to(self, device: torch.device | str):
        """Move the model to a device."""
        self.model.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where inputs go: of weights that accelerate offloaded to `meta`, the CPU, from where it moves inputs on."""
        device = self.model.device
        return torch.device("cpu") if device.type == "meta" else device

    @property
    def tokenizer(self):
        """Of the texts."""
        return self.processor.tokenizer

    @cached_property
    def dimension(self) -> int:
        """Number of numbers of a vector."""
        if isinstance(self.model, DualEncoderPreTrainedModel):
            return self.model.config.projection_dim
        return self.encode_text(["a"]).shape[1]

    @property
    def means(self) -> dict[str, torch.Tensor] | None:
        """Mean unit vectors (D,) of the `image`s and `text`s of the training data; None where they are not known.

        They are those of whole vectors: an encoder that keeps fewer numbers has none.
        """
        means = {kind: getattr(self.config, f"{kind}_embeds_mean", None) for kind in ("image", "text")}
        if self.width is not None or None in means.values():
            return None
        return {kind: torch.tensor(mean, dtype=torch.float32, device="cpu") for kind, mean in means.items()}

    @property
    def text_cutoff(self) -> float | None:
        """The model's default for the minimum cosine of a search by text; None where it has none.

        It was measured with whole vectors: an encoder that keeps fewer numbers has none.
        """
        facts = getattr(self.config, "text_cutoff", None)
        return facts.get("cosine") if self.width is None and isinstance(facts, dict) else None

    @property
    def nested_widths(self) -> tuple[int, ...]:
        """The widths, below the whole one, that the model was trained for (`--matryoshka`)."""
        return tuple(getattr(self.config, "matryoshka", None) or ())

    def with_width(self, width: int | None) -> "Encoder":
        """An encoder of the same model that keeps the first numbers of each vector, normalised again.

        Args:
            width: how many; None or the whole width gives this encoder. A width that the model was not trained for
                is warned of.

        Raises:
            ValueError: more than there are, or this encoder keeps fewer already.
        """
        if width is None or width == self.dimension:
            return self
        if not 1 <= width < self.dimension:
            raise ValueError(f"{self.name}: its embeddings have {self.dimension} numbers, fewer than --width {width}")
        self.warn_of_width(width)
        narrow = copy.copy(self)
        narrow.width = narrow.dimension = width
        narrow.identity = {**self.identity, "width": width}
        return narrow

    def warn_of_width(self, width: int):
        """Log it where the model was not trained for a width below the whole one."""
        if width not in self.nested_widths:
            trained = ", ".join(map(str, self.nested_widths)) or "none below the whole one"
            logger.warning("%s was not trained for width %d (%s): expect lower recall", self.name, width, trained)

    def image_inputs(self, images: Sequence[Any]) -> dict[str, Any]:
        """Prepare RGB PIL images, as the model's own processor does."""
        return dict(self.processor(images=list(images), return_tensors="pt"))

    def pixel_inputs(self, pixel_values: torch.Tensor) -> dict[str, Any]:
        """Inputs of pictures (B, 3, H, W) that were prepared in another way."""
        return {"pixel_values": pixel_values}

    def text_inputs(self, texts: Sequence[str]) -> dict[str, Any]:
        """Prepare texts, padded as the model was trained, cut at `text_limit`."""
        return dict(self.processor(text=list(texts), return_tensors="pt", **self._settings))

    def features(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Vectors (N, D) of prepared pictures or texts on the model's device, of any length."""
        encode = self.model.get_image_features if "pixel_values" in inputs else self.model.get_text_features
        features = encode(**inputs)
        return features if torch.is_tensor(features) else features.pooler_output  # transformers 5.0 returns the tensor

    def __call__(self, **inputs) -> DualEncoderOutput:
        """Embed prepared pictures or texts: `image_embeds` or `text_embeds`, unit vectors (N, D) in float32.

        Raises:
            ValueError: the model has no single vector for a picture or text.
        """
        kind = "image" if "pixel_values" in inputs else "text"
        dtype = self.model.dtype
        floats = {name: value.to(dtype) for name, value in inputs.items() if _is_float(value)}
        with eval_mode(self.model):
            features = self.features(inputs | floats)
        if features.dim() != 2:
            raise ValueError(
                f"{self.name}: its features of {kind}s have the shape {tuple(features.shape)}, which is not one vector "
                f"for each: take a dual encoder ({KINDS})"
            )
        features = features.float()[:, : self.width]
        return DualEncoderOutput(**{f"{kind}_embeds": F.normalize(features, dim=-1)})

    def encode_image(self, images, batch_size: int = 32) -> torch.Tensor:
        """Embed PIL images: unit vectors (N, D), float32 on the CPU.

        Raises:
            TypeError: something else than PIL images. A string is never opened as a path or an address.
        """
        images = [to_rgb(image) for image in checked_images(images)]
        return self._encode(range(len(images)), batch_size, lambda rows: self.image_inputs([images[r] for r in rows]))

    def encode_text(self, texts, batch_size: int = 64) -> torch.Tensor:
        """Embed texts: unit vectors (N, D), float32 on the CPU, in their order. Texts that are cut are counted.

        Raises:
            TypeError: something else than strings.
            ValueError: a text that is empty or no Unicode.
        """
        texts = checked_texts(texts)
        self.warn_of_cuts(texts)
        return self._encode(by_length(texts), batch_size, lambda rows: self._tokenized([texts[r] for r in rows]))

    def _tokenized(self, texts: list[str]) -> dict[str, Any]:
        with TOKENIZING:
            return self.text_inputs(texts)

    def warn_of_cuts(self, texts: list[str]):
        """Log how many texts are longer than the model reads, if any is."""
        if self.text_limit is not None:
            with TOKENIZING:
                warn_of_cuts(texts, self.tokenizer, self.text_limit)

    def _encode(self, order: Sequence[int], batch_size: int, prepare) -> torch.Tensor:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if not order:
            return torch.empty(0, self.dimension, dtype=torch.float32, device="cpu")
        rows: list[int] = []
        parts = []
        for batch, output in run_batches(
            batches_of(order, batch_size), prepare, lambda inputs: self(**inputs), self.device
        ):
            rows += batch
            parts.append((output.image_embeds if output.text_embeds is None else output.text_embeds).cpu())
        return torch.cat(parts)[torch.tensor(rows, device="cpu").argsort()]

    @cached_property
    def identity(self) -> dict:
        """The `files.digests.fingerprint` of the model, and `width` where fewer numbers are kept."""
        return fingerprint(getattr(self.model, "_orig_mod", self.model))  # compiled, its weights have other names


def truncated(vectors: torch.Tensor, width: int | None) -> torch.Tensor:
    """The first numbers of vectors (N, D), normalised again: (N, width); None takes all.

    Raises:
        ValueError: vectors with fewer numbers.
    """
    if width is None:
        return vectors
    if not 1 <= width <= vectors.shape[-1]:
        raise ValueError(f"width {width}: these embeddings have {vectors.shape[-1]} numbers; name at most so many")
    return F.normalize(vectors[..., :width], dim=-1)


def _text_settings(processor, config) -> dict[str, Any]:
    """How texts are padded and cut: arguments of a call of the processor.

    The padding is the processor's own; SigLIP was trained on texts that are all padded to one length, without a mask.
    """
    own = getattr(processor, "text_kwargs", None)  # transformers 5.0 has them elsewhere
    own = own or getattr(getattr(processor, "valid_processor_kwargs", None), "_defaults", {}).get("text_kwargs", {})
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None:
        return {}
    limits = [tokenizer.model_max_length, tokenizer.init_kwargs.get("max_length"), own.get("max_length")]
    limits.append(text_positions(config) if config is not None else None)
    limit = min((limit for limit in limits if limit and limit < 1e9), default=None)  # a tokenizer's "none" is 1e30
    siglip = config is not None and config.get_text_config().model_type.startswith("siglip")
    padding = "max_length" if siglip else own.get("padding", True)
    if limit is None:
        return {"padding": True}
    return {"padding": padding, "truncation": True, "max_length": limit}


def _is_float(value) -> bool:
    return torch.is_tensor(value) and value.is_floating_point()


__all__ = ["KINDS", "Encoder", "truncated"]
