"""Any dual encoder is loaded, whole and with its processor; whatever else is named gets one line with the remedy."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from dual_encoders import FAMILIES, SENTENCE, save_dual_encoder
from safetensors.torch import load_file, save_file
from transformers import BertModel, CLIPModel, SiglipTokenizer, ViTModel

from vsehub.files import remembered
from vsehub.modeling.towers import load_errors
from vsehub.processing import load_encoder as module
from vsehub.processing.encoders import Encoder
from vsehub.processing.load_encoder import encoder_of, load_encoder

FIT = "take a dual encoder .*CLIP, SigLIP.*sentence-transformers model of images and texts"


def refusal(folder, **loading) -> str:
    with pytest.raises((ValueError, OSError)) as info, load_errors(folder):
        load_encoder(folder, **loading)
    assert "\n" not in str(info.value)
    return str(info.value)


@pytest.fixture
def copied(tmp_path, dual_folder):
    """A function: family -> a copy of its folder, to be spoilt."""
    return lambda family="clip": Path(shutil.copytree(dual_folder(family), tmp_path / "copy"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_limit_is_known_without_weights(family, dual_folder):
    assert load_encoder(dual_folder(family), weights=False).text_limit == (77 if family == "clip" else 64)


def test_text_models_and_image_models_are_refused_before_their_weights_are_read(
    tmp_path, tiny_text_config, tiny_vision_config
):
    BertModel(tiny_text_config).save_pretrained(tmp_path / "bert")
    ViTModel(tiny_vision_config).save_pretrained(tmp_path / "vit")
    for name, kind in (("bert", "BertModel"), ("vit", "ViTModel")):
        (tmp_path / name / "model.safetensors").unlink()
        assert f"is a {kind}, which does not embed both" in refusal(str(tmp_path / name))
    with pytest.raises(ValueError, match=FIT):
        encoder_of(BertModel(tiny_text_config))


class Wrapped(torch.nn.Module):
    """As the wrappers of peft and torch.compile: what it lacks is that of the model in it."""

    def __init__(self, model):
        super().__init__()
        self._orig_mod = model

    def __getattr__(self, name):
        return super().__getattr__(name) if name == "_orig_mod" else getattr(self._orig_mod, name)


def test_a_wrapped_model_embeds_as_the_model_in_it(tiny_model, tiny_processor):
    plain, wrapped = encoder_of(tiny_model, tiny_processor), encoder_of(Wrapped(tiny_model), tiny_processor)
    assert torch.equal(wrapped.encode_text(["a dog"]), plain.encode_text(["a dog"]))
    assert wrapped.identity["digest"] == plain.identity["digest"]


@pytest.mark.parametrize(
    "gone, reason",
    [
        (("processor_config.json",), "preprocessor_config.json"),
        (("tokenizer.json", "tokenizer_config.json"), "tokenizer"),
        (("processor_config.json", "tokenizer.json", "tokenizer_config.json"), "processor"),
    ],
)
def test_a_model_without_its_processor_is_refused_with_what_is_missing(copied, gone, reason):
    folder = copied()
    for name in gone:
        (folder / name).unlink()
    said = refusal(str(folder))
    assert "is not a complete model" in said and "beside the weights" in said and reason in said


def test_a_checkpoint_of_one_tower_is_refused(copied):
    folder = copied()
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("text_model")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert "weights of a CLIPModel are not in the checkpoint" in refusal(str(folder))
    del weights["logit_scale"]  # no embedding depends on it
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    load_encoder(str(folder))


def spoil(folder, name, change):
    """Replace a weight of a folder by what `change` makes of it; None removes it."""
    weights = load_file(folder / "model.safetensors")
    weights[name] = change(weights[name])
    kept = {name: tensor for name, tensor in weights.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(params=["tiny_folder", "pir_folder"])
def ours(request, tmp_path):
    return Path(shutil.copytree(request.getfixturevalue(request.param), tmp_path / "ours"))


def test_a_model_of_ours_that_lacks_weights_is_refused(ours):
    name = next(name for name in load_file(ours / "model.safetensors") if name.endswith("_projection.weight"))
    spoil(ours, name, lambda weight: None)
    assert f"1 weights of a {load_class(ours)} are not in the checkpoint (first: {name})" in refusal(str(ours))


def load_class(folder):
    return json.loads((folder / "config.json").read_text())["architectures"][0]


def test_weights_of_another_shape_are_refused_by_name(ours, copied):
    for folder, name in (
        (ours, "text_norm.weight"),
        (ours, "text_projection.weight"),
        (copied(), "visual_projection.weight"),
    ):
        if name in load_file(folder / "model.safetensors"):
            spoil(folder, name, lambda weight: weight[1:].clone())
            said = refusal(str(folder))
            assert str(folder) in said and f"(first: {name} is (15" in said and "take a checkpoint of the whole" in said


def test_weights_that_no_embedding_reads_may_be_absent(ours):
    weights = load_file(ours / "model.safetensors")
    unread = [name for name in weights if ".pooler." in name or name.endswith(("mask_token", "num_batches_tracked"))]
    for name in unread:
        del weights[name]
    save_file(weights, ours / "model.safetensors", metadata={"format": "pt"})
    load_encoder(str(ours))


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("tokenizer.json", "no tokenizer, or none with a vocabulary"),
        ("tokenizer_config.json", "no token to pad with"),
        ("processor_config.json", "there is no processor_config.json"),
        ("config.json", "there is no config.json"),
    ],
)
def test_a_file_that_a_folder_lacks_is_named(tiny_folder, tmp_path, gone, said):
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    (folder / gone).unlink()
    found = refusal(str(folder))
    assert f"{folder} is not a complete model" in found and said in found and "huggingface.co" not in found
    assert found.lower().count("put the files") <= 1


def test_settings_that_name_a_kernel_are_refused(copied):
    folder = copied()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attn_implementation": "somebody/kernel"}))
    assert "asks for code from the Hub" in refusal(str(folder))


def test_code_that_the_model_brings_does_not_run_unasked(copied, tmp_path):
    folder = copied()
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "code.OwnConfig", "AutoModel": "code.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'witness')!r}, 'w')")
    assert "needs code of its own" in refusal(str(folder))
    assert not (tmp_path / "witness").exists()


def test_the_identity_is_that_of_the_weights_and_is_remembered(dual_folder, copied, tmp_path, monkeypatch):
    monkeypatch.setattr(remembered, "SETTLED_NS", 0)
    calls, real = [], module.weights_digest
    monkeypatch.setattr(module, "weights_digest", lambda model: (calls.append(1), real(model))[1])
    first, folder = load_encoder(dual_folder("clip")).identity, str(copied())
    calls.clear()
    for _ in range(2):
        assert load_encoder(folder).identity == first | {"id": folder}
    assert len(calls) == 1
    other = load_encoder(save_dual_encoder("clip", tmp_path / "other", seed=1)).identity
    assert other["digest"] != first["digest"]
    assert encoder_of(CLIPModel.from_pretrained(folder)).identity["digest"] == first["digest"]


def test_weights_one_folder_down_are_looked_at_too(tmp_path, monkeypatch):
    monkeypatch.setattr(remembered, "SETTLED_NS", 0)
    folder = Path(save_dual_encoder(SENTENCE, tmp_path))
    (folder / "0_CLIPModel").mkdir()
    for path in [path for path in folder.iterdir() if path.is_file() and path.name not in module_files()]:
        path.rename(folder / "0_CLIPModel" / path.name)
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([modules[0] | {"path": "0_CLIPModel"}]))
    digests = {load_encoder(str(folder)).identity["digest"] for _ in range(2)}
    weights = load_file(folder / "0_CLIPModel" / "model.safetensors")
    save_file({name: 2 * tensor for name, tensor in weights.items()}, folder / "0_CLIPModel" / "model.safetensors")
    assert len(digests | {load_encoder(str(folder)).identity["digest"]}) == 2


def module_files():
    return ("modules.json", "config_sentence_transformers.json", "README.md")


def test_models_in_memory(dual_folder, tiny_model, tiny_processor):
    from sentence_transformers import SentenceTransformer

    encoder = Encoder(tiny_model, tiny_processor)
    assert encoder_of(encoder) is encoder
    assert encoder_of(tiny_model, tiny_processor).dimension == 16
    clip = CLIPModel.from_pretrained(dual_folder("clip"))
    library = SentenceTransformer(dual_folder(SENTENCE), device="cpu")
    assert torch.equal(encoder_of(clip).encode_text(["a"]), encoder_of(library).encode_text(["a"]))
    clip.config._name_or_path = ""
    with pytest.raises(ValueError, match="pass processor="):
        encoder_of(clip)


def test_siglip_with_the_tokenizer_that_it_was_published_with(copied, tmp_path):
    pieces = pytest.importorskip("sentencepiece", reason="the extra `siglip` is not installed")
    sentences = iter(["a dog runs", "the cat sits on a mat", "jumpy zebras vex quick fog wolves"] * 9)
    pieces.SentencePieceTrainer.train(
        sentence_iterator=sentences, model_prefix=str(tmp_path / "spiece"), vocab_size=28, model_type="char"
    )
    tokenizer = SiglipTokenizer(str(tmp_path / "spiece.model"), unk_token="<unk>")
    folder = copied("siglip")
    (folder / "tokenizer.json").unlink()
    tokenizer.save_pretrained(folder)
    encoder = load_encoder(str(folder))
    assert type(encoder.tokenizer) is SiglipTokenizer and encoder.text_limit == 64
    inputs = tokenizer(["a dog", "A cat!"], padding="max_length", truncation=True, return_tensors="pt")
    with torch.no_grad():
        expected = encoder.model.get_text_features(**inputs)
    expected = torch.nn.functional.normalize(getattr(expected, "pooler_output", expected), dim=-1)
    assert (encoder.encode_text(["a dog", "A cat!"]) - expected).abs().max() < 1e-6
    assert torch.equal(encoder.encode_text(["A dog."]), encoder.encode_text(["a dog"]))


def test_a_package_that_a_tokenizer_needs_is_named_by_its_extra(dual_folder, monkeypatch):
    def needs(*args, **kwargs):
        raise ImportError("\nSiglipTokenizer requires the SentencePiece library but\nit was not found")

    monkeypatch.setattr(module.AutoProcessor, "from_pretrained", needs)
    with pytest.raises(ImportError, match=r'not installed: pip install "vsehub\[siglip\]"'):
        load_encoder(dual_folder("siglip"))


@pytest.mark.parametrize("family", ["clip", SENTENCE])
def test_a_model_of_the_hub_is_known_by_its_commit(family, dual_folder, tmp_path):
    commit, place = "c" * 40, tmp_path / "models--org--model"
    shutil.copytree(dual_folder(family), place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    for revision in ({}, {"revision": commit}):
        encoder = load_encoder("org/model", cache_dir=str(tmp_path), **revision)
        digest = load_encoder(dual_folder(family)).identity["digest"]
        assert encoder.identity == {"id": "org/model", "revision": commit, "digest": digest}
