"""`trainer.push_to_hub` publishes what a stranger can load, and nothing else."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def trained(run_client, online, tiny_folder):
    report, _ = run_client("client_train.py", tiny_folder, **online)
    return report


def test_the_pushed_repository_holds_no_pickle_and_no_training_state(trained, loopback_hub):
    files = set(loopback_hub.repositories["tester/trained"].files())
    assert {"config.json", "model.safetensors", "modeling_d2s_vse.py", "processor_config.json", "README.md"} <= files
    assert {"handler.py", "modules.json", "pipeline_image_text_retrieval.py"} <= files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pth"))]
    assert {name for name in files if "/" in name} <= {"1_Normalize/config.json"}
    assert "objective.safetensors" not in files


@pytest.mark.slow  # test_hub_round_trip.py loads what a model pushes
def test_a_stranger_loads_the_trained_model(trained, run_client, online, tmp_path):
    (tmp_path / "captions.json").write_text('["a dog"]')
    from PIL import Image

    Image.new("RGB", (32, 32)).save(tmp_path / "0.png")
    looks = '[{"source": "tester/trained", "options": {"trust_remote_code": true}}]'
    report, _ = run_client("client_load.py", tmp_path, looks, BLOCK_VSEHUB="1", **online)
    assert np.allclose(report["looks"][0]["text"], trained["text"], atol=1e-6)
