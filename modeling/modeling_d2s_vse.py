"""D2S-VSE: dense-to-sparse distilled visual-semantic embeddings (Liu et al., ICCV 2025, arXiv 2503.14953).

Notable:
- both sides pool with GPO, a learned weighting of *sorted* features (Chen et al., CVPR 2021);
- a mask-token decoder predicts from a short caption what a dense caption would add, and adds it to the caption;
- one residual formula, `l2(t + r)`, in training and inference; padding never reaches an embedding. The official code
  does otherwise in both: see `legacy` in [`D2SVSEConfig`].

Shapes: B batch, N image tokens, L text tokens, C tower channels, D shared space, M mask tokens.
"""

import math
from typing import NamedTuple

import torch
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from ..configuration.configuration_d2s_vse import D2SVSEConfig
from .modeling_dual_encoder import DualEncoderPreTrainedModel
from .pooling import GPO, RankGRU, sinusoid
from .towers import build_tower


class TextParts(NamedTuple):
    """Intermediate results of the text side."""

    words: torch.Tensor  # (B, L, D) word features
    pooled: torch.Tensor  # (B, D) t, pooled and layer-normalised
    decoded: torch.Tensor | None  # (B, D) r, the mask tokens' mean; None without a decoder


class MaskedBatchNorm1d(nn.BatchNorm1d):
    """Batch normalisation over the real tokens of the *global* batch.

    Otherwise padding would change the statistics, and an embedding would depend on the lengths of the other texts in
    its batch. Across processes, sum, square sum and count are reduced with gradients, so that two processes compute
    what one would (`SyncBatchNorm` does so on GPUs only).

    `moments` are the mean and the variance, (F,) each, of a batch that is embedded in chunks; None: of what is given.
    """

    moments: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Normalise `features` (B, L, F); statistics come from where `mask` (B, L) is non-zero, or everywhere."""
        if not self.training:
            scale = self.weight * torch.rsqrt(self.running_var + self.eps)
            return features * scale + (self.bias - self.running_mean * scale)
        mean, variance = self._moments(features, mask) if self.moments is None else self.moments
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return ((features - mean) * scale + self.bias).to(features.dtype)

    def _moments(self, features: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance (F,) of the global batch, which the running statistics follow."""
        flat = features.reshape(-1, features.shape[-1]).float()
        valid = torch.ones_like(flat[:, :1]) if mask is None else mask.reshape(-1, 1).to(flat.dtype)
        shared = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        # Around the mean (a constant, the same on every process): E[x^2] - E[x]^2 loses digits when the mean is large.
        shift = torch.cat([(flat.detach() * valid).sum(0), valid.sum(0)])
        if shared:
            dist.all_reduce(shift)
        shift = shift[:-1] / shift[-1]
        centred = (flat - shift) * valid
        sums = torch.cat([centred.sum(0), (centred * centred).sum(0), valid.sum(0)])
        if shared:
            from torch.distributed.nn.functional import all_reduce  # absent from builds without distributed

            sums = all_reduce(sums)
        total, squares, count = sums[: self.num_features], sums[self.num_features : -1], sums[-1]
        mean = total / count
        variance = (squares / count - mean * mean).clamp(min=0)
        self.track(mean.detach() + shift, variance.detach(), count.detach())
        return mean + shift, variance

    @torch.no_grad()
    def track(self, mean: torch.Tensor, variance: torch.Tensor, count: torch.Tensor):
        """Let the running statistics follow those of a batch of `count` tokens."""
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)


class TextHead(nn.Module):
    """Project tower features to the shared space: a linear layer plus a two-layer perceptron with batch-norm."""

    def __init__(self, config: D2SVSEConfig):
        super().__init__()
        width, dim = config.text_config.hidden_size, config.projection_dim
        self.legacy = config.legacy
        self.dropout = nn.Dropout(config.text_dropout)
        self.linear = nn.Linear(width, dim)
        self.fc1 = nn.Linear(width, dim // 2)
        self.norm = MaskedBatchNorm1d(dim // 2)
        self.fc2 = nn.Linear(dim // 2, dim)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map (B, L, C) to word features (B, L, D)."""
        hidden = self.dropout(hidden)
        inner = self.norm(self.fc1(hidden), self.counted(mask))
        return self.linear(hidden) + self.fc2(F.relu(inner))

    def counted(self, mask: torch.Tensor) -> torch.Tensor | None:
        """The tokens (B, L) that enter the statistics; None: all, as in the official code."""
        return None if self.legacy else mask


class DecoderLayer(nn.Module):
    """A pre-norm transformer layer: self-attention with a key mask, then a GELU feed-forward."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, int(dim * mlp_ratio))
        self.fc2 = nn.Linear(int(dim * mlp_ratio), dim)

    def forward(
        self, hidden: torch.Tensor, mask: torch.Tensor | None, shared: torch.Tensor | None = None, start: int = 0
    ) -> torch.Tensor:
        """Map (B, S, D) to (B, S, D).

        Args:
            hidden: (B, S, D); with `shared`, its first rows.
            mask: (B, 1, 1, S), True where a token may be attended to.
            shared: (M, D), further rows that every sequence has: they are projected once.
            start: the first row whose result is wanted; the others are only attended to.
        """
        qkv = self.qkv(self.norm1(hidden))
        if shared is not None:
            of_shared = self.qkv(self.norm1(shared))
            qkv, hidden = (
                torch.cat([own, common.expand(own.shape[0], -1, -1)], dim=1)
                for own, common in ((qkv, of_shared), (hidden, shared))
            )
        batch, size, dim = hidden.shape
        query, key, value = qkv.view(batch, size, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        query, hidden = query[:, :, start:], hidden[:, start:]  # (B, heads, S - start, D / heads)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        hidden = hidden + self.proj(attended.transpose(1, 2).flatten(2))
        return hidden + self.fc2(F.gelu(self.fc1(self.norm2(hidden))))


class MaskTokenDecoder(nn.Module):
    """M learned tokens attend to a caption's words and to each other; the result is their mean (paper, section 3.3).

    The sequence is always [words ; mask tokens]. Attention ignores order, so `token_placement` only decides which
    positions are added with `decoder_positions`. Positions count real words only, so padding changes nothing.
    """

    def __init__(self, config: D2SVSEConfig):
        super().__init__()
        dim = config.projection_dim
        self.mask_tokens = nn.Parameter(torch.empty(config.num_mask_tokens, dim))
        self.layers = nn.ModuleList(
            DecoderLayer(dim, config.decoder_heads, config.decoder_mlp_ratio) for _ in range(config.decoder_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.positions = config.decoder_positions
        self.num_before = {"prefix": config.num_mask_tokens, "postfix": 0}.get(
            config.token_placement, config.num_mask_tokens // 2
        )

    def forward(self, words: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Decode word features (B, L, D) under `mask` (B, L; None = attend to padding too) to (B, D)."""
        length, last = words.shape[1], len(self.layers) - 1
        tokens = self.mask_tokens.to(words.dtype)
        hidden, shared = words, tokens  # to be joined to (B, L + M, D) by the first layer
        if self.positions:  # then a mask token differs from caption to caption
            hidden, shared = torch.cat([words, tokens.expand(words.shape[0], -1, -1)], dim=1), None
            hidden = hidden + sinusoid(self._positions(words, mask), hidden.shape[-1]).to(hidden.dtype)
        if mask is not None:
            mask = F.pad(mask.bool(), (0, len(tokens)), value=True)[:, None, None, :]
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden, mask, shared if number == 0 else None, length if number == last else 0)
        return self.norm(hidden).mean(1)

    def _positions(self, words: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Positions (B, L + M) in the sequence that the placement describes, as if no caption were padded."""
        mask = words.new_ones(words.shape[:2]) if mask is None else mask
        of_words = (mask.long().cumsum(1) - 1).clamp(min=0) + self.num_before
        tokens = torch.arange(self.mask_tokens.shape[0], device=words.device)
        after = tokens + mask.long().sum(1, keepdim=True)  # (B, M)
        of_tokens = torch.where(tokens < self.num_before, tokens, after)
        return torch.cat([of_words, of_tokens], dim=1)


class D2SVSEModel(DualEncoderPreTrainedModel):
    """Image-text dual encoder; with `config.use_decoder=False` the plain encoder of stage 1.

    Example:
        >>> from transformers import BertConfig, ViTConfig
        >>> tiny = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
        >>> config = D2SVSEConfig.from_vision_text_configs(
        ...     ViTConfig(image_size=32, **tiny), BertConfig(vocab_size=50, **tiny), projection_dim=16,
        ...     num_mask_tokens=4,
        ... )
        >>> model = D2SVSEModel(config).eval()
        >>> model(input_ids=torch.tensor([[2, 7, 3]]), pixel_values=torch.zeros(2, 3, 32, 32)).logits_per_image.shape
        torch.Size([2, 1])
    """

    config_class = D2SVSEConfig
    config: D2SVSEConfig
    _no_split_modules = ["DecoderLayer", "GPO"]

    def __init__(self, config: D2SVSEConfig):
        super().__init__(config)
        self.vision_model = build_tower(config.vision_config)
        self.image_projection = nn.Linear(config.vision_width, config.projection_dim)
        self.image_pooling = GPO(config.pooling_dim, config.pooling_temperature)
        self.text_model = build_tower(config.text_config)
        self.text_head = TextHead(config)
        self.text_pooling = GPO(config.pooling_dim, config.pooling_temperature)
        self.text_norm = nn.LayerNorm(config.projection_dim)
        self.mask_token_decoder = MaskTokenDecoder(config) if config.use_decoder else None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, MaskTokenDecoder):
            init.normal_(module.mask_tokens)
        if isinstance(module, RankGRU):
            for parameter in module.parameters():
                init.uniform_(parameter, -1 / math.sqrt(module.width), 1 / math.sqrt(module.width))
        if module is self.image_projection:
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)

    def pool_image(self, hidden: torch.Tensor, pixel_values: torch.Tensor | None) -> torch.Tensor:
        """Project and pool the vision tower's hidden states: (B, N, C) to (B, D)."""
        tokens = self.image_projection(hidden.to(self.image_projection.weight.dtype))
        return self.image_pooling(tokens, self._surviving(tokens))

    def pool_text(self, hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Run the text side above the tower: (B, L, C) to (B, D)."""
        return self._combine(self.text_parts(hidden, attention_mask))

    def text_parts(self, hidden: torch.Tensor, attention_mask: torch.Tensor) -> TextParts:
        """Run the text side above the tower: hidden states (B, L, C) to word features, `t` and `r`."""
        words = self.text_head(hidden.to(self.text_head.linear.weight.dtype), attention_mask)
        groups = self.length_groups(attention_mask)
        pooled = self.text_norm(groups.vectors(self.text_pooling, words, attention_mask))
        if self.mask_token_decoder is None:
            return TextParts(words, pooled, None)
        if self.config.legacy:
            return TextParts(words, pooled, self.mask_token_decoder(words, None))
        return TextParts(words, pooled, groups.vectors(self.mask_token_decoder, words, attention_mask))

    def _combine(self, parts: TextParts) -> torch.Tensor:
        """Add the decoder's vector to the pooled caption (paper, eq. 5)."""
        if parts.decoded is None:
            return parts.pooled
        decoded = parts.decoded
        if self.config.legacy and not self.training:
            decoded = F.normalize(decoded, dim=-1)  # the official inference path only; shrinks r to 1/22 of t
        return parts.pooled + decoded if self.config.residual else decoded

    def _surviving(self, tokens: torch.Tensor) -> torch.Tensor | None:
        """Size augmentation: which tokens (B, N) are pooled. None, meaning all, outside training.

        Each image draws a strength of its own; up to 0.2 it keeps all its tokens. See `size_augmentation` in the
        configuration.
        """
        rate = self.config.size_augmentation
        if not self.training or not rate:
            return None
        strength = torch.rand(tokens.shape[0], 1, device=tokens.device)
        rates = torch.where(strength > 0.2, rate * strength, 0.0)
        keep = torch.rand(tokens.shape[:2], device=tokens.device) >= rates
        return keep | ~keep.any(1, keepdim=True)  # an image that lost every token keeps them all


__all__ = ["D2SVSEModel"]
