"""No code of a model runs, and nothing is asked on stdin, unless a command line names the model and says so."""

import ast
import builtins
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hostile import ASKS_FOR, plant_code
from package_files import package_files
from transformers import AutoModel

import vsehub
from vsehub import D2SVSEConfig, D2SVSEProcessor
from vsehub.__main__ import main
from vsehub.commands.flags import add_trust, loading_options
from vsehub.commands.parser import Parser
from vsehub.configuration.configuration_dual_encoder import refuse_kernels
from vsehub.modeling.towers import build_tower, load_tower
from vsehub.search.retriever import Retriever

ROOT = Path(vsehub.__file__).parent
BAR = re.compile(r"%\||examples/s")  # progress
LOADERS = ("from_pretrained", "from_config")


def loading_calls():
    """`file:line` and the call, of each call of an Auto class in the package."""
    for path in package_files(ROOT):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOADERS:
                owner = ast.unparse(node.func.value)
                if "Auto" in owner or "auto" in owner:
                    yield pytest.param(node, id=f"{path.relative_to(ROOT)}:{node.lineno}")


@pytest.mark.parametrize("call", loading_calls())
def test_every_loading_call_says_whether_code_is_trusted(call):
    # `**kwargs` carries the decision where a function was given one
    assert {"trust_remote_code", None} & {keyword.arg for keyword in call.keywords}, ast.unparse(call)


@pytest.fixture
def planted(tmp_path, tiny_folder):
    """A function: part -> folder of a model that wants code of its own for it, and the file that this would write."""

    def make(part):
        folder = tmp_path / "received"
        shutil.copytree(tiny_folder, folder)
        plant_code(folder, part, tmp_path / "witness")
        return folder, tmp_path / "witness"

    return make


@pytest.fixture
def questions(monkeypatch):
    """What was asked on stdin; each question is answered yes."""
    asked = []
    monkeypatch.setattr(builtins, "input", lambda prompt="": asked.append(prompt) or "y")
    return asked


@pytest.fixture
def index(tmp_path, tiny_model, tiny_processor, tiny_pictures):
    """An index of six pictures."""
    retriever = Retriever(tiny_model, tiny_processor)
    retriever.add_images(list(tiny_pictures))
    retriever.save(tmp_path / "index")
    return tmp_path / "index"


def naming(index, model):
    """The index, whose manifest now names `model`."""
    manifest = json.loads((index / "manifest.json").read_text())
    manifest["model"]["id"] = str(model)
    (index / "manifest.json").write_text(json.dumps(manifest))
    return index


def refused_in_one_line(capsys, questions, witness, *words):
    """Run a verb that must end in one line, ask nothing and run nothing."""
    status, printed = main(list(map(str, words))), capsys.readouterr().err
    lines = [line for line in printed.splitlines() if line.strip() and not BAR.search(line)]
    assert status == 2 and len(lines) == 1, printed
    assert not questions and not witness.exists()
    return printed


@pytest.mark.parametrize("part", ASKS_FOR)
@pytest.mark.parametrize("verb", ["search", "search --model", "index", "export", "evaluate"])
def test_no_verb_runs_what_a_model_brings(part, verb, planted, index, tmp_path, tiny_pictures, capsys, questions):
    folder, witness = planted(part)
    (tmp_path / "photos").mkdir()
    for n, picture in enumerate(tiny_pictures[:2]):
        picture.save(tmp_path / "photos" / f"{n}.png")
    (tmp_path / "photos" / "metadata.jsonl").write_text(
        "".join(json.dumps({"file_name": f"{n}.png", "captions": ["a dog"]}) + "\n" for n in range(2))
    )
    words = {
        "search": ["search", naming(index, folder), "1"],
        "search --model": ["search", index, "1", "--model", folder],
        "index": ["index", tmp_path / "photos", "--model", folder, "--out", tmp_path / "new"],
        "export": ["export", folder, tmp_path / "out", "--to", "transformers"],
        "evaluate": ["evaluate", folder, "--data", tmp_path / "photos", "--split", "train"],
    }
    refused_in_one_line(capsys, questions, witness, *words[verb])


def test_explain_runs_nothing(planted, tmp_path, tiny_pictures, capsys, questions):
    folder, witness = planted("model")
    tiny_pictures[0].save(tmp_path / "a.png")
    refused_in_one_line(capsys, questions, witness, "explain", folder, tmp_path / "a.png")


@pytest.mark.slow
def test_yes_on_stdin_of_a_real_process_is_no_consent(planted, index):
    folder, witness = planted("model")
    environment = os.environ | {"PYTHONPATH": str(ROOT.parent), "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-m", "vsehub", "search", str(naming(index, folder)), "1"]
    done = subprocess.run(words, input="y\n1\nyes\n", capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "needs code of its own" in done.stderr
    assert not witness.exists()


@pytest.mark.parametrize("part", ["vision_config", "text_config"])
def test_a_tower_runs_nothing(part, planted, questions):
    folder, witness = planted("model")
    with pytest.raises(ValueError, match="needs code of its own"):
        load_tower(str(folder), part)
    assert not questions and not witness.exists()


@pytest.mark.parametrize("part", ["tokenizer", "image processor"])
def test_a_processor_of_towers_runs_nothing(part, planted, tiny_folder, questions):
    folder, witness = planted(part)
    with pytest.raises(ValueError):
        D2SVSEProcessor.from_vision_text_pretrained(str(folder), str(folder), 32)
    with pytest.raises((ValueError, OSError)):
        D2SVSEProcessor.from_pretrained(folder)
    assert not questions and not witness.exists()


def test_a_tower_inside_a_received_configuration_asks_nothing(tiny_text_config, questions):
    config = tiny_text_config.__class__(**tiny_text_config.to_dict())
    config.auto_map = {"AutoModel": "org/code--planted.C"}
    build_tower(config)
    assert not questions


# --- kernels -----------------------------------------------------------------------------------------------------

KERNELS = [
    {"attn_implementation": "org/kernel"},
    {"_attn_implementation": "org/kernel@main:forward"},
    {"_attn_implementation_internal": "kernels-community/flash-attn2"},
    {"attn_implementation": {"text_config": "org/kernel"}},
    {"text_config": {"_attn_implementation": "org/kernel"}},
    {"vision_config": {"attn_implementation": "kernels-community/flash-attn"}},
    {"vision_config": {"backbone_config": {"attn_implementation": "org/kernel"}}},
    {"experts_implementation": "org/kernel"},
    {"_experts_implementation": "org/kernel"},
    {"kernel_config": {"kernel_mapping": {"RMSNorm": "org/kernel:RMSNorm"}}},
    {"quantization_config": {"quant_method": "fp8"}},
    {"quantization_config": {"quant_method": "mxfp4"}},
    {"text_config": {"quantization_config": {"quant_method": "fp8"}}},
]


@pytest.mark.parametrize("settings", KERNELS, ids=json.dumps)
def test_a_received_configuration_names_no_kernel(settings):
    with pytest.raises(ValueError, match="config.json"):
        D2SVSEConfig.from_dict(settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"attn_implementation": "sdpa"},
        {"_attn_implementation": "flash_attention_2"},
        {"quantization_config": {"quant_method": "torchao"}},
        {"quantization_config": {"load_in_8bit": True}},
        {"use_kernels": False},
        {"_name_or_path": "org/model", "attn_implementation": None},
    ],
    ids=json.dumps,
)
def test_what_needs_no_download_is_allowed(settings):
    refuse_kernels(settings)
    refuse_kernels(settings | {"id2label": {0: "a/b"}})


@pytest.mark.parametrize("name", ["attn_implementation", "_attn_implementation"])
def test_a_folder_with_a_kernel_is_refused_by_the_verbs(name, tmp_path, tiny_folder, capsys, questions):
    folder = tmp_path / "received"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {name: "org/kernel"}))
    printed = refused_in_one_line(capsys, questions, tmp_path / "none", "export", folder, tmp_path / "out")
    assert "org/kernel" in printed
    with pytest.raises(ValueError, match="org/kernel"):
        AutoModel.from_pretrained(folder)


# --- the one door ------------------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef" * 2 + "01234567"


def options(words, model):
    """What the loaders are told of a command line."""
    parser = Parser("verb", "about", "verb")
    add_trust(parser)
    return loading_options(parser.parse_args(words), model)


def test_trust_is_off_unless_said():
    assert options([], "org/model") == {"trust_remote_code": False}
    assert options(["--revision", "v1"], "org/model") == {"trust_remote_code": False, "revision": "v1"}
    both = ["--trust_remote_code", "--revision", COMMIT]
    assert options(both, "org/model") == {"trust_remote_code": True, "revision": COMMIT}


@pytest.mark.parametrize("revision", [[], *(["--revision", name] for name in ("main", "v1", COMMIT[:39], "a" * 41))])
def test_trust_needs_the_commit(revision):
    with pytest.raises(ValueError, match="--revision COMMIT"):
        options(["--trust_remote_code", *revision], "org/model")


def test_an_index_decides_nothing_about_code(index, capsys):
    assert main(["search", str(naming(index, "org/model")), "a dog", "--trust_remote_code"]) == 2
    assert "--model" in capsys.readouterr().err
    with pytest.raises(ValueError, match="give --model"):
        Retriever.open(index, trust_remote_code=True)


def test_code_of_a_folder_comes_from_that_folder(planted):
    folder, _ = planted("model")
    assert options(["--trust_remote_code"], str(folder)) == {"trust_remote_code": True}
    (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["org/else--planted.C", null]}}')
    with pytest.raises(ValueError, match="another repository"):
        options(["--trust_remote_code"], str(folder))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("modules.json", '[{"name": "0", "path": "", "type": "org/else--planted.Module"}]'),
        ("0_Transformer/config.json", '{"auto_map": {"AutoModel": "org/else--planted.M"}}'),
    ],
)
def test_nor_does_a_folder_of_sentence_transformers_take_code_from_elsewhere(tmp_path, name, content):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match="another repository"):
        options(["--trust_remote_code"], str(tmp_path))


def test_the_door_opens(planted, tmp_path, capsys, questions):
    folder, witness = planted("model")
    assert main(["export", str(folder), str(tmp_path / "out"), "--trust_remote_code"]) == 2  # a class that is none
    assert witness.exists() and not questions


def test_an_index_that_names_a_model_elsewhere_says_so_first(index, caplog):
    naming(index, "org/somewhere")
    with pytest.raises(OSError, match="org/somewhere"):
        Retriever.open(index)
    assert "names the model org/somewhere" in caplog.text
