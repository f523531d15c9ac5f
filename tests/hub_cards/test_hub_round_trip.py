"""What is saved or pushed loads, and computes the same, in a process that cannot import vsehub."""

import copy
import json
import shutil

import pytest
from looks import FLOOR, TRUST, check

LIMIT = 24


@pytest.fixture(scope="session")
def second_folder(tmp_path_factory, make_tiny_model, tiny_processor):
    """A second model, whose processor cuts the longest caption, but no label: pipelines ignore limits."""
    folder = tmp_path_factory.mktemp("second_model")
    processor = copy.deepcopy(tiny_processor)
    processor.tokenizer.model_max_length = LIMIT
    make_tiny_model(seed=1).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def stranger(tmp_path_factory, run_client, tiny_folder, material):
    """Report and prints of two clients without vsehub: of the saved folder, then of what the first one re-saved.

    The second also looks at two folders of one name, of which one has other code.
    """
    resaved, offline = tmp_path_factory.mktemp("resaved"), {"HF_HUB_OFFLINE": "1", "BLOCK_VSEHUB": "1"}
    looks = [{"source": str(tiny_folder), "options": TRUST, "resave": str(resaved)}]
    saved = run_client("client_load.py", material, json.dumps(looks), **offline)
    folders = [tmp_path_factory.mktemp(run) / "hub" for run in ("first", "second")]
    for folder in folders:
        shutil.copytree(tiny_folder, folder)
    changed = folders[1] / "pooling.py"
    changed.write_text(changed.read_text() + "\n# of a later version\n")
    looks = [{"source": str(source), "options": TRUST} for source in (resaved, *folders)]
    return {"saved": saved, "re-saved": run_client("client_load.py", material, json.dumps(looks), **offline)}


@pytest.mark.parametrize("folder", ["saved", "re-saved"])
def test_a_folder_computes_the_same_where_vsehub_is_absent(stranger, expected, tiny_folder, folder):
    report, _ = stranger[folder]
    check(report["looks"][0], expected(tiny_folder))


@pytest.mark.parametrize("folder", ["saved", "re-saved"])
def test_a_normal_load_prints_nothing(stranger, folder):
    assert stranger[folder][1].strip() == ""


def test_two_folders_of_one_name_each_run_their_own_code(stranger):
    _, first, second = (look["classes"][1] for look in stranger["re-saved"][0]["looks"])
    assert first != second


@pytest.fixture(scope="session")
def published(tmp_path_factory, run_client, loopback_hub, online, tiny_folder, second_folder):
    """What the publishing client saw, after it pushed everything."""
    folder = tmp_path_factory.mktemp("published")
    card = folder / "card.md"
    card.write_text("---\nlicense: apache-2.0\n---\n# Our own card\n")
    return run_client("client_publish.py", tiny_folder, second_folder, card, folder, **online)[0]


@pytest.fixture(scope="session")
def downloads(tmp_path_factory, published, run_client, loopback_hub, online, material):
    """What a client without vsehub sees of every repository: name -> look."""
    first = loopback_hub.repositories["tester/pushed"].tags["v1"]
    resaved = str(tmp_path_factory.mktemp("resaved"))
    wanted = {
        "main": {"source": "tester/pushed", "options": TRUST},
        "v1": {"source": "tester/pushed", "options": TRUST | {"revision": "v1"}},
        "commit": {"source": "tester/pushed", "options": TRUST | {"revision": first}, "resave": resaved},
        "re-saved": {"source": resaved, "options": TRUST},
        "given": {"source": "tester/given", "options": TRUST},
    }
    report, _ = run_client("client_load.py", material, json.dumps(list(wanted.values())), BLOCK_VSEHUB="1", **online)
    return dict(zip(wanted, report["looks"]))


@pytest.mark.parametrize("name", ["v1", "commit", "re-saved"])
def test_push_to_hub_of_model_and_processor_loads_by_tag_and_commit(downloads, expected, tiny_folder, name):
    check(downloads[name], expected(tiny_folder))  # also encode_*, whose processor is that of the revision


def test_save_pretrained_with_push_to_hub_replaces_model_and_processor(downloads, expected, second_folder):
    check(downloads["main"], expected(second_folder))
    assert downloads["main"]["tokens"] == LIMIT


def test_a_given_state_dict_is_what_arrives_on_the_hub(downloads, expected, second_folder):
    check(downloads["given"], expected(second_folder))


def test_shards_arrive_whole(published, loopback_hub):
    files = loopback_hub.repositories["tester/given"].files()
    assert "model.safetensors" not in files
    assert len([name for name in files if name.endswith(".safetensors")]) > 1


def test_a_card_survives_the_next_push(published, loopback_hub):
    card = loopback_hub.repositories["tester/pushed"].files()["README.md"].decode()
    assert "Our own card" in card and "license: apache-2.0" in card


def test_a_push_to_a_branch_leaves_main_alone(published, loopback_hub):
    repository = loopback_hub.repositories["tester/branched"]
    assert not repository.files("main")
    assert {"config.json", "model.safetensors", "modeling_d2s_vse.py"} <= set(repository.files("experiment"))


def test_installed_classes_serve_without_trust(published, tiny_processor):
    for report in (published["None"], published["v1"]):
        assert all(name.startswith("vsehub.") for name in report["classes"])
    assert published["None"]["limit"] == LIMIT
    assert published["v1"]["limit"] == tiny_processor.tokenizer.model_max_length


def test_nothing_but_a_model_and_its_code_is_uploaded(published, loopback_hub):
    held = {name.rpartition(".")[2] for name in loopback_hub.repositories["tester/pushed"].files()}
    assert held == {"json", "md", "py", "safetensors"}


def test_the_hub_was_asked_nothing_that_it_does_not_know(downloads, loopback_hub):
    assert loopback_hub.unknown == []


@pytest.mark.slow
def test_a_folder_goes_to_the_oldest_transformers_and_back(
    tmp_path, floor, run_client, tiny_folder, material, expected
):
    offline = {"HF_HUB_OFFLINE": "1", "BLOCK_VSEHUB": "1"}
    looks = [{"source": str(tiny_folder), "options": TRUST, "resave": str(tmp_path)}]
    old, _ = run_client("client_load.py", material, json.dumps(looks), **offline, **floor)
    assert old["transformers"] == FLOOR
    check(old["looks"][0], expected(tiny_folder), tolerance=1e-5)
    looks = [{"source": str(tmp_path), "options": TRUST}]
    new, _ = run_client("client_load.py", material, json.dumps(looks), **offline)
    check(new["looks"][0], expected(tiny_folder), tolerance=1e-5)


@pytest.mark.slow
def test_what_the_oldest_transformers_pushes_loads_in_both(
    tmp_path, floor, run_client, loopback_hub_class, online_at, tiny_folder, second_folder, material, expected
):
    (tmp_path / "card.md").write_text("---\nlicense: apache-2.0\n---\n# Card\n")
    looks = [
        {"source": "tester/pushed", "options": TRUST},
        {"source": "tester/pushed", "options": TRUST | {"revision": "v1"}},
        {"source": "tester/given", "options": TRUST},
    ]
    with loopback_hub_class() as hub:
        online, blocked = online_at(hub.url), {"BLOCK_VSEHUB": "1"}
        arguments = (tiny_folder, second_folder, tmp_path / "card.md", tmp_path)
        run_client("client_publish.py", *arguments, **online, **floor)
        for environment in (floor, {}):
            report, _ = run_client("client_load.py", material, json.dumps(looks), **blocked, **online, **environment)
            for look, folder in zip(report["looks"], (second_folder, tiny_folder, second_folder)):
                check(look, expected(folder), tolerance=1e-5)
        assert hub.unknown == []
