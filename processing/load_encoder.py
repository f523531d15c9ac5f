"""Load the encoder of any image-text model.

Models of vsehub, models of transformers with `get_image_features` and `get_text_features` (CLIP, SigLIP, ALIGN, ...),
and models of sentence-transformers that take images; all others are refused.
"""

import os

import transformers
from huggingface_hub import try_to_load_from_cache
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, AutoProcessor, PreTrainedConfig

from ..configuration.configuration_dual_encoder import refuse_kernels
from ..files.digests import fingerprint, weights_digest
from ..files.remembered import folder_state, remembered
from ..modeling.towers import load_complete
from .encoders import KINDS, Encoder
from .processing_dual_encoder import no_words
from .sentence_encoder import SentenceEncoder, is_sentence_transformer, load_sentence_encoder

OF_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
# Arguments of loading that say which files are read; all others are of the model alone.
SHARED = ("revision", "local_files_only", "cache_dir", "token", "trust_remote_code")


def encoder_of(model, processor=None) -> Encoder:
    """The encoder of a model in memory.

    Args:
        model: a dual encoder of vsehub or transformers, a `SentenceTransformer`, or an encoder.
        processor: of the model; default the one that lies beside its weights.

    Raises:
        ValueError: a model of another kind.
    """
    if isinstance(model, Encoder):
        return model
    if type(model).__name__ == "SentenceTransformer":
        return SentenceEncoder(model)
    if isinstance(model, (str, os.PathLike)):
        raise ValueError(f"{model} is the name of a model, not a model: load it with from_pretrained")
    if not all(hasattr(model, f"get_{kind}_features") for kind in ("image", "text")):  # wrapped ones do
        refuse_others(type(model), getattr(getattr(model, "config", None), "_name_or_path", "") or "this model")
    if processor is None and hasattr(model, "_own_processor"):
        processor = model._own_processor()
    elif processor is None:
        source = model.config._name_or_path
        if not source:
            raise ValueError("this model was not loaded from a folder or repository: pass processor=")
        processor = load_processor(source, trust_remote_code=False)
    return Encoder(model, processor)


def load_encoder(source: str | os.PathLike, processor=None, weights: bool = True, **loading) -> Encoder:
    """Load the encoder of a folder or Hub id, on the CPU. Call it within `towers.load_errors`.

    Args:
        source: of a model of vsehub, transformers or sentence-transformers.
        processor: in place of its own.
        weights: whether to load them; an encoder without can say how many tokens are read, and no more.
        **loading: of `AutoModel.from_pretrained`. `trust_remote_code` is False unless given.

    Raises:
        ValueError: a model that does not embed both images and texts, one that lacks weights or its processor, or one
            that asks for code from elsewhere.
        OSError: no such model.
    """
    source = str(source)
    loading["trust_remote_code"] = bool(loading.get("trust_remote_code"))  # without it, transformers asks on stdin
    before = folder_state(source)
    shared = {name: loading[name] for name in SHARED if name in loading}
    if is_sentence_transformer(source, shared):
        encoder: Encoder = load_sentence_encoder(source, loading, shared)
    else:
        refuse_kernels(PreTrainedConfig.get_config_dict(source, **shared)[0])  # as it was received
        config = AutoConfig.from_pretrained(source, **shared)
        refuse_others(MODEL_MAPPING.get(type(config), None), source)
        processor = processor or load_processor(source, **shared)
        model = load_complete(AutoModel, source, **loading) if weights else None
        if model is not None:
            refuse_others(type(model), source)
        encoder = Encoder(model, processor, source, config)
    if weights:
        encoder.identity = _identity(encoder.model, source, before, loading)
    return encoder


def refuse_others(model_class, source: str):
    """Refuse classes of models without features of images or texts.

    Raises:
        ValueError: such a class. None and classes that are chosen later pass.
    """
    methods = [getattr(model_class, f"get_{kind}_features", None) for kind in ("image", "text")]
    if isinstance(model_class, type) and None in methods:
        raise ValueError(
            f"{source} is a {model_class.__name__}, which does not embed both images and texts: take a dual encoder "
            f"({KINDS})"
        )


def load_processor(source: str, **shared):
    """Load an image processor and tokenizer.

    Raises:
        ValueError: one of them is missing.
        ImportError: its tokenizer needs a package that is not installed.
    """
    processor, reason = None, ""
    try:
        processor = AutoProcessor.from_pretrained(source, **shared)
    except ImportError as error:
        siglip = any(name in str(error).lower() for name in ("sentencepiece", "protobuf"))
        remedy = 'pip install "vsehub[siglip]"' if siglip else _first_line(error)
        raise ImportError(f"{source}: its processor needs a package that is not installed: {remedy}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        if "trust_remote_code" in str(error):
            raise
        reason = _first_line(error)
        if isinstance(error, (KeyError, TypeError)):
            reason = f"the files of its processor or tokenizer are damaged ({type(error).__name__}: {reason})"
    if processor is not None and getattr(processor, "image_processor", None) is None:
        reason = "there is no image processor"
    elif processor is not None:
        reason = no_words(getattr(processor, "tokenizer", None))
    elif os.path.isdir(source) and not any(os.path.isfile(os.path.join(source, name)) for name in OF_PROCESSORS):
        reason = "there is no processor_config.json or preprocessor_config.json"
    if reason:
        reason = reason.removeprefix(f"{source}: ").partition("; put the files of its tokenizer")[0]
        raise ValueError(
            f"{source} is not a complete model: {reason}. Put the files of its processor and of its "
            "tokenizer beside the weights"
        )
    return processor


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def snapshot_of(source: str, cache_dir=None, revision: str | None = None) -> str | None:
    """The folder of the cache that holds a Hub repository; its name is the commit, and its files do not change."""
    for name in ("config.json", "modules.json"):
        path = try_to_load_from_cache(source, name, cache_dir, revision=revision)
        if isinstance(path, str):
            return os.path.dirname(path)
    return None


def _identity(model, source: str, before: list | None, loading: dict) -> dict:
    """The fingerprint of a model that was just loaded; its weights are hashed once, not at every start.

    Args:
        source: folder or Hub id.
        before: `folder_state` of the folder before it was read.
        loading: arguments of the loading; with any that may change weights, no remembered digest is used.
    """
    place, revision = source, None
    if before is None and (folder := snapshot_of(source, loading.get("cache_dir"), loading.get("revision"))):
        place, revision, before = folder, os.path.basename(folder), folder_state(folder)
    plain = loading.keys() <= set(SHARED)
    if before is not None and (not plain or any(name.endswith("adapter_config.json") for name, *_ in before)):
        before = None  # the base model of an adapter is in another folder
    what = ["weights", type(model).__name__, str(model.dtype), transformers.__version__]
    digest = remembered(place, before, what, lambda: weights_digest(model))
    return fingerprint(model, digest, source, revision)


__all__ = ["encoder_of", "load_encoder", "load_processor", "snapshot_of"]
