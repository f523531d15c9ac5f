"""Pictures and captions to model inputs, for every dual encoder of vsehub: one image processor, one tokenizer."""

from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, ProcessorMixin
from transformers.processing_utils import ProcessingKwargs

from .pixels import to_rgb

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

# Text towers that number positions from `pad_token_id + 1` on, as RoBERTa does: earlier rows of the table are not used.
FIRST_POSITION_AFTER_PADDING = (
    "altclip_text_model",
    "bridgetower_text_model",
    "camembert",
    "clap_text_model",
    "data2vec-text",
    "ibert",
    "lilt",
    "longformer",
    "luke",
    "markuplm",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)


def text_positions(text_config) -> int | None:
    """How many tokens of a text a tower has positions for; None if its configuration does not say.

    Args:
        text_config: of the text tower, or of a model that contains it.
    """
    text_config = text_config.get_text_config()
    positions = getattr(text_config, "max_position_embeddings", None)
    if positions and text_config.model_type in FIRST_POSITION_AFTER_PADDING:
        return positions - text_config.pad_token_id - 1
    return positions


class DualEncoderProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]  # a TypedDict
    """Defaults of a call: pad to the longest caption, cut at the tokenizer's `model_max_length`."""

    _defaults = {"text_kwargs": {"padding": True, "truncation": True}}


class DualEncoderProcessor(ProcessorMixin):
    """Image processor and tokenizer of a dual encoder.

    Args:
        image_processor: any image processor of transformers.
        tokenizer: any tokenizer; its `model_max_length` cuts long captions, or a `max_length` that it was made with.

    Calling it with `images=` (PIL, a list, arrays) and/or `text=` returns `pixel_values` (B, 3, S, S), `input_ids` and
    `attention_mask` (T, L). Pictures are made upright RGB first, see `pixels.py`. A string is never opened as a path or
    an address, and arrays hold numbers of 0 to 255 (of 0 to 1 with `do_rescale=False`).
    """

    valid_processor_kwargs = DualEncoderProcessorKwargs

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None):
        super().__init__(image_processor, tokenizer, chat_template=chat_template)  # which all processors take

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """Load a processor; its tokenizer cuts captions at its own limit, not at that of a call before it was saved."""
        kwargs["trust_remote_code"] = bool(kwargs.get("trust_remote_code"))  # without it, transformers asks on stdin
        loaded = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        tokenizer = (loaded[0] if isinstance(loaded, tuple) else loaded).tokenizer  # return_unused_kwargs
        if reason := no_words(tokenizer):
            raise ValueError(
                f"{pretrained_model_name_or_path}: {reason}; put the files of its tokenizer (tokenizer.json, "
                "tokenizer_config.json) beside the weights"
            )
        forget_last_call(tokenizer)
        return loaded

    def save_pretrained(self, save_directory, push_to_hub: bool = False, **kwargs):
        """Save both parts, without the settings of the tokenizer's last call."""
        _reset(self.tokenizer)
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def __call__(self, images=None, text=None, **kwargs):
        """Prepare pictures, captions or both; see the class.

        Raises:
            ValueError: an empty list, a picture without pixels, or an array of another range.
        """
        for name, items in (("images", images), ("text", text)):
            if isinstance(items, (list, tuple)) and not items:
                raise ValueError(f"{name} is an empty list: put something into it, or leave it out")
        if images is not None:
            settings = {"do_rescale": getattr(self.image_processor, "do_rescale", True)} | kwargs
            settings |= kwargs.get("images_kwargs") or {}
            images = _upright(images, bool(settings["do_rescale"]))
        return super().__call__(images=images, text=text, **kwargs)

    @classmethod
    def from_vision_text_pretrained(
        cls, vision: str | None, text: str, image_size: int, max_length: int = 128, imagenet: bool = False
    ):
        """Build the processor of two towers: squares of `image_size`, normalised as the vision tower expects.

        Args:
            vision: Hub id or folder whose image processor gives mean and std; None means ImageNet's.
            text: Hub id or folder of the tokenizer.
            image_size: side of the square to which images are stretched (bilinear), as D2S-VSE does.
            max_length: tokens of a caption that are read; fewer if the text tower or its tokenizer reads fewer.
            imagenet: use ImageNet's mean and std whatever the tower was trained with (the official code does).
        """
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        if vision is not None and not imagenet:
            try:
                image_settings = AutoImageProcessor.from_pretrained(vision, backend="pil", trust_remote_code=False)
            except (OSError, ValueError):  # there is none, or it needs code of its own
                raise ValueError(
                    f"{vision} has no image processor, so its mean and std are unknown: put its "
                    "preprocessor_config.json beside the weights, or use ImageNet's "
                    "(imagenet=True, --imagenet_normalisation True)"
                ) from None
            mean, std = image_settings.image_mean, image_settings.image_std
        try:
            tokenizer = AutoTokenizer.from_pretrained(text, trust_remote_code=False)
        except (ValueError, KeyError):  # a model without one; a folder or repository that is not there is an OSError
            tokenizer = None
        if not has_words(tokenizer):
            raise ValueError(f"{text} has no tokenizer: put its tokenizer.json or vocabulary beside the weights")
        if tokenizer.pad_token is None:  # GPT-2, Llama: padding is masked, so any token will do
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        if tokenizer.pad_token is None:
            raise ValueError(f"{text}: its tokenizer has no token to pad with: set its pad_token and save it again")
        forget_last_call(tokenizer)
        config = AutoConfig.from_pretrained(text, trust_remote_code=False)
        limits = (tokenizer.model_max_length, text_positions(config), max_length)
        tokenizer.model_max_length = min(limit for limit in limits if limit)
        return cls(square_image_processor(image_size, mean, std), tokenizer)


def _upright(images, rescaled: bool = True):
    """PIL images, also in lists of lists, as upright RGB; arrays stay.

    Args:
        images: what a processor is called with.
        rescaled: whether numbers are divided by 255 afterwards.

    Raises:
        TypeError: a path, an address or bytes: transformers would open it, without its alpha and its 16 bits.
        ValueError: an array of more than 8 bits, or one that was divided by 255 or normalised already.
    """
    if isinstance(images, (list, tuple)):
        return [_upright(image, rescaled) for image in images]
    if hasattr(images, "getbands"):
        return to_rgb(images)
    if isinstance(images, (str, bytes)) or hasattr(images, "__fspath__"):
        raise TypeError(
            f"images= takes PIL images and arrays, not a {type(images).__name__}: open files yourself with "
            "PIL.Image.open"
        )
    kind = str(getattr(images, "dtype", "")).rpartition(".")[2]  # torch.int32 or int32
    wide = kind in ("int16", "uint16", "int32", "uint32", "int64", "uint64")
    if wide and 0 not in images.shape and images.max() > 255:
        raise ValueError(f"images= holds a {kind} array with numbers above 255: scale them to 0...255 as uint8")
    if rescaled and kind.startswith(("bool", "float", "bfloat")) and 0 not in images.shape:
        low, high = float(images.min()), float(images.max())
        if not (low >= 0 and (high > 1 or high == 0)):  # as ToTensor of torchvision makes them, or normalised, or NaN
            raise ValueError(
                f"images= holds a {kind} array with numbers from {low:.3g} to {high:.3g}, which would be divided by "
                "255: scale it to 0...255, or pass do_rescale=False (and do_normalize=False if it is normalised)"
            )
    return images


def has_words(tokenizer) -> bool:
    """Whether there is a tokenizer with a vocabulary: some classes load without their files, and know no word."""
    return tokenizer is not None and len(tokenizer) > len(tokenizer.all_special_tokens)


def no_words(tokenizer) -> str:
    """Why a loaded tokenizer (or None) cannot turn texts into batches; empty if it can."""
    if not has_words(tokenizer):
        return "there is no tokenizer, or none with a vocabulary"
    return "" if tokenizer.pad_token is not None else "its tokenizer has no token to pad with"


def forget_last_call(tokenizer) -> None:
    """Remove the limit of an earlier call from a loaded tokenizer; a limit that it was created with stays.

    A fast tokenizer saves the truncation and the padding of its last call in tokenizer.json. transformers makes their
    length its `max_length`, unless tokenizer_config.json has one, and this wins over `model_max_length` in a processor.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # a slow tokenizer saves no settings of a call
        return
    of_a_call = [(backend.truncation or {}).get("max_length"), (backend.padding or {}).get("length")]
    if tokenizer.init_kwargs.get("max_length") in of_a_call:
        tokenizer.init_kwargs.pop("max_length", None)
    _reset(tokenizer)


def _reset(tokenizer) -> None:
    """Reset a fast tokenizer's backend to its state before any call; each call sets it again."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()


def square_image_processor(image_size: int, mean=None, std=None, resample: int = 2):
    """An image processor that stretches pictures to a square and normalises them (default: ImageNet's mean and std).

    `resample` is Pillow's number of a filter: 2 bilinear, 3 bicubic.
    """
    try:
        from transformers import ViTImageProcessorPil as ViTImageProcessor  # the plain name needs torchvision
    except ImportError:  # in transformers < 5.4 the plain name uses Pillow
        from transformers import ViTImageProcessor
    return ViTImageProcessor(
        do_resize=True,
        size={"height": image_size, "width": image_size},
        resample=resample,
        do_rescale=True,
        do_normalize=True,
        image_mean=list(mean or IMAGENET_MEAN),
        image_std=list(std or IMAGENET_STD),
        do_convert_rgb=True,
    )


__all__ = [
    "DualEncoderProcessor",
    "forget_last_call",
    "has_words",
    "no_words",
    "square_image_processor",
    "text_positions",
]
