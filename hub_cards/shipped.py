"""Which files of a model's folder may be uploaded to the Hub: those on a list that are inside it and are no pickles."""

import json
import pickletools
import re
from collections.abc import Iterable
from pathlib import Path

CODE = re.compile(
    r"(?:configuration|modeling|processing|pipeline)_\w+"
    r"|length_groups|pooling|tel|towers|tower_probe|pixels|batching|handler"
)
NAMES = {
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "processor_config.json",
    "preprocessor_config.json",
    "chat_template.jinja",
    # words of tokenizers
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "bpe.codes",
    "spiece.model",
    "sentencepiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    # of sentence-transformers
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Normalize/config.json",
    # of the endpoint
    "requirements.txt",
}
READ_BY_PUSH = ("config.json", "model.safetensors.index.json")  # with more exact messages
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
TERMS = re.compile(r"(licen[cs]e|notice|copying)(-(mit|apache|bsd)|\.apache-2\.0)?(\.(txt|md|rst))?")
PICTURE = re.compile(r"[\w-][\w.-]*\.(jpe?g|png)", re.ASCII)
TEXTS = (".json", ".py", ".txt", ".md", ".rst", ".jinja", ".codes")
PRIVATE_KEY = b"PRIVATE KEY-----"
STARTS = {".jpg": b"\xff\xd8\xff", ".jpeg": b"\xff\xd8\xff", ".png": b"\x89PNG\r\n\x1a\n"}


def files_to_ship(folder: str | Path) -> list[tuple[str, Path]]:
    """Name in the repository and path of each file that may be uploaded; other files of the folder are not.

    Pictures are uploaded if the card names them, code if it has the name of a file that vsehub writes.

    Raises:
        ValueError: a link out of the folder, or a file whose content does not fit its name.
    """
    folder = Path(folder)
    card = folder / "README.md"
    shown = pictures_of(card.read_text(encoding="utf-8", errors="replace") if card.is_file() else "")
    names = [path.relative_to(folder).as_posix() for path in sorted([*folder.glob("*"), *folder.glob("*/*")])]
    files = [(name, folder / name) for name in names if is_listed(name, shown) and (folder / name).is_file()]
    for name, path in files:
        _check_place(path, folder)
        _check_content(name, path)
    return files


def pictures_of(card: str) -> set[str]:
    """Names of the pictures that a card shows."""
    return {name for name in re.findall(r"[\w.-]+", card, re.ASCII) if PICTURE.fullmatch(name.casefold())}


def is_listed(name: str, shown: Iterable[str] = ()) -> bool:
    """Whether a file of this name may be uploaded; `shown` are the pictures that the card shows."""
    if name in NAMES or name in shown or SHARD.fullmatch(name) or TERMS.fullmatch(name.casefold()):
        return True
    return name.endswith(".py") and CODE.fullmatch(name.removesuffix(".py")) is not None


def _check_place(path: Path, folder: Path):
    """Refuse a link out of the folder; links of a snapshot in the Hub's cache to its blobs are allowed."""
    place, home = path.resolve(), folder.resolve()
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else None
    if not place.is_relative_to(home) and (blobs is None or place.parent != blobs):
        raise ValueError(
            f"{path} is a link to {place}, outside the folder: put the file itself there, or remove the link"
        )


def _check_content(name: str, path: Path):
    """Refuse a file whose content does not fit its name; `push` checks weights."""
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return
    data = path.read_bytes()
    if suffix in STARTS and not data.startswith(STARTS[suffix]):
        raise ValueError(f"{path} is no picture: remove it, or put the picture there")
    if suffix in STARTS:
        return
    if PRIVATE_KEY in data:
        raise ValueError(f"{path} holds a private key: remove it")
    if is_pickle(data):
        raise ValueError(f"{path} is a pickle, which runs code when it is read: remove it")
    if suffix in TEXTS or not suffix:
        try:
            text = data.decode()
            if suffix == ".json" and name not in READ_BY_PUSH:
                json.loads(text)
        except ValueError as error:  # also from decoding UTF-8
            raise ValueError(f"{path} is no {suffix[1:] or 'text'} file ({error}): save the model again") from None


def is_pickle(data: bytes) -> bool:
    """Whether bytes are a pickle of any protocol, or an archive of them as torch writes it."""
    if data.startswith(b"PK\x03\x04"):
        return True
    calls = False
    try:
        for code, _, _ in pickletools.genops(data):
            calls = calls or code.name in ("GLOBAL", "STACK_GLOBAL", "INST", "REDUCE", "BUILD", "PROTO")
    except Exception:  # text, JSON, a model of SentencePiece
        return False
    return calls


__all__ = ["files_to_ship", "is_listed", "is_pickle", "pictures_of"]
