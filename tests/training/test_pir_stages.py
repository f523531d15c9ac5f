"""PIR's stages: which encoder instructs, and what is refused."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_runs import PIR_SMALL, equal, run_pir
from transformers import AutoModel, AutoModelForImageClassification

from vsehub.training.flags.arguments import PIR_ARGUMENTS
from vsehub.training.flags.recipe import parse_stages
from vsehub.training.pir_stages import STAGES as PIR_STAGES
from vsehub.training.pir_stages import fresh_model as fresh_pir_model
from vsehub.training.stage_arguments import StageArguments


def test_the_frozen_encoder_is_the_trained_classifier_with_its_own_normalisation(pir_run):
    out, weights = pir_run
    prior = AutoModelForImageClassification.from_pretrained(out / "prior" / "best").resnet.state_dict()
    model = AutoModel.from_pretrained(out / "hub")
    own = model.instruction_model.state_dict()
    assert own.keys() == prior.keys() and all(torch.equal(own[key], prior[key]) for key in own)
    assert not any(p.requires_grad for p in model.instruction_model.parameters())
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.no_grad():
        expected = model.instruction_model((pixels - mean) / std).last_hidden_state.mean((2, 3))
    assert torch.allclose(model.instruct((pixels - 0.5) / 0.5), expected, atol=1e-5)


def test_retrieval_alone_takes_an_encoder_that_is_ready(pir_run, overhead, tmp_path):
    out, weights = pir_run
    flags = ["--stages", "retrieval", "--instruction", str(out / "prior" / "best")]
    assert equal(weights, run_pir(overhead, tmp_path, *flags))


@pytest.mark.parametrize("flags", [["--use_instruction", "False"], ["--instruction_layers", "0"]])
def test_a_prior_that_would_not_be_used_is_refused(overhead, tmp_path, flags):
    with pytest.raises(ValueError, match="add --stages retrieval"):
        run_pir(overhead, tmp_path, *flags)
    assert not (tmp_path / "prior").exists()


def test_what_is_missing_is_named(overhead, tmp_path):
    with pytest.raises(ValueError, match="--label_column"):
        run_pir(overhead, tmp_path, "--label_column", "kind")
    with pytest.raises(ValueError, match="instruction encoder"):
        flags = ["--data", overhead[1], "--vision", overhead[3], "--text", overhead[5]]
        fresh_pir_model(_parsed([*flags, *PIR_SMALL]), None)
    with pytest.raises(ValueError, match="not in the checkpoint"):
        broken = tmp_path / "broken"
        shutil.copytree(overhead[7], broken)
        _forget(broken, "encoder.stages.0.layers.0.layer.0.convolution.weight")
        run_pir(overhead, tmp_path, "--instruction", str(broken))


def _parsed(words):

    return StageArguments("retrieval", *parse_stages(words, PIR_STAGES, PIR_ARGUMENTS)[0]["retrieval"])


def _forget(folder, name):
    weights = load_file(folder / "model.safetensors")
    save_file(
        {key: value for key, value in weights.items() if key != name}, folder / "model.safetensors", {"format": "pt"}
    )
