"""What made a vector: the name, revision and weights of a model, so that an index meets no other."""

import hashlib
import os

import torch


def fingerprint(model) -> dict:
    """Identify a model: `id` (folder or repository), `revision` (commit, where known), `digest` (of its weights).

    The digest covers names, shapes, types and bytes of all parameters and buffers: two copies of a folder agree, a
    model trained one step further does not, nor one loaded in half precision.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    origin, source = getattr(model, "_origin", {}), getattr(model.config, "_name_or_path", "") or ""
    return {
        "id": os.path.abspath(source) if os.path.isdir(source) else source,  # to be found from other folders, too
        "revision": origin.get("revision"),
        "digest": digest.hexdigest(),
    }


__all__ = ["fingerprint"]
