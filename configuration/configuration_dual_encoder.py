"""What every dual encoder of vsehub has in common: two towers, one shared space, one presentation temperature."""

import math

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig, SiglipTextConfig

# Settings that transformers takes from a config.json and may answer by fetching compiled code from the Hub.
KERNEL_SETTINGS = ("attn_implementation", "experts_implementation", "kernel_config", "use_kernels")
QUANTIZERS = ("bitsandbytes", "torchao")  # those that run what is installed; FP8 and MXFP4 fetch their kernels

CUTOFF_FACTS = ("rejected", "kept", "images", "captions", "queries")  # of `text_cutoff`, besides its cosine


class DualEncoderConfig(PreTrainedConfig):
    """Base configuration: a vision tower, a text tower and the space they share.

    Args:
        vision_config: configuration (or its dict) of any vision backbone of transformers; default ViT-base.
        text_config: configuration (or its dict) of any text backbone; default BERT-base.
        projection_dim: width D of the shared space.
        image_size: side in pixels of the square that the processor makes. It may differ from
            `vision_config.image_size`: position tables are interpolated in the forward pass.
        vision_width: channels of the vision tower's last feature map; derived from `vision_config` when None.
        logit_scale: fixed factor on cosines in `logits_per_image` (an inverse temperature). It is presentation, not
            a parameter: the hinge losses have no temperature, and a parameter without gradient breaks DDP.
        freeze_vision_batch_norm: keep BatchNorm of the vision tower in eval mode while training, so that an image's
            embedding never depends on its batch-mates. Switch off only to train a convolutional tower from scratch.
        matryoshka: widths below D whose first numbers were trained to be embeddings of their own, when normalised; None
            or empty: none were.
        image_embeds_mean, text_embeds_mean: mean unit vectors of training images and texts, D numbers each, which a
            search over images and texts together subtracts; None where they are not known.
        text_cutoff: the default minimum cosine of a search by text, `cosine` (None: the model separates too weakly for
            one), and what it did on the validation split, see `search.cutoff.default_cutoff`; None where it is not
            known.
        legacy: reproduce the official code where it differs from the corrected behaviour (each subclass lists how).
    """

    sub_configs = {"text_config": AutoConfig, "vision_config": AutoConfig}
    keys_to_ignore_at_inference = [
        "logits_per_image",
        "logits_per_text",
        "text_model_output",
        "vision_model_output",
    ]

    def __init__(
        self,
        vision_config=None,
        text_config=None,
        projection_dim=512,
        image_size=224,
        vision_width=None,
        logit_scale=20.0,
        freeze_vision_batch_norm=True,
        legacy=False,
        matryoshka=None,
        image_embeds_mean=None,
        text_embeds_mean=None,
        text_cutoff=None,
        **kwargs,
    ):
        self.vision_config = tower_config(vision_config, default="vit")
        self.text_config = tower_config(text_config, default="bert")
        self.projection_dim = projection_dim
        self.image_size = image_size
        self.vision_width = vision_width or tower_width(self.vision_config)
        self.logit_scale = logit_scale
        self.freeze_vision_batch_norm = freeze_vision_batch_norm
        self.legacy = legacy
        for name in ("projection_dim", "image_size", "vision_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        self.matryoshka = nested_widths(matryoshka, projection_dim)
        self.image_embeds_mean, self.text_embeds_mean = image_embeds_mean, text_embeds_mean
        self._check_means()
        self.text_cutoff = checked_cutoff(text_cutoff)
        if logit_scale <= 0:
            raise ValueError(f"logit_scale must be positive, got {logit_scale}")
        super().__init__(**kwargs)

    def _check_means(self):
        for name in ("image_embeds_mean", "text_embeds_mean"):
            mean = getattr(self, name)
            if mean is not None and not (len(mean) == self.projection_dim and all(map(math.isfinite, mean))):
                raise ValueError(f"{name} must be {self.projection_dim} numbers, or None")
        if (self.image_embeds_mean is None) != (self.text_embeds_mean is None):
            raise ValueError("image_embeds_mean and text_embeds_mean go together: give both, or none")

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """Make the configuration that a config.json holds.

        Raises:
            ValueError: it asks for code from the Hub, see `refuse_kernels`.
        """
        refuse_kernels(config_dict)
        return super().from_dict(config_dict, **kwargs)

    @classmethod
    def from_vision_text_configs(cls, vision_config, text_config, **kwargs):
        """Compose the configuration from the configurations of two towers."""
        return cls(vision_config=vision_config.to_dict(), text_config=text_config.to_dict(), **kwargs)


def nested_widths(widths, dimension: int) -> list[int] | None:
    """Widths below the whole one, ascending, each once; None if there are none.

    Raises:
        ValueError: one is no whole number from 1 to the dimension.
    """
    for width in widths or ():
        if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= dimension:
            raise ValueError(f"matryoshka: widths must be whole numbers from 1 to {dimension}, got {width!r}")
    return sorted({width for width in widths or () if width < dimension}) or None


def checked_cutoff(facts: dict | None) -> dict | None:
    """`text_cutoff` of a configuration as it was given.

    Raises:
        ValueError: not None, and no dictionary with the numbers of `search.cutoff.default_cutoff`.
    """
    if facts is None:
        return None
    numbers = [facts.get(name) for name in CUTOFF_FACTS] if isinstance(facts, dict) else [None]
    cosine = None if None in numbers else facts.get("cosine", math.nan)
    numbers += [] if cosine is None else [cosine]
    if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
        raise ValueError(f"text_cutoff needs a cosine (or None) and the numbers {', '.join(CUTOFF_FACTS)}: {facts!r}")
    return facts


def refuse_kernels(settings: dict):
    """Refuse a configuration that was received and names code to be fetched; a caller may name it when loading.

    Args:
        settings: a config.json, with whatever it nests.

    Raises:
        ValueError: an attention kernel `organisation/name`, or a quantizer that fetches its kernels.
    """
    for name, value in settings.items():
        setting = str(name).strip("_").removesuffix("_internal")
        names_kernel = setting in KERNEL_SETTINGS and "/" in str(value)
        if names_kernel or (setting == "kernel_config" and value):
            raise ValueError(
                f"its config.json asks for code from the Hub ({name}: {value}), which no configuration may: delete the "
                "line, and name the kernel yourself when you load the model"
            )
        if name == "quantization_config" and isinstance(value, dict):
            method = str(value.get("quant_method", "bitsandbytes")).lower()
            if method not in QUANTIZERS:
                raise ValueError(
                    f"its config.json is quantized by {method!r}, which may fetch code from the Hub: of models that "
                    f"are received, {' and '.join(QUANTIZERS)} are loaded"
                )
        if isinstance(value, dict):
            refuse_kernels(value)


def tower_width(config) -> int:
    """Channels of a vision tower's `last_hidden_state`.

    Raises:
        ValueError: the architecture does not say; pass `vision_width` to the configuration.
    """
    if config.model_type in ("mobilenet_v1", "mobilenet_v2"):
        full = 1024 if config.model_type == "mobilenet_v1" else 1280
        if getattr(config, "finegrained_output", False) and config.depth_multiplier < 1:
            return full
        return _round_channels(full * config.depth_multiplier, config)
    if getattr(config, "hidden_sizes", None) and not hasattr(config, "num_attention_heads"):
        return config.hidden_sizes[-1]
    if isinstance(getattr(config, "hidden_size", None), int):
        return config.hidden_size
    if getattr(config, "hidden_sizes", None):
        return config.hidden_sizes[-1]
    raise ValueError(f"cannot tell the width of a {config.model_type!r} vision tower: pass vision_width=<channels>")


def _round_channels(channels: float, config) -> int:
    """Round as the MobileNets do: to a multiple of `depth_divisible_by`, never more than 10 % down."""
    divisor = config.depth_divisible_by if config.model_type == "mobilenet_v2" else 8
    minimum = config.min_depth
    rounded = max(minimum, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else int(rounded)


def tower_config(config, default: str = ""):
    """Make a transformers configuration of a dict, of a configuration, or of nothing (then of type `default`)."""
    AutoConfig.register("siglip_text_model", SiglipTextConfig, exist_ok=True)  # some versions know it only whole
    if config is None:
        return CONFIG_MAPPING[default]()
    if isinstance(config, dict):
        if "model_type" not in config:
            raise ValueError("a tower configuration needs its 'model_type' (for instance 'vit', 'bert')")
        if config["model_type"] not in CONFIG_MAPPING:
            raise ValueError(
                f"this transformers knows no {config['model_type']!r} as a tower: update it, or take another model"
            )
        return CONFIG_MAPPING[config["model_type"]](**config)
    return config


__all__ = ["DualEncoderConfig", "nested_widths", "refuse_kernels"]
