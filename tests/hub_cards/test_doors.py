"""Every door to a published model, in a process where vsehub cannot be imported: a folder, or a loopback Hub."""

import json
import shutil
from importlib.util import find_spec

import numpy as np
import pytest
from transformers import AutoModel

from vsehub.hub_cards.model_card import write_model_card

OFFLINE = {"HF_HUB_OFFLINE": "1", "BLOCK_VSEHUB": "1"}

EACH_DOOR = pytest.mark.parametrize(  # each model and each way at least once in the fast tests
    ("saved", "through"),
    [
        ("d2s", "hub"),
        ("pir", "folder"),
        pytest.param("d2s", "folder", marks=pytest.mark.slow),
        pytest.param("pir", "hub", marks=pytest.mark.slow),
    ],
    indirect=True,
)


@pytest.fixture(scope="session", params=["d2s", "pir"])
def saved(request):
    """The folder of each model."""
    return request.getfixturevalue({"d2s": "tiny_folder", "pir": "pir_folder"}[request.param])


@pytest.fixture(scope="session", params=["folder", "hub"])
def through(request, saved, material, run_client):
    """What a stranger finds behind each door, coming from the folder or from the loopback Hub: door -> report."""
    doors = [*(["sentence_transformers"] if find_spec("sentence_transformers") else []), "pipelines"]
    if request.param == "folder":
        return run_client("client_doors.py", material, saved, "endpoint", *doors, **OFFLINE)[0]
    online, name = request.getfixturevalue("online"), f"tester/{saved.name}"
    run_client("client_push.py", saved, name, **online)
    return run_client("client_doors.py", material, name, *doors, BLOCK_VSEHUB="1", **online)[0]


def close(found, wanted, tolerance=1e-6):
    assert np.abs(np.asarray(found, dtype=float) - np.asarray(wanted, dtype=float)).max() <= tolerance


@EACH_DOOR
def test_the_pipelines_of_transformers(through, expected, saved):
    found, ours = through["pipelines"], expected(saved)
    text, image = np.array(ours["text"]), np.array(ours["image"])
    cosines = text @ image.T
    for row, hits in enumerate(found["by text"]):
        assert [hit["index"] for hit in hits] == np.argsort(-cosines[row])[:3].tolist()
        close([hit["score"] for hit in hits], np.sort(cosines[row])[::-1][:3])
    both = image[0] + text[1]
    assert found["by both"][0]["index"] == int(np.argmax(image @ both / np.linalg.norm(both)))
    assert found["none"] == []
    assert [hit["index"] for hit in found["given"]] == np.argsort(-(text @ image[0])).tolist()
    if found["inferred"] is not None:
        assert [hit["index"] for hit in found["inferred"]] == np.argsort(-(text @ image[1])).tolist()
    close(found["text"], text[0])
    close(found["image"], image[0])
    close([found["scores"][label] for label in ours["scores"]], list(ours["scores"].values()), 1e-5)


@EACH_DOOR
def test_sentence_transformers_encodes_texts_and_images(through, expected, saved):
    pytest.importorskip("sentence_transformers")
    found, ours = through["sentence_transformers"], expected(saved)
    close(found["text"], ours["text"])
    close(found["image"], ours["image"])


@pytest.mark.parametrize(
    ("saved", "through"),
    [("pir", "folder"), pytest.param("d2s", "folder", marks=pytest.mark.slow)],
    indirect=True,
)
def test_an_inference_endpoint(through, saved, expected):
    found, ours = through["endpoint"], expected(saved)
    close(found["text"], ours["text"])
    close(found["image"], ours["image"])
    cosines = np.array(ours["image"])[0] @ np.array(ours["text"]).T
    close(found["cosines"], [cosines])
    exponents = np.exp(cosines * AutoModel.from_pretrained(saved).config.logit_scale)
    close([row["score"] for row in found["scores"]], np.sort(exponents / exponents.sum())[::-1], 1e-5)
    assert all(answer.startswith("refused: ") for answer in found["refused"].values()), found["refused"]
    assert "addresses are not fetched" in found["refused"]["address"]
    assert "fewer or smaller" in found["refused"]["huge"] and "cannot identify" in found["refused"]["postscript"]


@pytest.mark.slow
def test_mteb_finds_the_model_on_the_hub_and_runs_both_directions(
    saved, tmp_path, run_client, online, material, expected
):
    pytest.importorskip("mteb")
    folder, name = tmp_path / "model", f"tester/mteb-{saved.name}"
    shutil.copytree(saved, folder)
    write_model_card(folder, model=AutoModel.from_pretrained(saved), name=name, results=[], training={})
    run_client("client_push_verb.py", json.dumps([[str(folder), name]]), **online)
    found = run_client("client_doors.py", material, name, "mteb", BLOCK_VSEHUB="1", **online)[0]["mteb"]
    ours = expected(saved)
    cosines = np.array(ours["image"]) @ np.array(ours["text"]).T
    right = np.arange(len(cosines))
    assert found["InMemoryI2T"] == pytest.approx((cosines.argmax(1) == right).mean(), abs=1e-5)
    assert found["InMemoryT2I"] == pytest.approx((cosines.argmax(0) == right).mean(), abs=1e-5)
