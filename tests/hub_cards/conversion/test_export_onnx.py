"""ONNX graphs and bfloat16 folders of both models."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoProcessor, CLIPImageProcessorPil, SwinConfig

from vsehub.__main__ import main
from vsehub.hub_cards.conversion.export_onnx import RankTable, export_onnx, preparation
from vsehub.modeling.pooling import GPO
from vsehub.processing.processing_dual_encoder import square_image_processor


def test_a_table_pools_as_the_recurrence():
    torch.manual_seed(0)
    pooling = GPO(8, 0.1)
    features = torch.randn(4, 9, 5)
    mask = torch.arange(9) < torch.tensor([[9], [1], [4], [7]])
    with torch.no_grad():
        table = RankTable(pooling, 12)
        assert torch.allclose(table(features, mask), pooling(features, mask), atol=1e-6)
        assert torch.allclose(table(features), pooling(features), atol=1e-6)


@pytest.fixture
def shallow_folder(tmp_path, make_tiny_model, tiny_vision_config, tiny_text_config, tiny_processor):
    """A model of one layer each: what takes long is the export of a layer."""
    towers = {"vision_config": copy.deepcopy(tiny_vision_config), "text_config": copy.deepcopy(tiny_text_config)}
    for config in towers.values():
        config.num_hidden_layers = 1
    make_tiny_model(**towers, decoder_layers=1).save_pretrained(tmp_path / "shallow")
    tiny_processor.save_pretrained(tmp_path / "shallow")
    return tmp_path / "shallow"


@pytest.mark.parametrize("name", ["shallow_folder", pytest.param("pir_folder", marks=pytest.mark.slow)])
def test_both_graphs_embed_as_the_model_at_any_batch_and_length(name, request, tmp_path, tiny_pictures, tiny_captions):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder, out = request.getfixturevalue(name), tmp_path / "onnx"
    assert main(["export", str(folder), str(out)]) == 0
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {"visual/model.onnx", "textual/model.onnx", "visual/preprocess_cfg.json", "textual/tokenizer.json",
            "parity.json", "config.json"} <= files  # fmt: skip
    assert max(json.loads((out / "parity.json").read_text())["max_abs_difference"].values()) <= 1e-4
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    sessions = {side: onnxruntime.InferenceSession(out / side / "model.onnx") for side in ("visual", "textual")}
    pixels = processor(images=tiny_pictures, return_tensors="np")["pixel_values"]
    images = sessions["visual"].run(None, {"pixel_values": pixels})[0]
    assert np.abs(images - model.encode_image(tiny_pictures).numpy()).max() <= 1e-4
    for texts in (tiny_captions, tiny_captions[1:2], ["a " * 40]):
        tokens = processor(text=texts, return_tensors="np")
        found = sessions["textual"].run(None, {n: tokens[n] for n in ("input_ids", "attention_mask")})[0]
        assert np.abs(found - model.encode_text(texts).numpy()).max() <= 1e-4


def test_the_preparation_is_that_of_the_processor():
    pictures = square_image_processor(32, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6], resample=3)
    common = {"size": [32, 32], "mode": "RGB", "fill_color": 0}
    squash = {**common, "resize_mode": "squash", "interpolation": "bicubic"}
    assert preparation(pictures, 32) == {**squash, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    pictures.do_normalize, pictures.resample = False, 5
    plain = {"mean": [0.0] * 3, "std": [1.0] * 3}
    assert preparation(pictures, 32) == {**squash, **plain, "interpolation": "hamming"}
    clip = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    shortest = {**common, "resize_mode": "shortest", "interpolation": "bicubic"}
    assert preparation(clip, 32) == {**shortest, "mean": list(clip.image_mean), "std": list(clip.image_std)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": {"height": 40, "width": 32}}, "squares of the 32 pixels that the model takes"),
        ({"size": {"shortest_edge": 32}}, "squares of the 32 pixels"),
        ({"do_center_crop": True, "crop_size": {"height": 24, "width": 24}}, "crop_size="),
        ({"do_rescale": False}, "do_rescale=False, which preprocess_cfg.json cannot say"),
        ({"do_resize": False}, "do_resize=False"),
        ({"rescale_factor": 1 / 128}, "not 1/255"),
    ],
)
def test_a_processor_that_the_file_cannot_describe_is_refused(changes, said):
    pictures = square_image_processor(32)
    for name, value in changes.items():
        setattr(pictures, name, value)
    with pytest.raises(ValueError, match=said):
        preparation(pictures, 32)


@pytest.mark.slow
def test_windows_of_swin_are_traced(make_tiny_model, tiny_processor, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    swin = SwinConfig(image_size=32, patch_size=2, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4)
    model = make_tiny_model(vision_config=swin)
    assert max(export_onnx(model, tiny_processor, tmp_path).values()) <= 1e-4


def test_bfloat16_is_half_the_size_and_nearly_the_same(tiny_folder, tmp_path, tiny_captions, capsys):
    out, source = tmp_path / "half", tmp_path / "source"
    shutil.copytree(tiny_folder, source)
    (source / "README.md").write_text("---\nlicense: mit\n---\n# Boats\n")
    (source / "handler.py").unlink()  # a model that was loaded with remote code is saved without them
    (source / "modules.json").unlink()
    assert main(["export", str(source), str(out), "--to", "transformers", "--dtype", "bf16"]) == 0
    assert "mean cosine" in capsys.readouterr().out
    assert (out / "handler.py").is_file() and (out / "modules.json").is_file()
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tiny_folder, out)]
    assert sizes[1] < 0.6 * sizes[0]
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: mit") and "bfloat16 weights; mean cosine" in card
    half = AutoModel.from_pretrained(out)
    assert half.dtype == torch.bfloat16
    exact = AutoModel.from_pretrained(tiny_folder)
    embeds = half.encode_text(tiny_captions)
    assert (embeds * exact.encode_text(tiny_captions)).sum(1).min() > 0.99
    assert (embeds.norm(dim=1) - 1).abs().max() < 1e-6  # bfloat16 would be off by 0.4 %, and cosines exceed 1


def test_a_model_that_is_not_whole_is_refused(tiny_folder, tmp_path, capsys):
    for gone, said in (
        ("tokenizer.json", "vocabulary"),
        ("processor_config.json", "processor_config.json"),
        ("", "weights of a"),
    ):
        source = tmp_path / f"without_{gone}"
        shutil.copytree(tiny_folder, source)
        if gone:
            (source / gone).unlink()
        else:
            weights = load_file(source / "model.safetensors")
            del weights["image_projection.bias"]
            save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
        assert main(["export", str(source), str(tmp_path / "out"), "--to", "transformers"]) == 2
        printed = capsys.readouterr().err
        assert said in printed and str(source) in printed and not (tmp_path / "out").exists()


def test_a_full_folder_and_a_contradiction_are_refused(tiny_folder, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert main(["export", str(tiny_folder), str(tmp_path / "full")]) == 2
    assert main(["export", str(tiny_folder), str(tmp_path / "new"), "--dtype", "bf16"]) == 2
    printed = capsys.readouterr().err
    assert "not empty" in printed and "--to transformers" in printed
    for model, out, said in (
        (tiny_folder, tmp_path / "full" / "x", "is a file, not a folder"),
        (tiny_folder / "config.json", tmp_path / "new", "is a file: name the folder of a model"),
        (tmp_path / "absent", tmp_path / "new", "no such folder"),
    ):
        assert main(["export", str(model), str(out)]) == 2
        assert said in capsys.readouterr().err
