"""Models of sentence-transformers that take images as well as texts, as an `Encoder`."""

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers.utils import cached_file

from ..configuration.configuration_d2s_vse import D2SVSEConfig
from ..configuration.configuration_dual_encoder import refuse_kernels
from ..configuration.configuration_pir import PIRConfig
from .encoders import KINDS, Encoder

OURS = (D2SVSEConfig.model_type, PIRConfig.model_type)
LIBRARY = "sentence-transformers"
MODEL_ARGUMENTS = ("model_args", "model_kwargs")  # in settings of a module: how transformers loads its weights
HARMLESS = (
    "dtype",
    "torch_dtype",
    "attn_implementation",
    "add_pooling_layer",
    "trust_remote_code",
)  # the last: ignored


class SentenceEncoder(Encoder):
    """A `SentenceTransformer` whose first module takes images; the vectors are those of its `encode`.

    Raises:
        ValueError: a model of texts alone, or of images alone.
    """

    def __init__(self, model, name: str = ""):
        self.name = name or "this SentenceTransformer"
        if not {"image", "text"} <= set(model.modalities):
            raise ValueError(
                f"{self.name} is a {LIBRARY} model of {' and '.join(map(str, model.modalities)) or 'nothing'}, not of "
                f"images and texts: take a dual encoder ({KINDS})"
            )
        self.model, self.processor = model.eval(), model.processor
        self.text_limit = limit if (limit := model.max_seq_length) and limit < 1e9 else None
        self._prompt = model.prompts.get(model.default_prompt_name)

    @property
    def tokenizer(self):
        """Of the texts."""
        return self.model.tokenizer

    def image_inputs(self, images) -> dict[str, Any]:
        """Prepare RGB PIL images."""
        return dict(self.model.preprocess(list(images)))

    def pixel_inputs(self, pixel_values: torch.Tensor) -> dict[str, Any]:
        """Inputs of pictures (B, 3, H, W) that were prepared in another way."""
        return {"pixel_values": pixel_values, "modality": "image"}

    def text_inputs(self, texts) -> dict[str, Any]:
        """Prepare texts, with the model's default prompt before each if it has one."""
        return dict(self.model.preprocess(list(texts), prompt=self._prompt))

    def features(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Vectors (N, D) of prepared pictures or texts on the model's device, of any length."""
        vectors = self.model(dict(inputs))["sentence_embedding"]
        return vectors if self.model.truncate_dim is None else vectors[..., : self.model.truncate_dim]


def is_sentence_transformer(source: str, shared: dict) -> bool:
    """Whether a folder or repository is one of sentence-transformers, and not one of vsehub, which are both."""
    return _settings(source, "modules.json", shared) is not None and (
        (_settings(source, "config.json", shared) or {}).get("model_type") not in OURS
    )


def load_sentence_encoder(source: str, loading: dict, shared: dict) -> SentenceEncoder:
    """Load a model of sentence-transformers.

    Raises:
        ValueError: it does not take both images and texts, or its settings name code to be fetched.
        ImportError: sentence-transformers is not installed.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise ImportError(f'{source} needs {LIBRARY}: pip install "vsehub[{LIBRARY}]"') from None
    if not shared.get("trust_remote_code"):
        _refuse_code(source, shared)
    shared = dict(shared)
    shared["cache_folder"] = shared.pop("cache_dir", None)
    others = {name: value for name, value in loading.items() if name not in shared and name != "cache_dir"}
    model = SentenceTransformer(source, device="cpu", model_kwargs=others or None, **shared)
    return SentenceEncoder(model, source)


def _settings(source: str, name: str, shared: dict):
    """The content of a JSON file of a folder or repository; None if there is none."""
    place = {key: value for key, value in shared.items() if key != "trust_remote_code"}
    path = cached_file(
        source,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
        **place,
    )
    return None if path is None else _json(Path(path))


def _json(path: Path):
    """What a file of JSON holds.

    Raises:
        ValueError: it holds none; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON, or half of a file ({error}): get the model again") from None


def _refuse_code(source: str, shared: dict):
    """Refuse settings, in any of the folders, that name code to be fetched, or weights to be unpickled as code.

    Raises:
        ValueError: such settings; see also `refuse_kernels`.
    """
    place = {key: value for key, value in shared.items() if key != "trust_remote_code"}
    folder = source if Path(source).is_dir() else snapshot_download(source, allow_patterns="*.json", **place)
    for path in sorted(Path(folder).rglob("*config*.json")):
        content = _json(path)
        content = content if isinstance(content, dict) else {}
        refuse_kernels(content)
        given = {name for part in MODEL_ARGUMENTS for name in content.get(part) or {}}
        if given - set(HARMLESS):
            raise ValueError(
                f"{source}: {path.name} changes how weights are loaded ({', '.join(sorted(given - set(HARMLESS)))}), "
                "which no configuration may: delete these settings"
            )


__all__ = ["SentenceEncoder", "is_sentence_transformer", "load_sentence_encoder"]
