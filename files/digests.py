"""Digests that tell whether two things are the same: weights, folders of models, files, pictures, rows, settings.

Indexes, caches and records keep these values, so a function here never changes what it returns.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

CHUNK = 1 << 22  # bytes read at a time
ENDS = 1 << 16  # bytes at both ends of a picture that `picture_digest` reads


def fingerprint(model, digest: str | None = None, source: str | None = None, revision: str | None = None) -> dict:
    """Identify a model by its weights, so that an index is never searched with another one.

    Args:
        model: a model of transformers or sentence-transformers.
        digest: `weights_digest` of it, where it is known.
        source: folder or Hub id that it was loaded from, where it does not say so itself.
        revision: commit of that repository.

    Returns:
        `id` (folder or repository), `revision` (commit, where known) and `digest`.
    """
    source = source or getattr(model.config, "_name_or_path", "") or ""
    return {
        "id": os.path.abspath(source) if os.path.isdir(source) else source,  # to be found from other folders, too
        "revision": getattr(model, "_origin", {}).get("revision") or revision,
        "digest": digest or weights_digest(model),
    }


def weights_digest(model) -> str:
    """Digest of the names, shapes, types and bytes of all parameters and buffers, 64 digits.

    Two copies of a model agree; a model that was trained one step further does not, nor one in half precision.
    """
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def tower_digest(tower, *facts) -> str:
    """Digest of a tower's weights and of what else a cache of its outputs depends on, 16 digits."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.dim() else b"")
    for fact in facts:
        digest.update(json.dumps(list(fact) if not isinstance(fact, (int, str)) else fact).encode())
    return digest.hexdigest()[:16]


def folder_digest(folder: str | Path) -> str:
    """Digest of all weights and settings of a model's folder: names and contents, `sha256:` and 16 digits.

    Folders in it count where they hold weights, as those of sentence-transformers may.
    """
    folder, digest = Path(folder), hashlib.sha256()
    weights = ("*.safetensors", "pytorch_model*.bin")
    paths = [path for kind in (*weights, "*.json", "*.txt") for path in folder.glob(kind)]
    below = {path.parent for kind in weights for path in folder.glob(f"*/{kind}")}
    for path in sorted([*paths, *(path for part in below for path in part.iterdir() if path.is_file())]):
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size} ".encode())
        _read_into(digest, path)
    return f"sha256:{digest.hexdigest()[:16]}"


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file, 64 digits."""
    digest = hashlib.sha256()
    _read_into(digest, path)
    return digest.hexdigest()


def rows_digest(sources: Iterable[bytes | str], ids: Iterable[str], captions: Iterable[list[str]]) -> str:
    """Digest of rows in order: pictures (their bytes: a copy elsewhere is the same), ids and captions, 16 digits."""
    digest = hashlib.sha256()
    for source, image_id, texts in zip(sources, ids, captions):
        digest.update(hashlib.sha256(_bytes_of(source)).digest())
        digest.update(json.dumps([image_id, texts]).encode())
    return digest.hexdigest()[:16]


def row_digest(source: bytes | str, captions: list[str]) -> str:
    """Digest of one row's picture and captions, 16 digits."""
    return hashlib.sha256(_bytes_of(source) + "\0".join(captions).encode()).hexdigest()[:16]


def pictures_digest(sources: Iterable[bytes | str]) -> str:
    """Digest of pictures in order, 64 digits: of the bytes of those in a table, of path, size and date of files."""
    digest = hashlib.sha256()
    for source in sources:
        if isinstance(source, bytes):
            digest.update(hashlib.sha256(source).digest())
        else:
            status = os.stat(source)
            digest.update(f"{source} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def picture_digest(source: bytes | str | Path) -> str:
    """Digest of the size and of the first and last 64 KB of a picture, 16 digits, wherever it lies."""
    if isinstance(source, bytes):
        size, ends = len(source), (source[:ENDS], source[-ENDS:])
    else:
        with open(source, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            first = file.read(ENDS)
            file.seek(max(0, size - ENDS))
            ends = first, file.read()
    return hashlib.sha256(b"".join([f"{size} ".encode(), *ends])).hexdigest()[:16]


def settings_digest(settings, digits: int = 16) -> str:
    """Digest of numbers, texts, lists and dictionaries of them."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:digits]


def _read_into(digest, path: str | Path):
    with open(path, "rb") as file:
        while part := file.read(CHUNK):
            digest.update(part)


def _bytes_of(source: bytes | str) -> bytes:
    return source if isinstance(source, bytes) else Path(source).read_bytes()


__all__ = [
    "file_digest",
    "fingerprint",
    "folder_digest",
    "picture_digest",
    "pictures_digest",
    "row_digest",
    "rows_digest",
    "settings_digest",
    "tower_digest",
    "weights_digest",
]
