"""A Hub on the loopback address, and clients of it in processes of their own."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from looks import FLOOR
from PIL import Image
from transformers import AutoModel, AutoProcessor

HERE = Path(__file__).parent


def load_helper(name):
    """Import a module that lies beside this file: test folders are no packages."""
    spec = importlib.util.spec_from_file_location(f"hub_cards_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def loopback_hub_class():
    """The Hub as a context manager, for a test that wants one of its own."""
    return load_helper("loopback_hub").LoopbackHub


@pytest.fixture(scope="session")
def loopback_hub(loopback_hub_class):
    """A running Hub that starts without repositories; see `loopback_hub.py`."""
    with loopback_hub_class() as hub:
        yield hub


@pytest.fixture(scope="session")
def client_load():
    """The module `client_load.py`, for what the clients compute."""
    return load_helper("client_load")


@pytest.fixture(scope="session")
def run_client(tmp_path_factory):
    """A function: client script, arguments, environment -> what the client reported, and what it printed."""

    def run(script, *arguments, **environment):
        folder = tmp_path_factory.mktemp("client")
        keep = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH") if name in os.environ}
        home = {"HOME": str(folder), "HF_HOME": f"{folder}/hf", "HF_MODULES_CACHE": f"{folder}/modules"}
        quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        target = folder / "report.json"
        done = subprocess.run(
            [sys.executable, HERE / script, target, *map(str, arguments)],
            cwd=folder,
            env=keep | home | quiet | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout
        return json.loads(target.read_text()), done.stdout

    return run


@pytest.fixture(scope="session")
def online_at():
    """A function: address of a Hub -> the environment of its clients."""
    return lambda url: {
        "HF_ENDPOINT": url,
        "HF_TOKEN": "hf_dummy",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }


@pytest.fixture(scope="session")
def online(loopback_hub, online_at):
    """The environment of a client of the loopback Hub."""
    return online_at(loopback_hub.url)


@pytest.fixture(scope="session")
def material(tmp_path_factory, tiny_pictures, tiny_captions):
    """A folder with pictures and captions for every client."""
    folder = tmp_path_factory.mktemp("material")
    for row, picture in enumerate(tiny_pictures):
        picture.save(folder / f"{row}.png")
    (folder / "captions.json").write_text(json.dumps(tiny_captions))
    return folder


@pytest.fixture(scope="session")
def expected(client_load, material):
    """A function: folder -> what the installed classes compute on the material."""

    def compute(folder):
        model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
        found = client_load.compute(model, processor, material)
        labels = model.encode_text([f"This is a photo of {label}." for label in client_load.LABELS])
        picture = model.encode_image(Image.open(material / "0.png"))
        scores = (model.config.logit_scale * picture @ labels.t()).softmax(-1)[0]
        return found | {"scores": dict(zip(client_load.LABELS, scores.tolist()))}

    return compute


@pytest.fixture(scope="session")
def floor(tmp_path_factory):
    """PYTHONPATH that puts the oldest supported transformers first; `VSEHUB_FLOOR` names one that is there already."""
    target = os.environ.get("VSEHUB_FLOOR") or str(tmp_path_factory.mktemp("floor"))
    if not os.listdir(target):
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", target, f"transformers=={FLOOR}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        if done.returncode:
            pytest.skip(f"pip cannot install transformers {FLOOR}: {done.stderr.strip()[-300:]}")
    return {"PYTHONPATH": target}
