"""What was computed from a folder is computed again when a file changed, and never else."""

import json
import os
import subprocess
import sys
import time

import pytest

from vsehub.files import remembered as module
from vsehub.files.remembered import folder_state, remembered


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model's folder that was written some time ago, and a cache of its own."""
    monkeypatch.setattr(module, "digests_folder", lambda: tmp_path / "home" / "digests")
    monkeypatch.setattr(module, "SETTLED_NS", 0)
    (tmp_path / "model").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "model" / name).write_text(name)
    return tmp_path / "model"


@pytest.fixture
def ask(folder):
    """A function: -> whether the digest was computed."""

    def computed(what=("weights",), between=lambda: None):
        calls = []
        before = folder_state(folder)
        between()
        value = remembered(folder, before, list(what), lambda: calls.append(1) or "digest of " + " ".join(what))
        assert value == "digest of " + " ".join(what)
        return bool(calls)

    return computed


def entries(folder):
    return sorted((folder.parent / "home" / "digests").glob("*.json"))


def test_it_is_computed_once(ask, folder):
    assert ask() and not ask() and not ask()
    assert len(entries(folder)) == 1 and sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]


def replace_with_the_same_size_and_date(path):
    date = path.stat().st_mtime_ns
    path.write_text(path.read_text().upper())
    os.utime(path, ns=(date, date))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "model.safetensors").write_text("longer than before"),
        lambda folder: replace_with_the_same_size_and_date(folder / "model.safetensors"),
        lambda folder: (folder / "model.safetensors").rename(folder / "other.safetensors"),
        lambda folder: (folder / "adapter.json").write_text("{}"),
        lambda folder: (folder / "config.json").unlink(),
    ],
    ids=["size", "content", "name", "new file", "lost file"],
)
def test_any_change_of_a_file_is_seen(ask, folder, change):
    assert ask() and not ask()
    change(folder)
    assert ask() and not ask()


def test_other_settings_and_a_copy_of_the_folder_have_values_of_their_own(ask, folder):
    assert ask() and ask(("weights", "bfloat16")) and not ask()
    copy = folder.parent / "copy"
    copy.mkdir()
    assert remembered(copy, folder_state(copy), ["weights"], lambda: "another") == "another"


def test_what_changes_while_it_is_read_is_not_remembered(ask, folder):
    assert ask(between=lambda: (folder / "model.safetensors").write_text("changed behind its back"))
    assert not entries(folder) and ask()


def test_files_that_were_written_just_now_are_not_trusted(ask, folder, monkeypatch):
    monkeypatch.setattr(module, "SETTLED_NS", 10**12)
    assert ask() and ask() and not entries(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', "{}", '{"value": 3}', "\udc80"])
def test_a_damaged_entry_is_none(ask, folder, content):
    assert ask()
    (entry,) = entries(folder)
    entry.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert ask() and not ask()


def test_a_value_that_is_no_text_is_not_taken(ask, folder):
    assert ask()
    (entry,) = entries(folder)
    entry.write_text(json.dumps({**json.loads(entry.read_text()), "value": ["no", "text"]}))
    assert ask() and not ask()


def test_a_cache_that_cannot_be_written_is_none(ask, folder):
    (folder.parent / "home").write_text("a file")
    assert ask() and ask()


def test_old_entries_go(ask, folder, monkeypatch):
    monkeypatch.setattr(module, "KEPT", 3)
    for number in range(5):
        assert ask(("weights", str(number)))
        time.sleep(0.01)
    assert len(entries(folder)) == 3 and not ask(("weights", "4")) and ask(("weights", "0"))


def test_what_is_no_folder_is_computed(tmp_path):
    assert folder_state(tmp_path / "none") is None
    assert remembered("org/model", None, [], lambda: "computed") == "computed"


def test_it_lies_in_the_home_of_the_hub_library(tmp_path):
    script = "from vsehub.files import remembered; print(remembered.digests_folder())"
    environment = {**os.environ, "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == str(tmp_path / "vsehub" / "digests")


def test_files_one_folder_down_count(tmp_path):
    (tmp_path / "0_Transformer").mkdir()
    (tmp_path / ".cache").mkdir()
    for name in ("config.json", "0_Transformer/model.safetensors", ".cache/lock"):
        (tmp_path / name).write_text("x")
    names = [name for name, *_ in folder_state(tmp_path)]
    assert names == ["config.json", "0_Transformer/model.safetensors"]
