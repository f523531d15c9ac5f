"""Configuration of PIR (Pan, Ma, Bai, ACM Multimedia 2023, doi 10.1145/3581783.3612374)."""

from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from .configuration_dual_encoder import (
    COUNT,
    COUNT_OR_ZERO,
    FLAG,
    SHARE,
    DualEncoderConfig,
    follow_rules,
    is_list_of,
    one_of,
    tower_config,
    tower_width,
)

OF_INSTRUCTION = {"instruction_width": COUNT, "instruction_prefix_tokens": COUNT_OR_ZERO}  # where there is an encoder
RESNET_50 = {"model_type": "resnet", "layer_type": "bottleneck", "depths": [3, 4, 6, 3]}


class PIRConfig(DualEncoderConfig):
    """Two towers, a frozen scene encoder that instructs the image side, and a text side that reads in cycles.

    Everything of [`DualEncoderConfig`], and:

    Args:
        vision_config: default Swin-T, as the paper.
        instruction_config: configuration (or its dict) of the instruction encoder, any vision backbone; default
            ResNet-50. It stays None, and the model has no instruction encoder, with `use_instruction=False`.
        use_instruction: False lets the image's own tokens stand in for the instruction: no belief, no filter, no
            frozen encoder (the paper's baseline "VSE + TEL").
        instruction_layers: n_v, TELs of the image side (VIR). Paper: 2. 0 leaves out the image's local branch.
        cycles: n_t, TELs of the text side (LCA). Paper: 3. 0 leaves out the text's local branch; with both at 0 the
            model is the paper's plain baseline "VSE".
        filter_size: r_k, how many of the most believed tokens are kept. Paper: 40 of 50. An image with fewer tokens
            keeps all.
        belief: `hard` (official code): belief sorts and filters tokens and the most believed one is read out, so no
            gradient reaches it. `soft`: it also weighs the kept tokens and the read-out, and is trained.
        tel_norm: `sum` (official code): layer-norm of residual plus branch, and one more inside the MLP. `branch`
            (paper's equations): layer-norm of the branch alone.
        local_from_zero: start the heads of both local branches at zero, so that training starts from the plain
            baseline and each branch adds only what it has learned. Not in the paper.
        attention_heads, dropout: of every TEL. Paper: 8 and 0.2.
        vision_prefix_tokens: tokens before the patches in the vision tower's output, the first a class token; derived
            when None. Without any, the mean of the patches is the image's class token (Swin, convolutional towers).
        instruction_prefix_tokens: the same for the instruction encoder.
        instruction_width: channels of the instruction encoder's last feature map; derived when None.
        text_readout: `first` ([CLS]) or `last` (the last real token: CLIP, SigLIP, GPT-2, Llama and other towers whose
            tokens see only those before them); derived when None.
        instruction_scale, instruction_shift: three numbers each that turn `pixel_values`, normalised for the vision
            tower, into what the instruction encoder was trained on; None passes them as they are (official code).

    `legacy=True` reproduces the official code: padding takes part in the text tower and in LCA (an embedding depends on
    its batch-mates' lengths), and tokens are sorted by softmax instead of by logits (it underflows to ties). That its
    frozen instruction encoder kept moving its batch-norm statistics while training is not reproduced.
    """

    model_type = "pir"
    sub_configs = {**DualEncoderConfig.sub_configs, "instruction_config": AutoConfig}
    rules = {
        **DualEncoderConfig.rules,
        "use_instruction": FLAG,
        "instruction_layers": COUNT_OR_ZERO,
        "cycles": COUNT_OR_ZERO,
        "filter_size": COUNT,
        "belief": one_of("hard", "soft"),
        "tel_norm": one_of("sum", "branch"),
        "local_from_zero": FLAG,
        "attention_heads": COUNT,
        "dropout": SHARE,
        "vision_prefix_tokens": COUNT_OR_ZERO,
        "text_readout": one_of("first", "last"),
    }

    def __init__(
        self,
        vision_config=None,
        text_config=None,
        instruction_config=None,
        use_instruction=True,
        instruction_layers=2,
        cycles=3,
        filter_size=40,
        belief="hard",
        tel_norm="sum",
        local_from_zero=False,
        attention_heads=8,
        dropout=0.2,
        vision_prefix_tokens=None,
        instruction_prefix_tokens=None,
        instruction_width=None,
        text_readout=None,
        instruction_scale=None,
        instruction_shift=None,
        **kwargs,
    ):
        early = {"use_instruction": use_instruction, "instruction_layers": instruction_layers}
        follow_rules({name: self.rules[name] for name in early}, early)
        vision_config = tower_config(vision_config, default="swin", name="vision_config")
        text_config = tower_config(text_config, default="bert", name="text_config")
        self.use_instruction = use_instruction and instruction_layers > 0
        self.instruction_config = None
        if self.use_instruction:
            given = RESNET_50 if instruction_config is None else instruction_config
            self.instruction_config = tower_config(given, name="instruction_config")
        self.instruction_layers = instruction_layers
        self.cycles = cycles
        self.filter_size = filter_size
        self.belief = belief
        self.tel_norm = tel_norm
        self.local_from_zero = local_from_zero
        self.attention_heads = attention_heads
        self.dropout = dropout
        self.vision_prefix_tokens = _given(vision_prefix_tokens, prefix_tokens(vision_config))
        self.instruction_prefix_tokens = self.instruction_width = None
        if self.use_instruction:
            self.instruction_width = (
                tower_width(self.instruction_config) if instruction_width is None else instruction_width
            )
            self.instruction_prefix_tokens = _given(instruction_prefix_tokens, prefix_tokens(self.instruction_config))
        self.text_readout = _given(text_readout, "last" if reads_at_the_end(text_config) else "first")
        self.instruction_scale = instruction_scale
        self.instruction_shift = instruction_shift
        super().__init__(vision_config=vision_config, text_config=text_config, **kwargs)
        self._check()

    def _check(self):
        if self.projection_dim % self.attention_heads:
            raise ValueError(
                f"attention_heads={self.attention_heads} does not divide projection_dim={self.projection_dim}"
            )
        if self.use_instruction:
            follow_rules(OF_INSTRUCTION, vars(self))
        if (self.instruction_scale is None) != (self.instruction_shift is None):
            raise ValueError("instruction_scale and instruction_shift come together")
        for name in ("instruction_scale", "instruction_shift"):
            if getattr(self, name) is not None and not is_list_of(getattr(self, name), 3):
                raise ValueError(f"{name} must be three numbers, or None, got {getattr(self, name)!r}")


READ_AT_THE_END = ("clip_text_model", "siglip_text_model", "siglip2_text_model")
ONE_CLASS_TOKEN = ("vit", "vit_mae", "vit_msn", "beit", "data2vec-vision", "dinov2", "clip_vision_model")


def reads_at_the_end(config) -> bool:
    """Whether a text tower's last token has seen the whole text and its first one only itself."""
    if config.model_type in READ_AT_THE_END:
        return True
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES or getattr(config, "is_encoder_decoder", False):
        return False
    return config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def prefix_tokens(config) -> int:
    """Tokens before the patches in a vision tower's `last_hidden_state`, the class token first; 0 if there is none."""
    if config.model_type in ("dinov2_with_registers", "dinov3_vit"):
        return 1 + config.num_register_tokens
    if config.model_type == "deit":
        return 2  # class and distillation
    return 1 if config.model_type in ONE_CLASS_TOKEN else 0


def _given(value, default):
    return default if value is None else value


__all__ = ["PIRConfig"]
