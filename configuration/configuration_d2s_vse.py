"""Configuration of D2S-VSE (Liu et al., ICCV 2025, arXiv 2503.14953)."""

from .configuration_dual_encoder import COUNT, COUNT_OR_ZERO, FLAG, POSITIVE, SHARE, DualEncoderConfig, one_of


class D2SVSEConfig(DualEncoderConfig):
    """Two towers with GPO pooling and, on the text side, a mask-token decoder.

    Everything of [`DualEncoderConfig`], and:

    Args:
        use_decoder: stage 1 (dense captions) and a plain dual encoder have no decoder; stage 2 has.
        num_mask_tokens: M, learned tokens in which the decoder writes what the caption leaves out. Paper: 100.
        decoder_layers, decoder_heads: depth and heads of the decoder. Paper: 4 and 4.
        decoder_mlp_ratio: width of the decoder's feed-forward layers as a multiple of `projection_dim`.
        token_placement: `prefix`, `postfix` or `surround` (half before, half after the caption). Self-attention knows
            no order, so placement is a no-op unless `decoder_positions` is on; the paper's ablation of it
            (81.7 / 82.0 / 82.8 R@1) can only be run-to-run noise, since its released code has no positions.
        decoder_positions: add sinusoidal positions before the decoder. Not in the paper; gives placement a meaning.
        residual: add the decoder's vector to the pooled caption (paper) instead of replacing it.
        pooling_dim: width of the GPO position encodings and of its GRU.
        pooling_temperature: softmax temperature of the GPO weights.
        text_dropout: dropout on the text tower's output.
        size_augmentation: in training, drop up to this share of an image's tokens at random (0 switches it off).
            The paper draws u ~ U(0, 1) per image and, where u > 0.2, drops each token with probability 0.2 u.

    `legacy=True` reproduces the official code: the decoder attends to padding, batch-norm
    statistics include padding, and the inference text vector is `t + l2(r)` although training used `t + r`; an online
    teacher follows the student into train mode. Gradient clipping before fp16 unscaling is not reproduced: it is a
    property of that training loop, not of the model.
    """

    model_type = "d2s_vse"
    rules = {
        **DualEncoderConfig.rules,
        "use_decoder": FLAG,
        "num_mask_tokens": COUNT_OR_ZERO,
        "decoder_layers": COUNT_OR_ZERO,
        "decoder_heads": COUNT_OR_ZERO,
        "decoder_mlp_ratio": POSITIVE,
        "token_placement": one_of("prefix", "postfix", "surround"),
        "decoder_positions": FLAG,
        "residual": FLAG,
        "pooling_dim": COUNT,
        "pooling_temperature": POSITIVE,
        "text_dropout": SHARE,
        "size_augmentation": SHARE,
    }

    def __init__(
        self,
        vision_config=None,
        text_config=None,
        use_decoder=True,
        num_mask_tokens=100,
        decoder_layers=4,
        decoder_heads=4,
        decoder_mlp_ratio=4.0,
        token_placement="postfix",
        decoder_positions=False,
        residual=True,
        pooling_dim=32,
        pooling_temperature=0.1,
        text_dropout=0.2,
        size_augmentation=0.2,
        **kwargs,
    ):
        self.use_decoder = use_decoder
        self.num_mask_tokens = num_mask_tokens
        self.decoder_layers = decoder_layers
        self.decoder_heads = decoder_heads
        self.decoder_mlp_ratio = decoder_mlp_ratio
        self.token_placement = token_placement
        self.decoder_positions = decoder_positions
        self.residual = residual
        self.pooling_dim = pooling_dim
        self.pooling_temperature = pooling_temperature
        self.text_dropout = text_dropout
        self.size_augmentation = size_augmentation
        super().__init__(vision_config=vision_config, text_config=text_config, **kwargs)
        self._check()

    def _check(self):
        if self.use_decoder and min(self.num_mask_tokens, self.decoder_layers, self.decoder_heads) < 1:
            raise ValueError(
                "num_mask_tokens, decoder_layers and decoder_heads must be positive, got "
                f"{self.num_mask_tokens}, {self.decoder_layers}, {self.decoder_heads}; use_decoder=False has no decoder"
            )
        if self.use_decoder and self.projection_dim % self.decoder_heads:
            raise ValueError(f"decoder_heads={self.decoder_heads} does not divide projection_dim={self.projection_dim}")
        if self.use_decoder and self.projection_dim * self.decoder_mlp_ratio < 1:
            raise ValueError(f"decoder_mlp_ratio={self.decoder_mlp_ratio} leaves the decoder's layers no unit")
        if self.pooling_dim % 2:
            raise ValueError(f"pooling_dim must be even, got {self.pooling_dim}")


__all__ = ["D2SVSEConfig"]
