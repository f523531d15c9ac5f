"""A pickle with a payload runs nothing, under every name that holds weights or states, and ends in one line."""

import json
import pickle
import re
import shutil

import pytest
import torch
from hostile import Hostile
from safetensors.torch import save_file
from small_runs import SMALL, scene_rows
from transformers import BertModel, ViTModel

from vsehub.__main__ import main
from vsehub.hub_cards.conversion.official_checkpoint import CheckpointError, open_checkpoint
from vsehub.modeling.towers import load_tower
from vsehub.processing.processing_dual_encoder import square_image_processor
from vsehub.training.saving.checkpoints import WholeCheckpoints
from vsehub.training.teachers import ImageTeacher, TextTeacher
from vsehub.training.trainer import RetrievalTrainer

FORMS = {
    "archive": lambda content, path: torch.save(content, path),
    "old torch": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    "bare pickle": lambda content, path: path.write_bytes(pickle.dumps(content)),
}
SHARD = "pytorch_model-00001-of-00001.bin"
WEIGHTS = ["pytorch_model.bin", SHARD, "model.safetensors", "model-00001-of-00001.safetensors", "adapter_model.bin"]
BAR = re.compile(r"%\||examples/s|it/s\]")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def plant(folder, name, witness, form="archive"):
    """Replace the weights of a folder by a pickle with a payload, under a name."""
    for path in [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
        path.unlink()
    FORMS[form]({"a": torch.ones(2), "b": Hostile(witness)}, folder / name)
    if "-of-" in name:
        index = "pytorch_model.bin.index.json" if name.endswith(".bin") else "model.safetensors.index.json"
        (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": {"a": name}}))
    if name.startswith("adapter"):
        settings = {"peft_type": "LORA", "base_model_name_or_path": str(folder), "target_modules": ["query"]}
        (folder / "adapter_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("form", FORMS)
def test_the_payload_works(form, tmp_path):
    FORMS[form]({"b": Hostile(tmp_path / "witness")}, tmp_path / "a.bin")
    if form == "bare pickle":
        pickle.loads((tmp_path / "a.bin").read_bytes())
    else:
        torch.load(tmp_path / "a.bin", weights_only=False)
    assert (tmp_path / "witness").exists()


VERBS = [(verb, "archive") for verb in ("search --model", "evaluate", "explain", "index")]


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("verb, form", [*VERBS, *(("export", form) for form in FORMS)])  # one loader serves all verbs
def test_a_models_folder(verb, name, form, tiny_folder, tmp_path, capsys):
    folder, witness = tmp_path / "received", tmp_path / "witness"
    shutil.copytree(tiny_folder, folder)
    plant(folder, name, witness, form)
    (tmp_path / "photos").mkdir()
    words = {
        "export": ["export", folder, tmp_path / "out", "--to", "transformers"],
        "search --model": ["search", tmp_path / "index", "a", "--model", folder],
        "evaluate": ["evaluate", folder, "--data", tmp_path / "rows.parquet", "--split", "train"],
        "explain": ["explain", folder, tmp_path / "photos" / "a.png"],
        "index": ["index", tmp_path / "photos", "--model", folder, "--out", tmp_path / "new"],
    }
    rows = scene_rows(2, 0)
    rows.to_parquet(tmp_path / "rows.parquet")
    rows[0]["image"].save(tmp_path / "photos" / "a.png")
    assert main(["index", str(tmp_path / "photos"), "--model", str(tiny_folder), "--out", str(tmp_path / "index")]) == 0
    capsys.readouterr()
    assert main(list(map(str, words[verb]))) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.strip() and not BAR.search(line)]
    assert len([line for line in said if line.startswith(f"vsehub {verb.split()[0]}:")]) == 1, said
    assert "weights_only" not in "".join(said) and not witness.exists()


@pytest.mark.parametrize("name", WEIGHTS[:4])
@pytest.mark.parametrize("door", ["vision tower", "text tower", "image teacher", "text teacher"])
def test_a_towers_folder(door, name, tmp_path, tiny_vision_config, tiny_text_config, tiny_tokenizer):
    folder, witness = tmp_path / "received", tmp_path / "witness"
    image = door.split()[0] in ("vision", "image")
    model = ViTModel(tiny_vision_config) if image else BertModel(tiny_text_config)
    model.save_pretrained(folder)
    square_image_processor(32).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    plant(folder, name, witness)
    with pytest.raises((ValueError, OSError)) as refused:
        if "tower" in door:
            load_tower(str(folder), "vision_config" if image else "text_config")
        else:
            (ImageTeacher if image else TextTeacher)(str(folder), "cpu")
    assert "weights_only" not in str(refused.value) and "\n" not in str(refused.value) and not witness.exists()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("where", ["top", "model", "opt", "config", "name"])
def test_an_official_checkpoint(where, form, tmp_path):
    evil, whole = Hostile(tmp_path / "witness"), {"a": torch.ones(2)}
    content = {
        "top": evil,
        "model": {"model": {"a": evil}},
        "opt": {"model": whole, "opt": evil},
        "config": {"model": whole, "config": {"lr": evil}},
        "name": {"model": whole, "opt": {}, "epoch": [evil]},
    }
    FORMS[form](content[where], tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="nothing of it was run"):
        open_checkpoint(tmp_path / "c.pth")
    assert not (tmp_path / "witness").exists()


# --- a resumed run -----------------------------------------------------------------------------------------------

STATES = [
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "training_args.bin",
]
STATES += ["scaler.pt"]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, tiny_vision_config, tiny_text_config, tiny_tokenizer):
    """Flags of a small run that was stopped at its first checkpoint, and its folder."""
    root = tmp_path_factory.mktemp("run")
    for split, count, seed in (("train", 8, 0), ("validation", 4, 1)):
        (root / "data").mkdir(exist_ok=True)
        scene_rows(count, seed).to_parquet(root / "data" / f"{split}-00000-of-00001.parquet")
    ViTModel(tiny_vision_config, add_pooling_layer=False).save_pretrained(root / "vit")
    square_image_processor(32).save_pretrained(root / "vit")
    BertModel(tiny_text_config, add_pooling_layer=False).save_pretrained(root / "bert")
    tiny_tokenizer.save_pretrained(root / "bert")
    flags = ["--data", str(root / "data"), "--vision", str(root / "vit"), "--text", str(root / "bert")]
    flags += [*SMALL, "--stages", "pretrain", "--per_device_train_batch_size", "4", "--dense_text", "union"]
    assert main(["train", "d2s", *flags, "--output_dir", str(root / "run"), "--max_steps", "2"]) == 0
    return flags, root / "run"


@pytest.mark.parametrize("name", [STATES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in STATES[1:])])
def test_a_checkpoint_to_resume(name, interrupted, tmp_path, capsys):
    flags, done = interrupted
    folder, witness = tmp_path / "run", tmp_path / "witness"
    shutil.copytree(done, folder)
    (checkpoint,) = folder.rglob("checkpoint-2")
    (checkpoint / "sealed.json").unlink()
    if name == "pytorch_model.bin":
        (checkpoint / "model.safetensors").unlink()
    torch.save({"a": Hostile(witness)}, checkpoint / name)
    words = ["train", "d2s", *flags, "--output_dir", str(folder), "--max_steps", "4"]
    status = main([*words, "--resume_from_checkpoint", str(checkpoint)])
    said = capsys.readouterr().err
    assert not witness.exists() and "weights_only" not in said and "Traceback" not in said
    if name not in ("training_args.bin", "scaler.pt"):  # which this run does not read
        assert status == 2 and said.count("vsehub train:") == 1


STATE = {
    "pickle": lambda path, witness: path.write_bytes(pickle.dumps(Hostile(witness))),
    "archive": lambda path, witness: torch.save({"a": Hostile(witness)}, path),
    "text": lambda path, witness: path.write_text("text"),
    "empty": lambda path, witness: path.write_bytes(b""),
    "4 TB header": lambda path, witness: path.write_bytes((2**42).to_bytes(8, "little") + b"{}"),
    "4 TB tensor": lambda path, witness: path.write_bytes(
        len(HUGE).to_bytes(8, "little") + HUGE + b"\0" * 64,
    ),
    "another shape": lambda path, witness: save_file({"weight": torch.ones(3, 3), "bias": torch.ones(3)}, path),
    "other names": lambda path, witness: save_file({"x": torch.ones(3)}, path),
}
HUGE = json.dumps({"weight": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}).encode()


@pytest.mark.parametrize("kind", STATE)
def test_the_state_of_an_objective(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(WholeCheckpoints, "_load_from_checkpoint", lambda *_: None)
    trainer = RetrievalTrainer.__new__(RetrievalTrainer)
    trainer.objective = torch.nn.Linear(2, 2)
    STATE[kind](tmp_path / "objective.safetensors", tmp_path / "witness")
    with pytest.raises(ValueError, match="objective.safetensors: state of another objective") as refused:
        trainer._load_from_checkpoint(tmp_path)
    assert "\n" not in str(refused.value) and not (tmp_path / "witness").exists()
