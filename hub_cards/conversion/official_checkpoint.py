"""Read research checkpoints without running code in them and without losing a weight.

What every converter needs: the file's tensors and options, the tower configurations that its tensors imply, and
a load in which every tensor is used and every weight is filled.
"""

import argparse
import json
import re
import reprlib
import tempfile
from collections import Counter
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, AutoTokenizer, BertTokenizer, PreTrainedModel
from transformers.utils import logging

from ...files.text import printable, text_of
from ...processing.processing_dual_encoder import forget_last_call, no_words, text_positions

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32)  # the last count
COUNTER = "num_batches_tracked"  # the one weight that is used and holds whole numbers
LARGEST_IMAGE = 4096  # pixels of a side; published models read 480 at most
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # every vocab.txt of BERT has them


class CheckpointError(ValueError):
    """A checkpoint that cannot be converted; the message says which key or field and what to do."""


class WeightError(CheckpointError):
    """A weight that is missing or has a wrong shape; the converter replaces its name with the official one.

    Args:
        name: of the weight.
        fault: what is wrong, with `{}` for the name.
    """

    def __init__(self, name: str, fault: str = "the checkpoint lacks {}"):
        super().__init__(fault.format(name))
        self.name, self.fault = name, fault


def open_checkpoint(path: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Read `{'model': state_dict, 'opt' or 'config': ...}`, a pickle, as tensors and plain values only.

    Returns:
        The state dict without `module.` prefixes, and the options as a dict (empty where the file has none).

    Raises:
        CheckpointError: not such a file, or a pickle that wants to call something; nothing of it has run.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: name the official file in it, such as model_best.pth")
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
    plain = {key.removeprefix("module."): value for key, value in state.items()}
    if len(plain) < len(state):
        raise CheckpointError(f"{path}: 'model' holds weights both with and without 'module.' before the same name")
    return plain, dict(options or {})


def _check_tensor(path: Path, key: str, value: torch.Tensor):
    """Refuse a tensor of numbers that are no weights, one without data, and one that declares more than the file holds.

    Using the last would allocate that memory.
    """
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        kind = value.device.type if value.device.type != "cpu" else str(value.layout).removeprefix("torch.")
        raise CheckpointError(f"{path}: {key} is a {kind} tensor; the official files hold plain ones")
    if value.dtype not in DTYPES:
        kind = str(value.dtype).removeprefix("torch.")
        raise CheckpointError(f"{path}: {key} holds {kind} numbers; the official files hold float32 weights")
    if not value.numel():
        raise CheckpointError(f"{path}: {key} has shape {tuple(value.shape)}, without a number in it")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise CheckpointError(
            f"{path}: {key} says that it has shape {tuple(value.shape)}, but the file holds less of it"
        )


def check_folders(*folders: str | Path | None):
    """Refuse an output folder that is not empty."""
    for folder in filter(None, folders):
        if Path(folder).exists() and (not Path(folder).is_dir() or any(Path(folder).iterdir())):
            raise CheckpointError(f"{folder}: exists and is not an empty folder; choose a new one")


def translator(names: dict[str, str]):
    """Make two functions from a table of name prefixes: official -> ours, and back; None for an unknown name.

    In the table, `{a}` is a number, the same on both sides; `{a+4}` is one that is larger by 4 on that side.
    """

    slot = re.compile(r"\{(\w)(?:\+(\d+))?\}")

    def compiled(pairs):
        rules = []
        for theirs, ours in pairs:
            literal = [re.escape(part) for part in re.split(r"\{.*?\}", theirs)]
            rules.append((re.compile(r"(\d+)".join(literal)), slot.findall(theirs), ours))
        return rules

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
    """Rename what is used, and count what is not.

    Args:
        state: tensors by official name.
        unused: label -> pattern of the official names that it counts.
        our_name: official name -> ours.

    Returns:
        Tensors by our name, and the number of unused ones by label.

    Raises:
        CheckpointError: a name that is not known, one that is there twice, or a weight of whole numbers.
    """
    used, dropped = {}, Counter()
    for key, value in state.items():
        label = next((label for label, pattern in unused.items() if re.match(pattern, key)), None)
        if label is not None:
            dropped[label] += 1
            continue
        name = our_name(key)
        if name in used:
            raise CheckpointError(f"{key} is there twice, under another spelling of its numbers")
        if not value.is_floating_point() and not name.endswith(COUNTER):
            kind = str(value.dtype).removeprefix("torch.")
            raise CheckpointError(f"{key} holds {kind} numbers; the official files hold float32 weights")
        used[name] = value
    return used, dropped


def check_options(options: dict, kinds: dict[str, Any], place: str, positive: tuple[str, ...] = ()):
    """Refuse options with values of wrong types, which might mean anything; one that is absent is none.

    Args:
        kinds: name -> `int`, `bool`, or `(int, float)`.
        place: how errors call the options.
        positive: names of numbers that are 1 or more.
    """
    for name, kind in kinds.items():
        if name not in options:
            continue
        value = options[name]
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            expected = {int: "an integer", bool: "true or false"}.get(kind, "a number")
            raise CheckpointError(f"{place}.{name} is {reprlib.repr(value)}; expected {expected}")
        if name in positive and value < 1:
            raise CheckpointError(f"{place}.{name} is {value}; expected 1 or more")


def check_image_size(size: int, vision_config, place: str, remedy: str):
    """Refuse a size of images, in pixels, that the vision tower cannot cut into patches."""
    patch = getattr(vision_config, "patch_size", 1)
    patch = patch if isinstance(patch, int) else 1
    if size < 1 or size % patch or size > LARGEST_IMAGE:
        raise CheckpointError(
            f"{place} is {size}, not a number of pixels from {patch} to {LARGEST_IMAGE:,} that patches of {patch} "
            f"fill; {remedy}"
        )


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
    words = f"{prefix}embeddings.word_embeddings.weight"
    vocabulary, width = shape_of(state, words, 2)
    return CONFIG_MAPPING["bert"](
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=count_blocks(state, f"{prefix}encoder.layer."),
        num_attention_heads=_heads(words, width),
        intermediate_size=shape_of(state, f"{prefix}encoder.layer.0.intermediate.dense.weight", 2)[0],
        max_position_embeddings=shape_of(state, f"{prefix}embeddings.position_embeddings.weight", 2)[0],
        type_vocab_size=shape_of(state, f"{prefix}embeddings.token_type_embeddings.weight", 2)[0],
    )


def infer_vision(state: dict[str, torch.Tensor], prefix: str):
    """ViT or Swin as the tensors below `prefix` imply it."""
    swin = any(key.startswith(f"{prefix}encoder.layers.") for key in state)
    return _infer_swin(state, prefix) if swin else _infer_vit(state, prefix)


def _heads(name: str, width: int) -> int:
    """The number of heads of a tower whose weight `name` says how wide it is."""
    heads = max(1, width // 64)
    if width % heads:
        raise WeightError(name, f"{{}} is {width} wide, not a multiple of 64: pass the tower's config.json")
    return heads


def _infer_vit(state, prefix):
    patches, table = f"{prefix}embeddings.patch_embeddings.projection.weight", f"{prefix}embeddings.position_embeddings"
    width, channels, patch, _ = shape_of(state, patches, 4)
    positions = shape_of(state, table, 3)[1]
    if positions < 2:
        raise WeightError(table, "{} has no position of a patch")
    layer = f"{prefix}encoder.layer.0."
    return CONFIG_MAPPING["vit"](
        hidden_size=width,
        num_hidden_layers=count_blocks(state, f"{prefix}encoder.layer."),
        num_attention_heads=_heads(patches, width),
        intermediate_size=shape_of(state, f"{layer}intermediate.dense.weight", 2)[0],
        image_size=round((positions - 1) ** 0.5) * patch,  # the position table's
        patch_size=patch,
        num_channels=channels,
        qkv_bias=f"{layer}attention.attention.query.bias" in state,
    )


def _infer_swin(state, prefix):
    width, channels, patch, _ = shape_of(state, f"{prefix}embeddings.patch_embeddings.projection.weight", 4)
    count = count_blocks(state, f"{prefix}encoder.layers.")
    stages = [f"{prefix}encoder.layers.{stage}.blocks." for stage in range(count)]
    tables = [shape_of(state, f"{stage}0.attention.self.relative_position_bias_table", 2) for stage in stages]
    window = (round(tables[0][0] ** 0.5) + 1) // 2  # a table has (2 window - 1)^2 rows
    return CONFIG_MAPPING["swin"](
        embed_dim=width,
        depths=[count_blocks(state, stage) for stage in stages],
        num_heads=[heads for _, heads in tables],
        window_size=window,
        mlp_ratio=shape_of(state, f"{stages[0]}0.intermediate.dense.weight", 2)[0] / width,
        image_size=window * 32,  # 224 for window 7, 384 for window 12; Swin has no position table
        patch_size=patch,
        num_channels=channels,
        qkv_bias=any(key.startswith(prefix) and key.endswith("attention.self.query.bias") for key in state),
        use_absolute_embeddings=f"{prefix}embeddings.position_embeddings" in state,
    )


def infer_resnet(state: dict[str, torch.Tensor], prefix: str):
    """A bottleneck ResNet as the tensors below `prefix` imply it."""
    count = max(1, count_blocks(state, f"{prefix}encoder.stages."))
    stages = [f"{prefix}encoder.stages.{stage}.layers." for stage in range(count)]
    return CONFIG_MAPPING["resnet"](
        embedding_size=shape_of(state, f"{prefix}embedder.embedder.convolution.weight", 4)[0],
        hidden_sizes=[shape_of(state, f"{stage}0.layer.2.convolution.weight", 4)[0] for stage in stages],
        depths=[count_blocks(state, stage) for stage in stages],
        layer_type="bottleneck",
    )


def count_blocks(state: dict[str, torch.Tensor], prefix: str) -> int:
    """Count the blocks `prefix + '0.'`, `'1.'`, ...; a gap between them is an error: a model would be built for it."""
    blocks = {}
    for key in state:
        if key.startswith(prefix) and (index := re.match(r"[0-9]{1,9}(?=\.)", key[len(prefix) :])):
            blocks.setdefault(int(index[0]), key)
    for place, index in enumerate(sorted(blocks)):
        if place != index:
            raise WeightError(blocks[index], f"{{}} is there, but no weight of block {place} before it")
    return len(blocks)


def shape_of(state: dict[str, torch.Tensor], key: str, dims: int) -> tuple[int, ...]:
    """Return a tensor's shape, `dims` numbers; its absence, or another number of them, is an error."""
    if key not in state:
        raise WeightError(key)
    shape = tuple(state[key].shape)
    if len(shape) != dims:
        raise WeightError(key, f"{{}} has shape {shape}; it needs {dims} dimensions")
    return shape


def load_tokenizer(source: str | Path, text_config):
    """Load a tokenizer from a folder or from BERT's `vocab.txt` (lower-cased); captions are cut at the tower's limit.

    Raises:
        CheckpointError: neither is there, it is damaged or has no words, or it has more tokens than the text tower.
    """
    path = Path(source)
    if path.is_dir():
        tokenizer = _tokenizer_of_folder(path)
    elif path.is_file():
        words = text_of(path).rstrip("\n").split("\n")
        tokenizer = BertTokenizer(vocab=_checked_vocabulary(words, source), do_lower_case=True)
    else:
        raise CheckpointError(f"{source}: no folder of a tokenizer and no vocab.txt")
    rows = text_config.vocab_size
    if len(tokenizer) > rows:
        raise CheckpointError(f"{source}: {len(tokenizer)} tokens, but the text tower's table has {rows} rows")
    tokenizer.model_max_length = min(tokenizer.model_max_length, text_positions(text_config))
    return tokenizer


def _tokenizer_of_folder(path: Path):
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers' own advice is to install packages, where files are missing
        raise CheckpointError(
            f"{path}: no tokenizer can be read there ({type(error).__name__}); name a folder that "
            "tokenizer.save_pretrained wrote (with tokenizer.json), or BERT's vocab.txt"
        ) from None
    if no_words(tokenizer):
        raise CheckpointError(f"{path}: a tokenizer without words or without a token for padding; name the model's own")
    forget_last_call(tokenizer)
    return tokenizer


def _checked_vocabulary(words: list[str], source) -> dict[str, int]:
    """Number the lines of a `vocab.txt`; a text that is none would embed every caption as unknown words."""
    rows = {word: row for row, word in enumerate(words)}
    lacks = [word for word in SPECIAL if word not in rows]
    if lacks or len(rows) <= len(SPECIAL):
        what = f"lacks {', '.join(lacks)}" if lacks else "has no words"
        raise CheckpointError(f"{source}: not BERT's vocab.txt, one token a line: it {what}; take the model's own file")
    if len(rows) < len(words):
        twice = next(row for row, word in enumerate(words) if rows[word] != row)
        raise CheckpointError(f"{source}: line {twice + 1} is there twice, so that a row of the table has no word")
    return rows


def vocabulary_warnings(tokenizer, text_config) -> list[str]:
    """What to tell a user whose tokenizer has fewer tokens than the text tower's table has rows."""
    tokens, rows = len(tokenizer), text_config.vocab_size
    if tokens == rows:
        return []
    return [f"the tokenizer has {tokens} tokens, the text tower's table {rows} rows: is it the one of these weights?"]


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
        try:
            model, info = cls.from_pretrained(
                folder, output_loading_info=True, ignore_mismatched_sizes=True, dtype=torch.float32
            )
        except (ValueError, ZeroDivisionError, RuntimeError) as error:
            raise CheckpointError(
                f"the sizes of the weights make no model ({printable(error)}): is it the file of another one?"
            ) from None
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
    # transformers 5.0 writes the names that TensorFlow's BERT had.
    names = [re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name) for name in names]
    names = [re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name) for name in names]
    return set(names)


def _some(keys):
    names = sorted(set(keys))
    return ", ".join(names[:5]) + (f", ... ({len(names)} in all)" if len(names) > 5 else "")
