"""A PIR model is saved, pushed and loaded as D2S-VSE is: the same numbers where vsehub cannot be imported."""

import json

import pytest
from looks import FLOOR, TRUST, check

OFFLINE = {"HF_HUB_OFFLINE": "1", "BLOCK_VSEHUB": "1"}


def test_the_folder_holds_what_it_needs_and_no_more(pir_folder):
    code = {path.stem for path in pir_folder.glob("*.py")}
    assert {"modeling_pir", "tel", "configuration_pir", "processing_pir", "pixels"} <= code
    assert not {name for name in code if "d2s" in name or name == "pooling"}


@pytest.mark.slow  # the fast suite does it for D2S-VSE
def test_a_folder_and_its_copy_compute_the_same_where_vsehub_is_absent(
    pir_folder, tmp_path, run_client, material, expected
):
    looks = [{"source": str(pir_folder), "options": TRUST, "resave": str(tmp_path)}]
    first, printed = run_client("client_load.py", material, json.dumps(looks), **OFFLINE)
    again, _ = run_client(
        "client_load.py", material, json.dumps([{"source": str(tmp_path), "options": TRUST}]), **OFFLINE
    )
    for report in (first, again):
        check(report["looks"][0], expected(pir_folder))
    assert printed.strip() == ""


@pytest.mark.slow
def test_a_pushed_model_loads_by_its_name(pir_folder, run_client, loopback_hub, online, material, expected):
    files, _ = run_client("client_push.py", pir_folder, "tester/pir", **online)
    assert {"config.json", "model.safetensors", "modeling_pir.py", "processor_config.json"} <= set(files)
    looks = [{"source": "tester/pir", "options": TRUST}]
    report, _ = run_client("client_load.py", material, json.dumps(looks), BLOCK_VSEHUB="1", **online)
    check(report["looks"][0], expected(pir_folder))


@pytest.mark.slow
def test_a_folder_goes_to_the_oldest_transformers_and_back(pir_folder, tmp_path, floor, run_client, material, expected):
    looks = [{"source": str(pir_folder), "options": TRUST, "resave": str(tmp_path)}]
    old, _ = run_client("client_load.py", material, json.dumps(looks), **OFFLINE, **floor)
    assert old["transformers"] == FLOOR
    check(old["looks"][0], expected(pir_folder), tolerance=1e-5)
    new, _ = run_client(
        "client_load.py", material, json.dumps([{"source": str(tmp_path), "options": TRUST}]), **OFFLINE
    )
    check(new["looks"][0], expected(pir_folder), tolerance=1e-5)
