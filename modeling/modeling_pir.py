"""PIR: prior instruction representation for remote-sensing retrieval (Pan, Ma, Bai, ACM Multimedia 2023).

Notable:
- a frozen scene encoder gives one instruction vector per image; its dot products with the image tokens are the belief,
  which decides which tokens are kept and which one is read out (VIR);
- a text attends to itself in several cycles, each with its own layer (LCA);
- both sides add their local vector to their class token: `l2(cls + local)`;
- padding never reaches an embedding and tokens are sorted by logits. The official code does otherwise in both: see
  `legacy` in [`PIRConfig`].

Shapes: B images, T texts, N image tokens with the class token first, K kept tokens, L text tokens, C tower channels,
D shared space.
"""

from typing import NamedTuple

import torch
from torch import nn
from transformers import initialization as init

from ..configuration.configuration_pir import PIRConfig
from .modeling_dual_encoder import DualEncoderPreTrainedModel
from .tel import TEL, row_at
from .tower_probe import TextProbe, VisionProbe, probe_vision
from .towers import build_tower, copy_tower, image_tokens, load_tower


class ImageParts(NamedTuple):
    """Intermediate results of the image side."""

    tokens: torch.Tensor  # (B, N, D) projected tokens, the class token first
    instruction: torch.Tensor | None  # (B, D) u; None without an instruction encoder
    belief_logits: torch.Tensor | None  # (B, N) tokens . u
    local: torch.Tensor | None  # (B, D) what is added to the class token; None without TELs


class VisualInstruction(nn.Module):
    """VIR (section 3.2): TELs query the most believed tokens with the instruction, and one vector is read out."""

    def __init__(self, config: PIRConfig):
        super().__init__()
        dim = config.projection_dim
        self.filter_size, self.soft, self.legacy = config.filter_size, config.belief == "soft", config.legacy
        self.maps = nn.ModuleList(nn.Linear(dim, dim) for _ in range(config.instruction_layers))
        self.layers = nn.ModuleList(_tel(config) for _ in range(config.instruction_layers))
        self.head = nn.Linear(dim, dim)

    def forward(self, tokens: torch.Tensor, instruction: torch.Tensor | None):
        """Map tokens (B, N, D) and instruction (B, D) to the local vector (B, D) and the belief logits (B, N)."""
        first = torch.zeros_like(tokens[:, 0, 0], dtype=torch.long)
        if instruction is None:  # the image's own tokens are the queries: no token is filtered, the class token is read
            return self.head(run_layers(self, tokens, place=first)[:, 0]), None
        logits = torch.einsum("bnd,bd->bn", tokens, instruction)
        kept, weights = self._believed(tokens, logits)
        hidden = run_layers(self, kept, instruction[:, None], place=first if weights is None else None)
        read = hidden[:, 0] if weights is None else (weights[..., None] * hidden).sum(1)
        return self.head(read), logits

    def _believed(self, tokens, logits):
        """The K most believed tokens in falling order and, for the soft belief, their weights (B, K) that sum to 1."""
        keys = logits.softmax(-1) if self.legacy else logits
        best = keys.sort(dim=-1, descending=True).indices[:, : self.filter_size]  # (B, K)
        kept = tokens.gather(1, best[..., None].expand(-1, -1, tokens.shape[-1]))
        if not self.soft:
            return kept, None
        # Unscaled, the softmax of D-dimensional dot products is one-hot and passes no gradient.
        weights = (logits.gather(1, best) / tokens.shape[-1] ** 0.5).softmax(-1)
        return kept * (weights * weights.shape[-1])[..., None], weights  # a mean weight of 1 keeps the scale


class LanguageCycles(nn.Module):
    """LCA (section 3.3): `cycles` layers in which a text is queried by a linear map of its own current state."""

    def __init__(self, config: PIRConfig):
        super().__init__()
        dim = config.projection_dim
        self.maps = nn.ModuleList(nn.Linear(dim, dim) for _ in range(config.cycles))
        self.layers = nn.ModuleList(_tel(config) for _ in range(config.cycles))
        self.head = nn.Linear(dim, dim)

    def forward(self, words: torch.Tensor, mask: torch.Tensor | None, place: torch.Tensor) -> torch.Tensor:
        """Map words (T, L, D) under `mask` (T, L; None = padding takes part) to the local vector (T, D) at `place`."""
        return self.head(run_layers(self, words, mask=mask, place=place)[:, 0])


def run_layers(
    module: VisualInstruction | LanguageCycles,
    hidden: torch.Tensor,
    external: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    place: torch.Tensor | None = None,
) -> torch.Tensor:
    """Run sequences (B, N, D) through the TELs of a module.

    Args:
        module: its `maps` turn what queries into the queries of its `layers`.
        hidden: the sequences.
        external: (B, 1, D), what queries in every layer; None: the sequence itself.
        mask: (B, N), non-zero where a token may be attended to.
        place: (B,), the only row that is wanted; the last layer computes no other, and the result is (B, 1, D).
    """
    for layer, linear in zip(module.layers, module.maps):
        at = place if layer is module.layers[-1] else None
        own = hidden if at is None else row_at(hidden, at)
        hidden = layer(hidden, linear(own if external is None else external), mask, at)
    return hidden


class PIRModel(DualEncoderPreTrainedModel):
    """Image-text dual encoder with a prior; with `instruction_layers=0, cycles=0` the paper's plain baseline.

    Example:
        >>> from transformers import BertConfig, ResNetConfig, ViTConfig
        >>> tiny = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
        >>> config = PIRConfig.from_vision_text_configs(
        ...     ViTConfig(image_size=32, patch_size=8, **tiny), BertConfig(vocab_size=50, **tiny), projection_dim=16,
        ...     instruction_config=ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1]).to_dict(),
        ...     filter_size=10, attention_heads=2,
        ... )
        >>> model = PIRModel(config).eval()
        >>> model.belief(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 17])
    """

    config_class = PIRConfig
    config: PIRConfig
    _no_split_modules = ["TEL"]

    def __init__(self, config: PIRConfig):
        super().__init__(config)
        dim = config.projection_dim
        self.vision_model = build_tower(config.vision_config)
        self.vision_projection = nn.Linear(config.vision_width, dim)
        self.text_model = build_tower(config.text_config)
        self.text_projection = nn.Linear(config.text_config.hidden_size, dim)
        self.instruction_model = build_tower(config.instruction_config) if config.use_instruction else None
        self.instruction_projection = None
        if config.use_instruction:
            self.instruction_projection = nn.Linear(config.instruction_width, dim)
        self.visual_instruction = VisualInstruction(config) if config.instruction_layers else None
        self.language_cycles = LanguageCycles(config) if config.cycles else None
        self.freeze_for_good()
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        heads = [part.head for part in (self.visual_instruction, self.language_cycles) if part is not None]
        if self.config.local_from_zero and any(module is head for head in heads):
            init.zeros_(module.weight)
            init.zeros_(module.bias)

    @classmethod
    def from_vision_text_pretrained(cls, vision: str, text: str, instruction: str | None = None, **config_kwargs):
        """Build the model around pretrained towers (Hub ids or folders); heads are initialised at random.

        Args:
            vision, text: the towers that are compared; both may name one CLIP or SigLIP checkpoint.
            instruction: a vision backbone trained to recognise scenes, such as `vsehub train pir` makes; none is
                needed with `use_instruction=False` or `instruction_layers=0`.
            **config_kwargs: fields of [`PIRConfig`].

        Raises:
            ValueError: no instruction encoder where one is needed, or weights of a tower that do not load.
        """
        wanted = config_kwargs.get("use_instruction", True) and config_kwargs.get("instruction_layers", 2) > 0
        if wanted and instruction is None:
            raise ValueError(
                "PIR needs an instruction encoder (a scene classifier's backbone): name one, train one with the stage "
                "`prior`, or do without (use_instruction=False)"
            )
        tower = load_tower(instruction, "vision_config") if wanted else None
        if tower is not None:
            config_kwargs["instruction_config"] = tower.config.to_dict()
            probe = probe_vision(tower, config_kwargs.get("image_size", 224), instruction)
            config_kwargs["instruction_width"] = probe.width
        model = super().from_vision_text_pretrained(vision, text, **config_kwargs)
        if tower is not None:
            copy_tower(tower, model.instruction_model, instruction)
        return model

    @classmethod
    def measured(cls, vision: VisionProbe, text: TextProbe) -> dict:
        """The width and, for a causal text tower, that a text is read at its last token.

        The configuration knows some causal towers by their `model_type`; the dry run finds all of them.
        """
        return super().measured(vision, text) | ({"text_readout": "last"} if text.causal else {})

    def towers(self) -> list[nn.Module]:
        """Vision, text and, where there is one, instruction backbone."""
        return super().towers() + ([] if self.instruction_model is None else [self.instruction_model])

    def freeze_for_good(self):
        """Freeze unused weights and the whole instruction encoder (`train()` then keeps it in eval mode)."""
        super().freeze_for_good()
        if self.instruction_model is not None:
            self.instruction_model.requires_grad_(False)

    @torch.no_grad()
    def instruct(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Run the frozen instruction encoder: (B, 3, H, W) to its scene vector (B, C)."""
        config, pixels = self.config, pixel_values
        if config.instruction_scale is not None:
            scale, shift = (
                pixels.new_tensor(x)[:, None, None] for x in (config.instruction_scale, config.instruction_shift)
            )
            pixels = pixels * scale + shift
        return with_class_token(image_tokens(self.instruction_model, pixels), config.instruction_prefix_tokens)[:, 0]

    def image_parts(
        self, hidden: torch.Tensor, pixel_values: torch.Tensor | None, scene: torch.Tensor | None = None
    ) -> ImageParts:
        """Run the image side above the tower.

        Args:
            hidden: the vision tower's hidden states (B, N, C).
            pixel_values: (B, 3, H, W), for the instruction encoder.
            scene: its vectors (B, C), as `instruct` gives, in place of the pixels.

        Raises:
            ValueError: the model has an instruction encoder, and neither pixels nor its vectors are given.
        """
        hidden = with_class_token(hidden, self.config.vision_prefix_tokens)
        tokens = self.vision_projection(hidden.to(self.vision_projection.weight.dtype))
        instruction = None
        if self.instruction_model is not None:
            if scene is None and pixel_values is None:
                raise ValueError(
                    "the instruction encoder reads the picture too: give pixel_values, or scene_states, beside "
                    "vision_hidden_states"
                )
            scene = self.instruct(pixel_values) if scene is None else scene
            instruction = self.instruction_projection(scene.to(tokens.dtype))
        if self.visual_instruction is None:
            return ImageParts(tokens, instruction, None, None)
        local, logits = self.visual_instruction(tokens, instruction)
        return ImageParts(tokens, instruction, logits, local)

    def pool_image(
        self, hidden: torch.Tensor, pixel_values: torch.Tensor | None, scene_states: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Project and read the vision tower's hidden states: (B, N, C) to (B, D).

        `scene_states` (B, C), as `instruct` gives, replace the run of the instruction encoder on the pixels.
        """
        parts = self.image_parts(hidden, pixel_values, scene_states)
        return parts.tokens[:, 0] if parts.local is None else parts.tokens[:, 0] + parts.local

    def reads_padding(self) -> bool:
        """Whether padding takes part in texts: in the official code only."""
        return self.config.legacy

    def pool_text(self, hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Project and re-read the text tower's hidden states: (T, L, C) to (T, D)."""
        words = self.text_projection(hidden.to(self.text_projection.weight.dtype))
        mask = attention_mask.to(words.device).bool().long()
        if self.config.text_readout == "last":  # of the real tokens, wherever the padding is
            place = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(1)
        else:
            place = mask.argmax(1)
        pooled = row_at(words, place)[:, 0]
        if self.language_cycles is None:
            return pooled
        return pooled + self.length_groups(mask).vectors(self.language_cycles, words, attention_mask, place)

    def belief(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Softmax of the belief logits, one weight per token: (B, 3, H, W) to (B, N), class token first.

        Raises:
            ValueError: a model without instruction encoder.
        """
        if self.instruction_model is None:
            raise ValueError("this model has no instruction encoder (use_instruction=False), so it has no belief")
        return self.image_parts(self.vision_tokens(pixel_values), pixel_values).belief_logits.softmax(-1)


def with_class_token(hidden: torch.Tensor, prefix: int) -> torch.Tensor:
    """Tower output to (B, 1 + patches, C): the class token, or else the mean of the patches, before the patches."""
    first = hidden[:, :1] if prefix else hidden.mean(1, keepdim=True)
    return torch.cat([first, hidden[:, prefix:]], dim=1)


def _tel(config: PIRConfig) -> TEL:
    return TEL(config.projection_dim, config.attention_heads, config.dropout, config.tel_norm)


__all__ = ["PIRModel"]
