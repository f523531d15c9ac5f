"""What every dual encoder of vsehub has in common: two towers, one shared space, one presentation temperature."""

import difflib
import inspect
import math
import numbers
from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig, SiglipTextConfig
from transformers.utils import logging

logger = logging.get_logger(__name__)

# Settings that transformers takes from a config.json and may answer by fetching compiled code from the Hub.
KERNEL_SETTINGS = ("attn_implementation", "experts_implementation", "kernel_config", "use_kernels")
QUANTIZERS = ("bitsandbytes", "torchao")  # those that run what is installed; FP8 and MXFP4 fetch their kernels

NEAR = 0.87  # how alike an unknown setting and one of ours are, of 1, where the first is taken for a slip of the second

CUTOFF_FACTS = ("rejected", "kept", "images", "captions", "queries")  # of `text_cutoff`, besides its cosine


def is_number(value) -> bool:
    """Whether a value is a finite number; True and False are none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


# What a setting may be: in words, and as a function of its value.
COUNT = ("a whole number of at least 1", lambda value: _is_whole(value) and value >= 1)
COUNT_OR_ZERO = ("a whole number of at least 0", lambda value: _is_whole(value) and value >= 0)
POSITIVE = ("a positive number", lambda value: is_number(value) and value > 0)
SHARE = ("a share in [0, 1)", lambda value: is_number(value) and 0 <= value < 1)
FLAG = ("True or False", lambda value: isinstance(value, int) and value in (0, 1))  # files by hand have 0 and 1


def one_of(*allowed: str):
    """The rule of a setting that is one of a few words."""
    return f"one of {', '.join(map(repr, allowed))}", lambda value: isinstance(value, str) and value in allowed


def follow_rules(rules: Mapping[str, Any], values: Mapping[str, Any]):
    """Refuse values of settings that break the rules of their names.

    Raises:
        ValueError: one does.
    """
    for name, (said, fits) in rules.items():
        if not fits(values[name]):
            raise ValueError(f"{name} must be {said}, got {values[name]!r}")


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
    rules = {
        "projection_dim": COUNT,
        "image_size": COUNT,
        "vision_width": COUNT,
        "logit_scale": POSITIVE,
        "freeze_vision_batch_norm": FLAG,
        "legacy": FLAG,
    }
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
        self._warn_of_slips(kwargs)
        self.vision_config = tower_config(vision_config, default="vit", name="vision_config")
        self.text_config = tower_config(text_config, default="bert", name="text_config")
        self.projection_dim = projection_dim
        self.image_size = image_size
        self.vision_width = tower_width(self.vision_config) if vision_width is None else vision_width
        self.logit_scale = logit_scale
        self.freeze_vision_batch_norm = freeze_vision_batch_norm
        self.legacy = legacy
        follow_rules(self.rules, vars(self))
        self.matryoshka = nested_widths(matryoshka, projection_dim)
        self.image_embeds_mean, self.text_embeds_mean = image_embeds_mean, text_embeds_mean
        self._check_means()
        self.text_cutoff = checked_cutoff(text_cutoff)
        super().__init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        """All settings, with Python's numbers in place of numpy's, which config.json could not hold."""
        return _plain(super().to_dict())

    @classmethod
    def settings(cls) -> set[str]:
        """Names of the settings of this class, without those of every configuration of transformers."""
        owners = [base for base in cls.__mro__ if issubclass(base, DualEncoderConfig)]
        names = {name for base in owners for name in inspect.signature(base.__init__).parameters}
        return names - {"self", "args", "kwargs"}

    def _warn_of_slips(self, unknown):
        """Log settings whose names are nearly ours; others may be of transformers, or of a newer version."""
        for name in unknown:
            if near := difflib.get_close_matches(name, sorted(self.settings()), 1, NEAR):
                logger.warning(f"{type(self).__name__} has no setting {name!r}, so it does nothing: is it {near[0]!r}?")

    def _check_means(self):
        for name in ("image_embeds_mean", "text_embeds_mean"):
            mean = getattr(self, name)
            if mean is not None and not is_list_of(mean, self.projection_dim):
                raise ValueError(f"{name} must be {self.projection_dim} numbers, or None")
        if (self.image_embeds_mean is None) != (self.text_embeds_mean is None):
            raise ValueError("image_embeds_mean and text_embeds_mean go together: give both, or none")

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """Make the configuration that a config.json holds.

        Settings that are passed beside it take the place of its own and are checked as well.

        Raises:
            ValueError: a setting has an impossible value, or asks for code from the Hub, see `refuse_kernels`.
        """
        refuse_kernels(config_dict)
        names = cls.settings() - set(cls.sub_configs)
        given = {name: kwargs.pop(name) for name in sorted(names & kwargs.keys())}
        try:
            return super().from_dict({**config_dict, **given}, **kwargs)
        except ValueError as error:
            if given:
                raise
            raise ValueError(f"in its config.json, {error}") from None

    @classmethod
    def from_vision_text_configs(cls, vision_config, text_config, **kwargs):
        """Compose the configuration from the configurations of two towers."""
        return cls(vision_config=vision_config.to_dict(), text_config=text_config.to_dict(), **kwargs)


def _plain(value):
    """Numbers and arrays of numpy or torch as Python's numbers and lists, wherever they stand in a value."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


def is_list_of(values, size: int) -> bool:
    """Whether values are a list of so many finite numbers."""
    return isinstance(values, (list, tuple)) and len(values) == size and all(map(is_number, values))


def nested_widths(widths, dimension: int) -> list[int] | None:
    """Widths below the whole one, ascending, each once; None if there are none.

    Raises:
        ValueError: one is no whole number from 1 to the dimension.
    """
    if not isinstance(widths or (), (list, tuple, set, range)):
        raise ValueError(f"matryoshka must be a list of widths, or None, got {widths!r}")
    for width in widths or ():
        if not _is_whole(width) or not 1 <= width <= dimension:
            raise ValueError(f"matryoshka: widths must be whole numbers from 1 to {dimension}, got {width!r}")
    return sorted({int(width) for width in widths or () if width < dimension}) or None


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


def tower_config(config, default: str = "", name: str = "a tower configuration"):
    """Make a transformers configuration of a dict, of a configuration, or of nothing (then of type `default`).

    Raises:
        ValueError: something else, a tower that transformers does not know, or a value that it does not take; `name`
            says which tower.
    """
    AutoConfig.register("siglip_text_model", SiglipTextConfig, exist_ok=True)  # some versions know it only whole
    if config is None:
        return CONFIG_MAPPING[default]()
    if isinstance(config, dict):
        kind = config.get("model_type")
        if kind is None:
            raise ValueError(f"{name} needs its 'model_type' (for instance 'vit', 'bert')")
        if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
            raise ValueError(
                f"{name}: this transformers knows no {kind!r} as a tower: update it, or take another model"
            )
        try:
            return CONFIG_MAPPING[kind](**config)
        except Exception as error:  # each version of transformers has its own for a value of a wrong type
            raise ValueError(f"{name}: {' '.join(str(error).split())}") from None
    if not hasattr(config, "model_type"):
        raise ValueError(f"{name} must be the configuration of a tower or its dictionary, got {config!r}")
    return config


__all__ = ["DualEncoderConfig", "nested_widths", "refuse_kernels"]
