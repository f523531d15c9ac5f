"""Save the embeddings of a split with a description, so that other protocols can use them.

The file is safetensors: `image_embeds` (N, D), `text_embeds` (T, D), `text_to_image` (T,), and as metadata the model,
its revision, the data, the split, and how they were embedded. It is refused where one of these differs.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..data.rows import image_source
from ..files.digests import folder_digest, rows_digest
from ..files.remembered import folder_state, remembered
from ..files.whole import whole_path
from ..processing.load_encoder import snapshot_of
from .embed import Embeds

BANDS = "bands"  # of scenes, where some are chosen; files of earlier versions do not say theirs


def embedding_facts(source: str, rows, split: str, dtype: str, max_length: int | None, loading: dict) -> dict[str, str]:
    """All that embeddings depend on.

    Args:
        source: folder or Hub id of the model.
        rows: prepared rows.
        split: name of the split.
        dtype: `float32` or `bfloat16`.
        max_length: tokens kept of a caption; None: all.
        loading: `revision` and `trust_remote_code`, as the model was loaded.
    """
    return {
        "model": Path(source).resolve().name if Path(source).is_dir() else source,
        "revision": model_revision(source, loading["revision"]),
        "data": data_fingerprint(rows),
        "split": split,
        "dtype": dtype,
        "max_length": str(max_length),
        **({BANDS: str(rows[0][BANDS])} if BANDS in rows.column_names else {}),
    }


def model_revision(source: str, revision: str | None = None) -> str:
    """The commit of a Hub repository that was loaded, or a digest of all weights and settings of a folder."""
    if not Path(source).is_dir():
        return Path(snapshot_of(source, revision=revision) or "None").name
    return remembered(source, folder_state(source), ["folder"], lambda: folder_digest(source))


def data_fingerprint(rows) -> str:
    """Digest of prepared rows, see `files.digests.rows_digest`."""
    return rows_digest(map(image_source, rows["image"]), rows["image_id"], rows["captions"])


def write_embeddings(path: str | Path, embeds: Embeds, facts: dict[str, str]):
    """Write a file; after an error there is none."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in embeds._asdict().items()}
    with whole_path(path) as draft:
        save_file(tensors, draft, metadata=facts)


def read_embeddings(path: str | Path, facts: dict[str, str]) -> Embeds:
    """Read what `write_embeddings` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of embeddings, or made with another model, revision, data, split or settings.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; write it with --save_embeddings")
    try:
        with safe_open(path, "pt") as file:
            saved = file.metadata() or {}
            embeds = Embeds(*(file.get_tensor(name) for name in Embeds._fields))
        _check_embeddings(embeds)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path}: not a file of embeddings ({error}); write it with --save_embeddings") from None
    other = [name for name in {**facts, BANDS: None} if saved.get(name) != facts.get(name)]
    if other:
        differences = "; ".join(f"{name} is {saved.get(name)}, not {facts.get(name)}" for name in other)
        raise ValueError(f"{path} does not fit this evaluation: {differences}. Embed again with --save_embeddings")
    return embeds


def _check_embeddings(embeds: Embeds):
    """Refuse tensors that are not embeddings and the row of the image of each text.

    Raises:
        ValueError: other numbers or shapes, NaN, or an image that does not exist.
    """
    images, texts, owners = embeds
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1] or owners.shape != texts.shape[:1]:
        raise ValueError(f"shapes {[tuple(tensor.shape) for tensor in (images, texts, owners)]}")
    if not (images.is_floating_point() and texts.is_floating_point() and owners.dtype == torch.long):
        raise ValueError(f"numbers of {images.dtype}, {texts.dtype} and {owners.dtype}")
    if not (images.isfinite().all() and texts.isfinite().all()):
        raise ValueError("some are not finite")
    if len(owners) and not 0 <= int(owners.min()) <= int(owners.max()) < len(images):
        raise ValueError("a text belongs to no image")


__all__ = ["data_fingerprint", "embedding_facts", "model_revision", "read_embeddings", "write_embeddings"]
