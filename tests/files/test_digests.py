"""Digests keep their values: indexes, caches and records of earlier versions hold them."""

from types import SimpleNamespace

import pytest
import torch

from vsehub.data.captioning.local_captioner import CaptionRequest
from vsehub.files import digests


@pytest.fixture
def model():
    found = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    with torch.no_grad():
        for number, parameter in enumerate(found.parameters()):
            parameter.copy_(torch.arange(parameter.numel()).reshape(parameter.shape) / 7 + number)
    found.config = SimpleNamespace(_name_or_path="")
    return found


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text('{"a": 1}')
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    (tmp_path / "pic.bin").write_bytes(b"other")
    (tmp_path / ".hidden").write_bytes(b"not looked at")
    return tmp_path


def test_values_are_those_of_earlier_versions(model, folder):
    assert digests.fingerprint(model) == {
        "id": "",
        "revision": None,
        "digest": "b330bf78686c90a85ea73d4da53874e05999d8d54143efda5765260b71b06e6d",
    }
    assert digests.tower_digest(model, "abc", ["x", 1], 7) == "00e790cf781ee5d4"
    assert digests.folder_digest(folder) == "sha256:e268d98d289d2afe"
    sources = [b"one", str(folder / "pic.bin")]
    assert digests.rows_digest(sources, ["a", "b"], [["x", "y"], ["z"]]) == "9a6e33c0ba954670"
    assert digests.row_digest(b"one", ["x", "y"]) == "16786eddba3f7031"
    assert CaptionRequest().prompt_hash == "9773207d9eaa7f48"
    sha256_of_other = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa"
    assert digests.file_digest(folder / "pic.bin") == sha256_of_other


def test_each_digest_sees_what_it_is_for(model, folder):
    sources, ids, captions = [b"one", str(folder / "pic.bin")], ["a", "b"], [["x", "y"], ["z"]]
    kinds = {
        "weights": lambda: digests.weights_digest(model),
        "tower": lambda: digests.tower_digest(model, "abc"),
        "folder": lambda: digests.folder_digest(folder),
        "file": lambda: digests.file_digest(folder / "pic.bin"),
        "rows": lambda: digests.rows_digest(sources, ids, captions),
        "pictures": lambda: digests.pictures_digest(sources),
    }

    def changed(change):
        before = {name: kind() for name, kind in kinds.items()}
        change()
        return {name for name, kind in kinds.items() if kind() != before[name]}

    assert changed(lambda: model[0].weight.data[0, 0].add_(1e-6)) == {"weights", "tower"}
    assert changed(lambda: (folder / "model.safetensors").write_bytes(b"weightz")) == {"folder"}
    assert changed(lambda: (folder / "pic.bin").write_bytes(b"anothr")) == {"file", "rows", "pictures"}
    assert changed(lambda: captions[1].append("more")) == {"rows"}
    assert changed(lambda: ids.reverse()) == {"rows"}
    assert changed(lambda: None) == set()


def test_the_order_of_settings_does_not_matter_and_their_values_do():
    assert digests.settings_digest({"a": 1, "b": [2]}) == digests.settings_digest({"b": [2], "a": 1})
    assert digests.settings_digest({"a": 1}) != digests.settings_digest({"a": 2})
    assert (
        digests.settings_digest([1, 2]) != digests.settings_digest([2, 1]) and len(digests.settings_digest([], 8)) == 8
    )


def test_a_folder_counts_weights_of_any_kind_and_one_folder_down(tmp_path):
    for name in ("config.json", "1_Normalize/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    seen = [digests.folder_digest(tmp_path)]
    (tmp_path / "1_Normalize" / "config.json").write_text('{"a": 1}')  # no weights beside it: as ever
    assert digests.folder_digest(tmp_path) == seen[0]
    for name in ("pytorch_model.bin", "2_Dense/model.safetensors", "2_Dense/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
        seen.append(digests.folder_digest(tmp_path))
    assert len(set(seen)) == 4


def test_a_model_that_does_not_say_where_it_is_from(model):
    assert digests.fingerprint(model, "d", "org/model", "abc") == {"id": "org/model", "revision": "abc", "digest": "d"}


def test_a_picture_has_one_digest_in_a_table_and_in_a_file_of_any_name_and_date(tmp_path):
    large = bytes(range(256)) * 1000
    for data in (b"", b"abc", large):
        (tmp_path / "a").write_bytes(data)
        assert (
            digests.picture_digest(data)
            == digests.picture_digest(tmp_path / "a")
            == digests.picture_digest(str(tmp_path / "a"))
        )
    assert len({digests.picture_digest(data) for data in (b"", b"abc", large, large[1:], large[:-1] + b"x")}) == 5
