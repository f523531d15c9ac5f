"""Crafted checkpoints, models and indexes end in one line, before they cost anything."""

import json
import shutil

import numpy as np
import pytest
import torch
from hostile import NPY, Hostile

from vsehub.__main__ import main
from vsehub.configuration.configuration_dual_encoder import tower_config
from vsehub.hub_cards.conversion.official_checkpoint import CheckpointError, open_checkpoint
from vsehub.modeling.towers import load_tower
from vsehub.search.index_store import IndexFolderError
from vsehub.search.vector_index import VectorIndex

TENSORS = {
    "meta": lambda: torch.empty(10**6, 10**6, device="meta"),
    "sparse": lambda: torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (10**6, 10**6)),
    "csr": lambda: torch.eye(4).to_sparse_csr(),
    "stride 0, 4 TB": lambda: torch.ones(1).expand(10**6, 10**6),
    "stride 0": lambda: torch.ones(1).expand(1000),
    "overlapping": lambda: torch.ones(10).as_strided((9, 9), (1, 0)),
    "NaN": lambda: torch.tensor([float("nan")]),
    "no tensor": lambda: [1.0],
}


@pytest.mark.parametrize("kind", TENSORS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_checkpoint_holds_plain_tensors(kind, tmp_path):
    torch.save({"model": {"a": torch.ones(2), "b": TENSORS[kind]()}, "opt": {}}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="c.pth"):
        open_checkpoint(tmp_path / "c.pth")


def test_tensors_that_share_one_storage_are_plain(tmp_path):
    whole = torch.arange(12.0)
    torch.save({"model": {"a": whole[:6].view(2, 3).t(), "b": whole, "c": whole[0]}}, tmp_path / "c.pth")
    assert open_checkpoint(tmp_path / "c.pth")[0]["a"].shape == (3, 2)


@pytest.mark.parametrize("model_type", ["planted", "", "../x", 3, None, "auto"])
def test_a_tower_of_an_unknown_type_is_one_line(model_type):
    with pytest.raises(ValueError, match="tower"):
        tower_config({"model_type": model_type})


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickled_weights_run_nothing_and_nobody_is_told_to_open_them_unsafely(protocol, tmp_path, tiny_folder):
    folder, witness = tmp_path / "received", tmp_path / "witness"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config["text_config"]))
    torch.save({"a": Hostile(witness)}, folder / "pytorch_model.bin", pickle_protocol=protocol)
    with pytest.raises(ValueError, match="nothing of them was run|not a whole model") as refused:
        load_tower(str(folder), "text_config")
    assert "weights_only" not in str(refused.value) and not witness.exists()


def a_index(folder):
    """An index of four vectors."""
    index = VectorIndex({"id": "org/model", "revision": None, "digest": "0"})
    index.add(np.eye(4, dtype=np.float32), [{"id": str(n), "modality": "image"} for n in range(4)])
    index.save(folder)
    return folder


BAD = [None, True, -1, 3.5, "text", [], [1], {}, {"a": 1}, 10**30, "../../etc/passwd", float("nan")]
KEYS = [
    "model",
    "kind",
    "dimension",
    "cutoff",
    "sources",
    "segments",
    "rows",
    "files",
    "deleted",
    "graph",
    "generation",
]


@pytest.mark.parametrize("key", [*KEYS, "format", "graph_rows"])
def test_a_manifest_of_other_types_is_refused_or_read(key, tmp_path, capsys):
    folder = a_index(tmp_path / "index")
    manifest = json.loads((folder / "manifest.json").read_text())
    for value in BAD:
        (folder / "manifest.json").write_text(json.dumps(manifest | {key: value}))
        assert main(["search", str(folder), "a dog"]) == 2, value  # there is no such model, at the latest
        assert len([line for line in capsys.readouterr().err.splitlines() if line.startswith("vsehub search")]) == 1
    (folder / "manifest.json").write_text(json.dumps({name: value for name, value in manifest.items() if name != key}))
    assert main(["search", str(folder), "a dog"]) == 2


@pytest.mark.parametrize("cutoff", [{"text": "high"}, {"text": None}, {"text": []}, {"text": float("inf")}], ids=repr)
def test_a_cutoff_is_a_number(cutoff, tmp_path):
    folder = a_index(tmp_path / "index")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"cutoff": cutoff}))
    with pytest.raises(IndexFolderError):
        VectorIndex.open(folder)


@pytest.mark.parametrize("kind", NPY)
def test_vectors_of_an_index_are_only_numbers(kind, tmp_path):
    folder = a_index(tmp_path / "index")
    path = next(folder.glob("vectors-*.npy"))
    path.write_bytes(NPY[kind](tmp_path / "witness"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][path.name] = path.stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(IndexFolderError):
        VectorIndex.open(folder)
