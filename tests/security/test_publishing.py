"""What goes to the Hub is named, lies in the folder, and is no pickle; a dry run lists it."""

import os
import pickle
import shutil
import types

import pytest
import torch
from hostile import Hostile

from vsehub.__main__ import main
from vsehub.hub_cards.model_card import write_model_card
from vsehub.hub_cards.push import shipped_files
from vsehub.hub_cards.shipped import files_to_ship, is_pickle
from vsehub.training import trainer as trainer_module
from vsehub.training.trainer import RetrievalTrainer

STAYS = """
token.json credentials.json secrets.json .env .netrc .secret.json notes.txt passwords.txt id_rsa
LICENSE_rsa.pem LICENSE.pem LICENSE.pkl LICENSE.key LICENSE-id_rsa weights.model secret.model
Objective.safetensors OBJECTIVE.SAFETENSORS objective.safetensors other.safetensors MODEL.safetensors
Config.json TRAINER_STATE.json trainer_state.json Bad_Samples.jsonl bad_samples.jsonl validation.json
Validation.JSON training_args.bin optimizer.pt scheduler.pt rng_state.pth pytorch_model.bin model.pkl
notes.pkl family.jpg passport.png setup.py deploy.py secrets.py _private.py README.html
model-1-of-2.safetensors data.parquet logs/events.json Checkpoint-5/config.json checkpoint-5/model.safetensors
runs/token.json 1_Normalize/token.json 1_Normalize/modeling_x.py .git/config .cache/huggingface/token a.jinja
""".split()
GOES = """
generation_config.json preprocessor_config.json tokenizer.json vocab.txt merges.txt LICENSE LICENSE.md
License.txt LICENCE NOTICE COPYING.txt LICENSE-MIT chat_template.jinja requirements.txt modeling_other.py
""".split()


@pytest.fixture
def folder(tmp_path, tiny_folder, tiny_model):
    """A model's folder with a card."""
    target = tmp_path / "model"
    shutil.copytree(tiny_folder, target)
    write_model_card(target, model=tiny_model, name="tester/verb", results=[], training={})
    return target


def write(folder, name, content="{}"):
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text(content)


@pytest.mark.parametrize("name", STAYS)
def test_what_is_not_listed_stays(name, folder):
    before = shipped_files(folder)
    write(folder, name)
    assert shipped_files(folder) == before


@pytest.mark.parametrize("name", GOES)
def test_what_is_listed_goes(name, folder):
    write(folder, name)
    assert name in dict(files_to_ship(folder))


def test_a_saved_folder_goes_whole(folder):
    saved = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {name for name, _ in shipped_files(folder)} == saved


@pytest.mark.parametrize("name", ["LICENSE", "vocab.txt", "README.md", "tokenizer.json", "handler.py"])
@pytest.mark.parametrize("kind", ["file", "relative", "folder above"])
def test_a_link_out_of_the_folder_is_refused(name, kind, folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / name).write_text('{"token": "hf_secret"}')
    (folder / name).unlink(missing_ok=True)
    if kind == "folder above":
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "elsewhere")
        (folder / name).symlink_to(link / name)
    else:
        target = tmp_path / "elsewhere" / name
        (folder / name).symlink_to(os.path.relpath(target, folder) if kind == "relative" else target)
    with pytest.raises(ValueError, match="outside the folder"):
        shipped_files(folder)


def test_a_linked_subfolder_is_refused(folder, tmp_path):
    shutil.move(folder / "1_Normalize", tmp_path / "away")
    (folder / "1_Normalize").symlink_to(tmp_path / "away")
    with pytest.raises(ValueError, match="outside the folder"):
        shipped_files(folder)


def test_links_of_the_hubs_cache_are_files(folder, tmp_path):
    snapshot = tmp_path / "models--org--name" / "snapshots" / ("0" * 40)
    (snapshot.parent.parent / "blobs").mkdir(parents=True)
    shutil.copytree(folder, snapshot)
    for number, path in enumerate(sorted(path for path in snapshot.iterdir() if path.is_file())):
        blob = snapshot.parent.parent / "blobs" / f"{number:040x}"
        shutil.move(path, blob)
        path.symlink_to(os.path.relpath(blob, snapshot))
    assert [name for name, _ in shipped_files(snapshot)] == [name for name, _ in shipped_files(folder)]
    (snapshot / "LICENSE").symlink_to(tmp_path / "model" / "config.json")
    with pytest.raises(ValueError, match="outside the folder"):
        shipped_files(snapshot)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["spiece.model", "tokenizer.model", "LICENSE", "vocab.txt"])
def test_a_pickle_is_told_by_its_content(name, protocol, folder, tmp_path):
    (folder / name).write_bytes(pickle.dumps(Hostile(tmp_path / "witness"), protocol))
    with pytest.raises(ValueError, match="is a pickle"):
        shipped_files(folder)
    assert not (tmp_path / "witness").exists()


def test_an_archive_of_torch_is_a_pickle_and_words_are_none(folder):
    torch.save({}, folder / "spiece.model")
    with pytest.raises(ValueError, match="is a pickle"):
        shipped_files(folder)
    for data in (b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02", b"words", b"", b".", b"N.", b"IQ== 0\nIg== 1\n"):
        assert not is_pickle(data)


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("LICENSE", b"-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n", "private key"),
        ("vocab.txt", b"-----BEGIN RSA PRIVATE KEY-----", "private key"),
        ("tokenizer.json", b"\x89HDF", "no json file"),
        ("tokenizer.json", b"{half", "no json file"),
        ("LICENSE", b"\xff\xfe\x00", "no text file"),
        ("example_0.jpg", b"token", "no picture"),
    ],
)
def test_a_name_is_no_disguise(name, content, words, folder):
    (folder / "README.md").write_text("---\nwidget:\n- src: example_0.jpg\n---\n")
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        shipped_files(folder)


def test_pictures_of_the_card_go(folder, tiny_pictures):
    for name in ("example_0.jpg", "family.jpg"):
        tiny_pictures[0].save(folder / name)
    (folder / "README.md").write_text("---\nwidget:\n- src: example_0.jpg\n---\n")
    names = {name for name, _ in shipped_files(folder)}
    assert "example_0.jpg" in names and "family.jpg" not in names


def test_a_dry_run_lists_and_sends_nothing(folder, capsys, monkeypatch):
    monkeypatch.setattr("vsehub.hub_cards.push.HfApi", lambda: pytest.fail("the Hub was asked"))
    write(folder, "token.json")
    assert main(["push", str(folder), "tester/x", "--dry_run"]) == 0
    printed = capsys.readouterr().out
    assert "model.safetensors" in printed and "nothing was sent" in printed and "token.json" not in printed


@pytest.mark.parametrize("strategy, sent", [("every_save", True), ("checkpoint", True), ("end", False)])
def test_training_sends_the_same_files_at_every_save(strategy, sent, folder, monkeypatch):
    for name in ("optimizer.pt", "training_args.bin", "objective.safetensors", "token.json"):
        write(folder, name)
    calls = []
    monkeypatch.setattr(trainer_module, "upload_folder", lambda **given: calls.append(given))
    trainer = RetrievalTrainer.__new__(RetrievalTrainer)
    trainer.args = types.SimpleNamespace(hub_strategy=strategy, hub_token=None, hub_revision=None, output_dir=folder)
    trainer.state, trainer.hub_model_id = types.SimpleNamespace(global_step=1), "tester/x"
    trainer.is_world_process_zero = lambda: True
    trainer._push_from_checkpoint(str(folder))
    assert len(calls) == sent
    if sent:
        assert calls[0]["allow_patterns"] == [name for name, _ in files_to_ship(folder)]
        assert not {"optimizer.pt", "training_args.bin", "token.json"} & set(calls[0]["allow_patterns"])
