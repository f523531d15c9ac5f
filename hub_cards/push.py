"""Upload a saved model to a Hub repository in one commit.

Readers see the complete old version or the complete new one. Only needed files are uploaded: safetensors,
configuration, code, processor, card; no pickle, no optimizer, no training checkpoint.
"""

import json
import re
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError
from transformers import AutoModel
from transformers.utils import logging

from ..files.text import text_of
from ..modeling.towers import load_complete, load_errors
from ..processing.load_encoder import load_processor
from . import installed  # noqa: F401  (registers our classes with AutoModel and AutoProcessor)
from .model_card import REPO_ID, SOMEWHERE
from .shipped import files_to_ship, is_listed, pictures_of

TAG = re.compile(r"\w([\w.-]*\w)?", re.ASCII)
OURS = ("D2SVSEModel", "PIRModel")
logger = logging.get_logger(__name__)


def push(
    folder: str | Path, repo_id: str, private: bool = False, tag: str | None = None, message: str | None = None
) -> str:
    """Upload a saved model's folder; return the commit's address.

    Args:
        folder: what `save_pretrained` wrote (for a training run, its `hub` folder), with a card.
        repo_id: `name` or `organisation/name`.
        private: whether a new repository is private; one that is public is refused then.
        tag: put on the new commit; an existing one is refused before anything is uploaded.
        message: of the commit.

    Raises:
        ValueError: the folder is incomplete, the repository holds another architecture, or is public and should be
            private, or the tag exists.
    """
    folder, api = Path(folder), HfApi()
    check_names(repo_id, tag)
    files = shipped_files(folder)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if private and not api.repo_info(repo_id).private:
        raise ValueError(
            f"{repo_id} is there and public, and --private is of a new repository: make it private in its settings on "
            "the Hub, or leave --private out"
        )
    there = set(api.list_repo_files(repo_id))
    _same_architecture(api, repo_id, there, folder)
    if tag is not None and _has_tag(api, repo_id, tag):
        raise ValueError(f"{repo_id} has a tag {tag!r} already, and a tag never moves: choose another")
    card = _addressed(folder / "README.md", repo_id, tag)
    adds = [CommitOperationAdd(name, card if name == "README.md" else str(path)) for name, path in files]
    stale = _stale(api, repo_id, there, {name for name, _ in files})
    commit = api.create_commit(
        repo_id,
        adds + [CommitOperationDelete(name) for name in stale],
        commit_message=message or "Model, processor, code and card",
    )
    if stale:
        logger.warning("no longer in %s, except in its history: %s", repo_id, ", ".join(stale))
    if tag is not None:
        api.create_tag(repo_id, tag=tag, revision=commit.oid)
    return commit.commit_url


def check_names(repo_id: str, tag: str | None):
    """Refuse what cannot be the name of a repository or of a tag, before anything is sent.

    Raises:
        ValueError: such a name.
    """
    if not REPO_ID.fullmatch(repo_id):
        raise ValueError(f"{repo_id!r} is no name of a repository: letters, digits, - _ . and one /")
    if tag is not None and (not TAG.fullmatch(tag) or ".." in tag):  # git would refuse it only after the upload
        raise ValueError(f"{tag!r} is no name of a tag: letters, digits, - _ . such as v1")


def shipped_files(folder: Path) -> list[tuple[str, Path]]:
    """Name in the repository and path of each file to upload.

    Raises:
        ValueError: a needed file is missing or damaged.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no saved model (config.json); give the folder that save_pretrained wrote")
    named = _config(folder).get("architectures") or [None]
    if not isinstance(named, list) or named[0] not in OURS:
        raise ValueError(f"{folder} holds {named}, not a model of vsehub ({' or '.join(OURS)})")
    wanted = files_to_ship(folder)
    have = {name for name, _ in wanted}
    needs = {
        "weights (model.safetensors)": have & {"model.safetensors", "model.safetensors.index.json"},
        "a processor (processor_config.json): call processor.save_pretrained": "processor_config.json" in have,
        "a card (README.md): write_model_card": "README.md" in have,
        "its code (*.py): save it with an installed vsehub": any(name.startswith("modeling_") for name in have),
    }
    missing = [what for what, present in needs.items() if not present]
    if missing:
        raise ValueError(f"{folder} lacks {'; '.join(missing)}")
    _check_shards(folder, have)
    with load_errors(folder):  # as readers will
        load_processor(str(folder), trust_remote_code=False)
        load_complete(AutoModel, folder, trust_remote_code=False)
    return wanted


def _check_shards(folder: Path, have: set[str]):
    """Refuse an incomplete set of shards, and shards beside `model.safetensors`, which readers would load instead."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{index} is no index of shards ({type(error).__name__}: {error}); save the model again"
        ) from None
    if missing := sorted(shards - have):
        raise ValueError(f"{folder} lacks weights ({missing[0]}, which {index.name} names); save the model again")
    if "model.safetensors" in have:
        raise ValueError(f"{folder} holds model.safetensors and shards: delete those that are old")


def _config(folder: Path) -> dict:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["model_type"]
        return config
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / 'config.json'} is no configuration ({type(error).__name__}: {error}); save the model again"
        ) from None


def _addressed(card: Path, repo_id: str, tag: str | None) -> bytes:
    """The card; its examples name the repository and the tag of this version."""
    text = text_of(card).replace(f'"{SOMEWHERE}"', f'"{repo_id}"')
    for quoted in ('revision="main"', '"revision": "main"') if tag else ():
        text = text.replace(quoted, quoted.replace('"main"', f'"{tag}"'))
    return text.encode()


def _same_architecture(api: HfApi, repo_id: str, there: set[str], folder: Path):
    ours, theirs = _config(folder)["model_type"], None
    if "config.json" in there:
        text = text_of(api.hf_hub_download(repo_id, "config.json"))
        try:
            theirs = json.loads(text)["model_type"]
        except (ValueError, KeyError, TypeError):
            theirs = "model of an unknown kind"
    elif "adapter_config.json" in there:
        theirs = "lone adapter"
    if theirs not in (None, ours):
        raise ValueError(f"{repo_id} holds a {theirs}, this is a {ours}: choose another name")


def _stale(api: HfApi, repo_id: str, there: set[str], new: set[str]) -> list[str]:
    """What an earlier push may have uploaded and this one does not; all else in the repository is its owner's."""
    shown = set()
    if "README.md" in there:
        card = Path(api.hf_hub_download(repo_id, "README.md")).read_text(encoding="utf-8", errors="replace")
        shown = pictures_of(card)
    return sorted(name for name in there - new if is_listed(name, shown))


def _has_tag(api: HfApi, repo_id: str, tag: str) -> bool:
    try:
        api.repo_info(repo_id, revision=tag)
    except (RepositoryNotFoundError, EntryNotFoundError):
        return False
    except OSError as error:
        if getattr(getattr(error, "response", None), "status_code", None) == 404:
            return False
        raise
    return True


__all__ = ["check_names", "push", "shipped_files"]
