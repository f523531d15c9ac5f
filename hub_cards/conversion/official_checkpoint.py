"""Read research checkpoints without running code in them and without losing a weight.

What every converter needs: the file's tensors and options, the tower configurations that its tensors imply, and
a load in which every tensor is used and every weight is filled.
"""

import argparse
import json
import re
import tempfile
from collections import Counter
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, AutoTokenizer, BertTokenizer, PreTrainedModel
from transformers.utils import logging

from ...files.text import text_of
from ...processing.processing_dual_encoder import forget_last_call, text_positions


class CheckpointError(ValueError):
    """A checkpoint that cannot be converted; the message says which key or field and what to do."""


class MissingWeightError(CheckpointError):
    """A weight that the checkpoint lacks; the converter replaces its name with the official one."""

    def __init__(self, name: str):
        super().__init__(f"the checkpoint lacks {name}")
        self.name = name


def open_checkpoint(path: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Read `{'model': state_dict, 'opt' or 'config': ...}`, a pickle, as tensors and plain values only.

    Returns:
        The state dict without `module.` prefixes, and the options as a dict (empty where the file has none).

    Raises:
        CheckpointError: not such a file, or a pickle that wants to call something; nothing of it has run.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged and hostile files raise many types of errors
        named = re.search(r"(?i)unsupported \w+:? (?:GLOBAL )?[\w.]+", str(error))
        reason = named.group() if named else type(error).__name__  # torch's own message suggests unsafe loading
        raise CheckpointError(
            f"{path}: refused, and nothing of it was run: not tensors and plain values alone ({reason})"
        ) from None
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"{path}: no 'model' entry with a state dict; the official files have one")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(f"{path}: 'model' holds a {type(value).__name__} at {key!r}, not tensors alone")
        _check_tensor(path, key, value)
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{path}: {key} holds NaN or infinity")
    options = content.get("opt", content.get("config"))
    options = vars(options) if isinstance(options, argparse.Namespace) else options
    if options is not None and not isinstance(options, dict):
        raise CheckpointError(f"{path}: its options are a {type(options).__name__}, not names and values")
    return {key.removeprefix("module."): value for key, value in state.items()}, dict(options or {})


def _check_tensor(path: Path, key: str, value: torch.Tensor):
    """Refuse a tensor without data, or whose declared size exceeds the file: using it would allocate that memory."""
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        kind = value.device.type if value.device.type != "cpu" else str(value.layout).removeprefix("torch.")
        raise CheckpointError(f"{path}: {key} is a {kind} tensor; the official files hold plain ones")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise CheckpointError(
            f"{path}: {key} says that it has shape {tuple(value.shape)}, but the file holds less of it"
        )


def check_folders(*folders: str | Path | None):
    """Refuse an output folder that is not empty."""
    for folder in filter(None, folders):
        if Path(folder).exists() and (not Path(folder).is_dir() or any(Path(folder).iterdir())):
            raise CheckpointError(f"{folder}: exists and is not an empty folder")


def translator(names: dict[str, str]):
    """Make two functions from a table of name prefixes: official -> ours, and back; None for an unknown name.

    In the table, `{a}` is a number, the same on both sides; `{a+4}` is one that is larger by 4 on that side.
    """

    slot = re.compile(r"\{(\w)(?:\+(\d+))?\}")

    def compiled(pairs):
        return [
            (
                re.compile("(\\d+)".join(re.escape(part) for part in re.split(r"\{.*?\}", theirs))),
                slot.findall(theirs),
                ours,
            )
            for theirs, ours in pairs
        ]

    def translate(rules, name):
        for pattern, slots, template in rules:
            if match := pattern.match(name):
                values = {key: int(number) - int(more or 0) for (key, more), number in zip(slots, match.groups())}
                return slot.sub(partial(_filled, values), template) + name[match.end() :]
        return None

    there, back = compiled(names.items()), compiled((ours, theirs) for theirs, ours in names.items())
    return partial(translate, there), partial(translate, back)


def _filled(values: dict[str, int], match) -> str:
    return str(values[match[1]] + int(match[2] or 0))


def renamed(to_ours, key: str, system: str) -> str:
    """Translate an official name; an unknown one is an error."""
    name = to_ours(key)
    if name is None:
        raise CheckpointError(f"unknown weights, which no released {system} model has: {key}")
    return name


def sort_out(state: dict[str, torch.Tensor], unused: dict[str, str], our_name) -> tuple[dict, Counter]:
    """Rename what is used, and count what is not: `unused` maps labels to patterns of official names."""
    used, dropped = {}, Counter()
    for key, value in state.items():
        label = next((label for label, pattern in unused.items() if re.match(pattern, key)), None)
        if label is None:
            used[our_name(key)] = value
        else:
            dropped[label] += 1
    return used, dropped


def tower_config(source: str | Path | dict):
    """Read a tower's configuration from a `config.json` of any transformers version; unknown fields are ignored.

    Raises:
        CheckpointError: not a JSON object with a known `model_type`.
    """
    try:
        values = source if isinstance(source, dict) else json.loads(Path(source).read_text(encoding="utf-8"))
        kind = CONFIG_MAPPING[values["model_type"]]
        ours = set(kind().to_dict()) - {"_name_or_path", "transformers_version", "architectures", "dtype"}
        return kind(**{name: value for name, value in values.items() if name in ours})
    except Exception as error:  # unreadable, not JSON, no such model, or values that its class refuses
        raise CheckpointError(
            f"{source}: not a tower's config.json with a 'model_type' ({type(error).__name__}: {error})"
        ) from None


def infer_bert(state: dict[str, torch.Tensor], prefix: str):
    """BERT as the tensors below `prefix` imply it; heads are 64 wide, as in every published size."""
    vocabulary, width = shape_of(state, f"{prefix}embeddings.word_embeddings.weight")
    return CONFIG_MAPPING["bert"](
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=count_blocks(state, f"{prefix}encoder.layer."),
        num_attention_heads=max(1, width // 64),
        intermediate_size=shape_of(state, f"{prefix}encoder.layer.0.intermediate.dense.weight")[0],
        max_position_embeddings=shape_of(state, f"{prefix}embeddings.position_embeddings.weight")[0],
        type_vocab_size=shape_of(state, f"{prefix}embeddings.token_type_embeddings.weight")[0],
    )


def infer_vision(state: dict[str, torch.Tensor], prefix: str):
    """ViT or Swin as the tensors below `prefix` imply it."""
    swin = any(key.startswith(f"{prefix}encoder.layers.") for key in state)
    return _infer_swin(state, prefix) if swin else _infer_vit(state, prefix)


def _infer_vit(state, prefix):
    width, channels, patch, _ = shape_of(state, f"{prefix}embeddings.patch_embeddings.projection.weight")
    positions = shape_of(state, f"{prefix}embeddings.position_embeddings")[1]
    layer = f"{prefix}encoder.layer.0."
    return CONFIG_MAPPING["vit"](
        hidden_size=width,
        num_hidden_layers=count_blocks(state, f"{prefix}encoder.layer."),
        num_attention_heads=max(1, width // 64),
        intermediate_size=shape_of(state, f"{layer}intermediate.dense.weight")[0],
        image_size=round((positions - 1) ** 0.5) * patch,  # the position table's
        patch_size=patch,
        num_channels=channels,
        qkv_bias=f"{layer}attention.attention.query.bias" in state,
    )


def _infer_swin(state, prefix):
    width, channels, patch, _ = shape_of(state, f"{prefix}embeddings.patch_embeddings.projection.weight")
    count = count_blocks(state, f"{prefix}encoder.layers.")
    stages = [f"{prefix}encoder.layers.{stage}.blocks." for stage in range(count)]
    tables = [shape_of(state, f"{stage}0.attention.self.relative_position_bias_table") for stage in stages]
    window = (round(tables[0][0] ** 0.5) + 1) // 2  # a table has (2 window - 1)^2 rows
    return CONFIG_MAPPING["swin"](
        embed_dim=width,
        depths=[count_blocks(state, stage) for stage in stages],
        num_heads=[heads for _, heads in tables],
        window_size=window,
        mlp_ratio=shape_of(state, f"{stages[0]}0.intermediate.dense.weight")[0] / width,
        image_size=window * 32,  # 224 for window 7, 384 for window 12; Swin has no position table
        patch_size=patch,
        num_channels=channels,
        qkv_bias=any(key.startswith(prefix) and key.endswith("attention.self.query.bias") for key in state),
        use_absolute_embeddings=f"{prefix}embeddings.position_embeddings" in state,
    )


def infer_resnet(state: dict[str, torch.Tensor], prefix: str):
    """A bottleneck ResNet as the tensors below `prefix` imply it."""
    count = count_blocks(state, f"{prefix}encoder.stages.")
    stages = [f"{prefix}encoder.stages.{stage}.layers." for stage in range(count)]
    return CONFIG_MAPPING["resnet"](
        embedding_size=shape_of(state, f"{prefix}embedder.embedder.convolution.weight")[0],
        hidden_sizes=[shape_of(state, f"{stage}0.layer.2.convolution.weight")[0] for stage in stages],
        depths=[count_blocks(state, stage) for stage in stages],
        layer_type="bottleneck",
    )


def count_blocks(state: dict[str, torch.Tensor], prefix: str) -> int:
    """Count the blocks `prefix + '0.'`, `'1.'`, ..."""
    indices = {key[len(prefix) :].partition(".")[0] for key in state if key.startswith(prefix)}
    return 1 + max((int(index) for index in indices if index.isdigit()), default=-1)


def shape_of(state: dict[str, torch.Tensor], key: str) -> tuple[int, ...]:
    """Return a tensor's shape; its absence is an error."""
    if key not in state:
        raise MissingWeightError(key)
    return tuple(state[key].shape)


def load_tokenizer(source: str | Path, text_config):
    """Load a tokenizer from a folder or from BERT's `vocab.txt` (lower-cased); captions are cut at the tower's limit.

    Raises:
        CheckpointError: neither is there, or it has more tokens than the text tower.
    """
    path = Path(source)
    if path.is_dir():
        tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
        forget_last_call(tokenizer)
    elif path.is_file():
        words = text_of(path).rstrip("\n").split("\n")
        tokenizer = BertTokenizer(vocab={word: row for row, word in enumerate(words)}, do_lower_case=True)
    else:
        raise CheckpointError(f"{source}: no folder of a tokenizer and no vocab.txt")
    rows = text_config.vocab_size
    if len(tokenizer) > rows:
        raise CheckpointError(f"{source}: {len(tokenizer)} tokens, but the text tower's table has {rows} rows")
    tokenizer.model_max_length = min(tokenizer.model_max_length, text_positions(text_config))
    return tokenizer


def load_strictly(cls: type[PreTrainedModel], config, state: dict[str, torch.Tensor], their_name, computed: str):
    """Build `cls(config)` with the weights of `state`: our names and, inside towers, those of transformers 4.x.

    The weights go through a folder, because `from_pretrained` knows what the installed transformers calls by
    another name than 4.x did.

    Args:
        their_name: our name -> the checkpoint's name, for errors.
        computed: end of the names of buffers that the model computes itself, stored or not.

    Raises:
        CheckpointError: a weight that the model lacks, one that the file lacks, or one of another shape.
    """
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        tensors = {name: tensor.clone().contiguous() for name, tensor in state.items()}
        save_file(tensors, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        del tensors
        model, info = cls.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True, dtype=torch.float32
        )
        missing = [name for name in info["missing_keys"] if not name.endswith(computed)]
        unknown = list(info["unexpected_keys"])
        if missing or unknown:
            names = _disk_names(model, folder)
            missing = missing and ([name for name in names - set(state) if not name.endswith(computed)] or missing)
            unknown = unknown and ([name for name in set(state) - names if not name.endswith(computed)] or unknown)
    if unknown:
        raise CheckpointError(f"unknown weights, which the model has no place for: {_some(map(their_name, unknown))}")
    if info["mismatched_keys"]:
        other = _some(
            f"{their_name(name)} {tuple(theirs)}, {tuple(own)}" for name, theirs, own in info["mismatched_keys"]
        )
        raise CheckpointError(f"weights of another shape than the configuration says (file, model): {other}")
    if missing:
        raise CheckpointError(f"the checkpoint lacks {_some(map(their_name, missing))}")
    model.config._name_or_path = ""
    return model


@contextmanager
def _quiet():
    """Silence transformers' progress bars and its report of unused and missing keys, which are errors here."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _disk_names(model, folder):
    """The weights that `model` needs, by their names in files; it is saved to get these."""
    model.save_pretrained(f"{folder}/again", max_shard_size="1TB")
    with safe_open(f"{folder}/again/model.safetensors", framework="pt") as file:
        names = list(file.keys())
    names = [re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name) for name in names]  # 5.0 writes the names of
    names = [re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name) for name in names]  # TensorFlow's BERT
    return set(names)


def _some(keys):
    names = sorted(set(keys))
    return ", ".join(names[:5]) + (f", ... ({len(names)} in all)" if len(names) > 5 else "")
