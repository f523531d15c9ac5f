"""`vsehub push` against a loopback Hub: one commit, nothing that nobody needs, nothing of another kind replaced."""

import base64
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from vsehub import PIRModel
from vsehub.hub_cards.model_card import write_model_card
from vsehub.hub_cards.push import push, shipped_files


@pytest.fixture(scope="module")
def make_folder(tiny_folder, make_tiny_model):
    """A function: place -> there a model's folder with a card, and with what training leaves behind."""

    def make(place):
        target = place / "model"
        shutil.copytree(tiny_folder, target)
        write_model_card(target, model=make_tiny_model(), name="tester/verb", results=[], training={})
        (target / "checkpoint-5").mkdir()
        for name in ("training_args.bin", "optimizer.pt", "checkpoint-5/model.safetensors", "objective.safetensors",
                     "checkpoint-5/config.json", "trainer_state.json", "notes.pkl", ".secret.json"):  # fmt: skip
            (target / name).write_bytes(b"no")
        return target

    return make


@pytest.fixture
def folder(make_folder, tmp_path):
    return make_folder(tmp_path)


def committed(hub, name, *paths):
    """Files in a repository of the loopback Hub that no push brought there."""
    hub.create({"name": name})
    value = base64.b64encode(b"{}").decode()
    hub.repositories[f"tester/{name}"].commit(
        "main", [{"key": "file", "value": {"path": path, "content": value}} for path in paths]
    )


OWN = {"onnx/visual/model.onnx", "results.csv", "plan.png"}
PUSHES = [  # repository with flags, exit status; one process does them all
    (("verb", "--tag", "v1"), 0),
    (("closed", "--private"), 0),
    (("closed", "--private"), 0),
    (("open",), 0),
    (("open", "--private"), 2),
    (("own",), 0),
    (("adapter",), 2),
    (("broken",), 2),
]


@pytest.fixture(scope="module")
def printed(make_folder, tmp_path_factory, run_client, loopback_hub, online):
    """What each of `PUSHES` printed, and after them what the process printed besides."""
    committed(loopback_hub, "own", *OWN, "merges.txt")
    committed(loopback_hub, "adapter", "adapter_config.json", "adapter_model.safetensors")
    committed(loopback_hub, "broken", "config.json")
    folder = str(make_folder(tmp_path_factory.mktemp("pushed")))
    runs = [[folder, f"tester/{name}", *flags] for (name, *flags), _ in PUSHES]
    report, rest = run_client("client_push_verb.py", json.dumps(runs), **online)
    assert [row["status"] for row in report] == [status for _, status in PUSHES], report
    return {push: row["printed"] for (push, _), row in zip(PUSHES, report)} | {"besides": rest}


def test_it_takes_one_commit_and_nothing_that_could_execute_on_loading(printed, loopback_hub):
    repository = loopback_hub.repositories["tester/verb"]
    assert len(repository.commits) == 2 and repository.tags["v1"] == repository.branches["main"]
    files = set(repository.files("v1"))
    assert {"config.json", "model.safetensors", "README.md", "handler.py", "modules.json", "modeling_d2s_vse.py",
            "pipeline_image_text_retrieval.py", "1_Normalize/config.json"} <= files  # fmt: skip
    assert not {name for name in files if name.endswith((".bin", ".pt", ".pkl")) or "checkpoint" in name}
    assert not files & {"objective.safetensors", "trainer_state.json", ".secret.json"}


@pytest.mark.slow  # test_doors.py opens a model that `push_to_hub` brought
def test_what_it_pushed_opens(printed, folder, run_client, online, material, expected):
    pytest.importorskip("sentence_transformers")
    report, _ = run_client("client_doors.py", material, "tester/verb", "sentence_transformers", **online)
    assert abs(report["sentence_transformers"]["text"][0][0] - expected(folder)["text"][0][0]) < 1e-6


def test_a_public_repository_is_not_taken_for_a_private_one(printed, loopback_hub):
    assert "tester/open is there and public" in printed["open", "--private"]
    assert loopback_hub.repositories["tester/closed"].private
    assert len(loopback_hub.repositories["tester/open"].commits) == 2


def test_files_of_the_owner_stay_in_a_repository_and_a_lone_adapter_is_not_replaced(printed, loopback_hub):
    files = set(loopback_hub.repositories["tester/own"].files("main"))
    assert files > OWN and "merges.txt" not in files
    said = "no longer in tester/own, except in its history: merges.txt"
    assert said in printed["besides"] + printed[("own",)]
    assert "holds a lone adapter, this is a d2s_vse: choose another name" in printed[("adapter",)]
    assert "holds a model of an unknown kind" in printed[("broken",)]


@pytest.mark.slow
def test_a_second_push_replaces_and_forgets_in_one_commit_and_refuses_what_is_wrong(
    folder, pir_folder, tmp_path, run_client, loopback_hub, online
):
    other = tmp_path / "pir"
    shutil.copytree(pir_folder, other)
    (other / "README.md").write_text("# PIR\n")
    (folder / "merges.txt").write_text("old")
    run_client("client_push_verb.py", json.dumps([[str(folder), "tester/two", "--tag", "v1"]]), **online)
    (folder / "merges.txt").unlink()
    runs = [[str(folder), "tester/two"], [str(folder), "tester/two", "--tag", "v1"], [str(other), "tester/two"]]
    runs += [[str(folder), "a/b/c"], [str(tmp_path / "none"), "tester/x"]]
    report, _ = run_client("client_push_verb.py", json.dumps(runs), **online)
    assert [row["status"] for row in report] == [0, 2, 2, 2, 2]
    for row, words in zip(report[1:], ("a tag never moves", "choose another name", "no name of a", "no saved model")):
        assert words in row["printed"]
    repository = loopback_hub.repositories["tester/two"]
    assert len(repository.commits) == 3
    assert "merges.txt" in repository.files("v1") and "merges.txt" not in repository.files("main")


@pytest.mark.slow
def test_every_snippet_of_the_published_card_runs_as_it_stands(pir_folder, tmp_path, run_client, online):
    folder = tmp_path / "hub"
    shutil.copytree(pir_folder, folder)
    write_model_card(folder, model=PIRModel.from_pretrained(folder), name="mine", results=[], training={})
    run_client("client_push_verb.py", json.dumps([[str(folder), "snippets", "--tag", "v1"]]), **online)
    blocks, _ = run_client("client_card.py", "tester/snippets", "v1", **online)
    assert len(blocks) == 3 and all('"tester/snippets"' in block and '"v1"' in block for block in blocks)


def test_the_words_of_a_tokenizer_travel_whatever_their_file(folder):
    names = ("spiece.model", "vocab.txt", "merges.txt", "vocab.json")
    for name in names:
        (folder / name).write_bytes(b'"words"')
    assert set(names) <= {name for name, _ in shipped_files(folder)}


@pytest.mark.parametrize(
    "missing, words",
    [
        ("model.safetensors", "weights"),
        ("README.md", "card"),
        ("processor_config.json", "processor"),
        ("tokenizer.json", "none with a vocabulary"),
        ("tokenizer_config.json", "no token to pad with"),
    ],
)
def test_an_incomplete_folder_is_refused_before_anything_is_made(folder, missing, words):
    (folder / missing).unlink()
    with pytest.raises(ValueError, match=words):
        push(folder, "tester/never")


@pytest.mark.parametrize(
    ("spoilt", "said"), [(None, "not in the checkpoint"), (torch.zeros(3), "do not have the shape")]
)
def test_weights_that_do_not_make_the_model_are_refused(folder, spoilt, said):
    weights = load_file(folder / "model.safetensors") | {"image_projection.bias": spoilt}
    kept = {name: tensor for name, tensor in weights.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{said}.*image_projection.bias"):
        push(folder, "tester/never")


def test_shards_are_whole_and_alone(folder, tiny_model):
    whole = (folder / "model.safetensors").read_bytes()
    tiny_model.save_pretrained(folder, max_shard_size="60KB")
    (folder / "model.safetensors").write_bytes(whole)  # as earlier versions left it there
    with pytest.raises(ValueError, match="model.safetensors and shards"):
        shipped_files(folder)
    (folder / "model.safetensors").unlink()
    assert sum(name.endswith(".safetensors") for name, _ in shipped_files(folder)) > 1
    next(folder.glob("model-00002-*")).unlink()
    with pytest.raises(ValueError, match="lacks weights .model-00002"):
        shipped_files(folder)
    for text in ("[]", "{}", '{"weight_map": 3}', "half"):
        (folder / "model.safetensors.index.json").write_text(text)
        with pytest.raises(ValueError, match="no index of shards"):
            shipped_files(folder)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(ValueError, match="lacks weights .model.safetensors"):
        shipped_files(folder)


def test_another_architecture_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertModel"], "model_type": "bert"}))
    with pytest.raises(ValueError, match="not a model of vsehub"):
        shipped_files(tmp_path)


def test_what_is_not_whole_is_refused_before_the_hub_is_asked(folder):
    with pytest.raises(ValueError, match="no name of a tag"):
        push(folder, "tester/x", tag="a b")
    config = (folder / "config.json").read_text()
    for text in ("", "[]", '{"half', "{}"):
        (folder / "config.json").write_text(text)
        with pytest.raises(ValueError, match="config.json is no configuration"):
            push(folder, "tester/x")
    (folder / "config.json").write_text(json.dumps({**json.loads(config), "architectures": "D2SVSEModel"}))
    with pytest.raises(ValueError, match="not a model of vsehub"):
        push(folder, "tester/x")
    (folder / "config.json").write_text(config)
    weights = (folder / "model.safetensors").read_bytes()
    for part in (b"", weights[:100], weights[:-1]):
        (folder / "model.safetensors").write_bytes(part)
        with pytest.raises(ValueError, match="its weights are damaged"):
            push(folder, "tester/x")
