"""`run_pir.py` end to end on tiny scenes: the prior, retrieval under it, hand-over, resume, caches, two processes."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as Pillow
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForImageClassification, BertModel, ResNetConfig, ResNetModel, ViTModel

from vsehub import PIRModel
from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows
from vsehub.processing.processing_dual_encoder import square_image_processor
from vsehub.training import run_pir
from vsehub.training.arguments import PIR_ARGUMENTS
from vsehub.training.pir_stages import STAGES, fresh_model

SMALL = """--image_size 32 --projection_dim 16 --attention_heads 2 --filter_size 9 --dropout 0 --instruction_layers 1
--cycles 1 --text_augmentation 0 --per_device_train_batch_size 8 --logging_steps 1 --eval_strategy steps
--save_strategy steps --eval_steps 2 --save_steps 2 --max_steps 4 --use_cpu True""".split()
COLOURS = {"field": (40, 160, 60), "river": (40, 80, 210), "street": (120, 120, 120)}
FEATURES = Features(
    {
        "image": Image(),
        "captions": List(Value("string")),
        "label": ClassLabel(names=list(COLOURS)),
        "image_id": Value("string"),
    }
)


def scene_rows(count, seed):
    rng, rows = np.random.default_rng(seed), []
    for index in range(count):
        name = list(COLOURS)[index % 3]
        pixels = np.array(COLOURS[name]) + rng.normal(0, 20, (40, 40, 3))
        buffer = io.BytesIO()
        Pillow.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
        captions = [f"a {name}", f"the {name} with {'tree boat'.split()[index % 2]}"]
        image = {"bytes": buffer.getvalue(), "path": f"{name}_{index}.png"}
        rows.append({"image": image, "captions": captions, "label": index % 3, "image_id": f"{seed}-{index}"})
    return Dataset.from_list(rows, features=FEATURES)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory, tiny_vision_config, tiny_text_config, tiny_tokenizer):
    """Three classes of noisy colours, and untrained towers: a ViT, a BERT, and a ResNet to become the prior."""
    root = tmp_path_factory.mktemp("overhead")
    (root / "data").mkdir()
    for split, count, seed in (("train", 24, 0), ("validation", 9, 1)):
        scene_rows(count, seed).to_parquet(root / "data" / f"{split}-00000-of-00001.parquet")
    torch.manual_seed(0)
    ViTModel(tiny_vision_config, add_pooling_layer=False).save_pretrained(root / "vit")
    square_image_processor(32, [0.5] * 3, [0.5] * 3).save_pretrained(root / "vit")
    BertModel(tiny_text_config, add_pooling_layer=False).save_pretrained(root / "bert")
    tiny_tokenizer.save_pretrained(root / "bert")
    ResNetModel(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
    ).save_pretrained(root / "resnet")
    square_image_processor(32).save_pretrained(root / "resnet")
    flags = ["--data", "data", "--vision", "vit", "--text", "bert", "--instruction", "resnet"]
    return [word if word.startswith("--") else str(root / word) for word in flags]


def run(scenes, out, *flags):
    run_pir.main([*scenes, *SMALL, "--output_dir", str(out), *flags])
    return load_file(out / "hub" / "model.safetensors")


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def both_stages(scenes, tmp_path_factory):
    out = tmp_path_factory.mktemp("both")
    prior = ["--prior.max_steps", "30", "--prior.learning_rate", "0.01"]
    weights = run(scenes, out, *prior, "--prior.freeze_vision_batch_norm", "False")
    return out, weights


def test_both_stages_leave_a_hub_folder_that_loads_and_believes(both_stages):
    out, _ = both_stages
    model = AutoModel.from_pretrained(out / "hub")
    assert type(model) is PIRModel and model.belief(torch.zeros(1, 3, 32, 32)).shape == (1, 17)
    assert model.encode_text(["a field"]).shape == (1, 16)
    results = json.loads((out / "validation.json").read_text())
    assert results["prior"]["eval_accuracy"] > 90  # colours are easy
    assert 0 <= results["retrieval"]["eval_rsum"] <= 600
    assert "accuracy" in (out / "hub" / "README.md").read_text()


def test_the_frozen_encoder_is_the_trained_classifier_with_its_own_normalisation(both_stages):
    out, weights = both_stages
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


def test_the_prior_keeps_the_batch_norm_statistics_that_it_was_loaded_with(scenes, tmp_path):
    run_pir.main([*scenes, *SMALL, "--output_dir", str(tmp_path), "--stages", "prior", "--learning_rate", "0.01"])
    before, after = (ResNetModel.from_pretrained(path).state_dict() for path in (scenes[7], tmp_path / "prior/best"))
    assert all(torch.equal(before[key], after[key]) for key in before if "running" in key)
    assert not all(torch.equal(before[key], after[key]) for key in before)


def test_the_prior_accumulates_gradients_to_those_of_the_whole_batch(scenes, tmp_path):
    flags = ["--stages", "prior", "--image_augmentation", "none", "--optim", "sgd", "--learning_rate", "0.05"]
    for name, *batch in (("whole", "8"), ("halves", "4", "--gradient_accumulation_steps", "2")):
        words = [*flags, "--output_dir", str(tmp_path / name), "--per_device_train_batch_size", *batch]
        assert run_pir.main([*scenes, *SMALL, *words]) == 0
    whole, halves = (load_file(tmp_path / name / "prior/best/model.safetensors") for name in ("whole", "halves"))
    assert all(torch.allclose(whole[key].float(), halves[key].float(), atol=1e-5) for key in whole)


def test_the_prior_learns_from_labelled_pictures_without_captions(scenes, tmp_path):
    from datasets import load_dataset

    (tmp_path / "data").mkdir()
    for split in ("train", "validation"):
        rows = load_dataset(scenes[1], split=split).select_columns(["image", "label"])
        rows.to_parquet(str(tmp_path / "data" / f"{split}-00000-of-00001.parquet"))
    flags = ["--data", str(tmp_path / "data"), "--instruction", scenes[7], "--stages", "prior"]
    assert run_pir.main([*flags, *SMALL, "--output_dir", str(tmp_path / "run")]) == 0
    assert AutoModelForImageClassification.from_pretrained(tmp_path / "run" / "prior" / "best").config.num_labels == 3
    with pytest.raises(ValueError, match="no column 'captions'"):
        run_pir.main([*flags, *SMALL, "--output_dir", str(tmp_path / "run"), "--stages", "retrieval"])


def test_retrieval_alone_takes_an_encoder_that_is_ready(both_stages, scenes, tmp_path):
    out, weights = both_stages
    flags = ["--stages", "retrieval", "--instruction", str(out / "prior" / "best")]
    assert equal(weights, run(scenes, tmp_path, *flags))


def test_a_finished_prior_is_loaded_and_an_interrupted_retrieval_resumes(scenes, tmp_path):
    flags = ["--load_best_model_at_end", "False", "--save_total_limit", "9", "--dropout", "0.2"]
    flags += ["--image_augmentation", "rand_augment"]
    whole = run(scenes, tmp_path / "whole", *flags)
    run(scenes, tmp_path / "broken", *flags)
    shutil.rmtree(tmp_path / "broken" / "retrieval" / "checkpoint-4")
    (tmp_path / "broken" / "retrieval" / "finished.json").unlink()
    assert equal(whole, run(scenes, tmp_path / "broken", *flags, "--resume_from_checkpoint", "true"))


@pytest.mark.parametrize(
    "flags",
    [
        ["--instruction_layers", "0", "--cycles", "0", "--affiliation_weight", "0"],
        ["--use_instruction", "False", "--contrast", "triplet"],
        ["--belief", "soft", "--tel_norm", "branch"],
        ["--legacy", "True"],
    ],
    ids=["baseline", "triplet without prior", "soft", "legacy"],
)
def test_every_variant_trains(scenes, tmp_path, flags):
    run(scenes, tmp_path, "--stages", "retrieval", "--max_steps", "2", *flags)


def test_caches_change_nothing_but_rounding(scenes, tmp_path):
    flags = ["--stages", "retrieval", "--freeze_vision", "True", "--freeze_text", "True"]
    flags += ["--image_augmentation", "none", "--load_best_model_at_end", "False"]
    plain = run(scenes, tmp_path / "plain", *flags)
    quick = run(scenes, tmp_path / "quick", *flags, "--cache_vision", "True", "--cache_text", "True")
    for key in plain:
        assert torch.allclose(plain[key].float(), quick[key].float(), atol=5e-3), key


@pytest.mark.parametrize("flags", [["--use_instruction", "False"], ["--instruction_layers", "0"]])
def test_a_prior_that_would_not_be_used_is_refused(scenes, tmp_path, flags):
    with pytest.raises(ValueError, match="add --stages retrieval"):
        run(scenes, tmp_path, *flags)
    assert not (tmp_path / "prior").exists()


def test_what_is_missing_is_named(scenes, tmp_path):
    with pytest.raises(ValueError, match="--label_column"):
        run(scenes, tmp_path, "--label_column", "kind")
    with pytest.raises(ValueError, match="instruction encoder"):
        flags = ["--data", scenes[1], "--vision", scenes[3], "--text", scenes[5]]
        fresh_model(_parsed([*flags, *SMALL]), None)
    with pytest.raises(ValueError, match="not in the checkpoint"):
        broken = tmp_path / "broken"
        shutil.copytree(scenes[7], broken)
        _forget(broken, "encoder.stages.0.layers.0.layer.0.convolution.weight")
        run(scenes, tmp_path, "--instruction", str(broken))


def _parsed(words):
    from vsehub.training.recipe import parse_stages
    from vsehub.training.stages import StageArguments

    return StageArguments("retrieval", *parse_stages(words, STAGES, PIR_ARGUMENTS)[0]["retrieval"])


def _forget(folder, name):
    from safetensors.torch import save_file

    weights = load_file(folder / "model.safetensors")
    save_file(
        {key: value for key, value in weights.items() if key != name}, folder / "model.safetensors", {"format": "pt"}
    )


def test_labels_come_from_a_column_of_any_kind_or_from_file_names(scenes):
    named = prepare_rows(DataArguments(data=scenes[1]), "validation", None, False, need_label=True)
    prefixed = prepare_rows(DataArguments(data=scenes[1], label_column="prefix"), "validation", None, False)
    assert named["label"] == prefixed["label"] == ["field", "river", "street"] * 3


def test_an_image_without_a_class_is_one_of_its_own_and_teaches_the_prior_nothing(scenes, tmp_path, tiny_processor):
    from vsehub.training.pairs import PairDataset
    from vsehub.training.prior import labelled

    rows = scene_rows(6, 0).remove_columns("label").cast_column("image", Image(decode=False))
    names = ["field_1.png", "00578.png", "field_2.png", "river_1.png", "00579.png", "river_2.png"]
    images = [{**row["image"], "path": name} for row, name in zip(rows, names)]
    rows.remove_columns("image").add_column("image", images).to_parquet(str(tmp_path / "data.parquet"))
    found = prepare_rows(
        DataArguments(data=str(tmp_path / "data.parquet"), label_column="prefix"), "train", None, False
    )
    assert found["label"] == ["field", None, "field", "river", None, "river"]
    assert labelled(found)["label"] == ["field", "field", "river", "river"]
    labels = PairDataset(found, tiny_processor).labels
    assert labels[0] == labels[2] and labels[3] == labels[5] and len(set(labels)) == 4


@pytest.mark.parametrize("batch", [4])
def test_two_processes_train_what_one_does(scenes, both_stages, tmp_path, batch):
    prior = str(both_stages[0] / "prior" / "best")
    flags = ["--stages", "retrieval", "--instruction", prior, "--max_steps", "3", "--learning_rate", "0.01"]
    flags += ["--image_augmentation", "none", "--optim", "sgd", "--load_best_model_at_end", "False"]
    one = run(scenes, tmp_path / "one", *flags)
    script = Path(run_pir.__file__)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        "29517",
        str(script),
    ]
    words = [
        *scenes,
        *SMALL,
        *flags,
        "--per_device_train_batch_size",
        str(batch),
        "--output_dir",
        str(tmp_path / "two"),
    ]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    two = load_file(tmp_path / "two" / "hub" / "model.safetensors")
    assert max((one[key].float() - two[key].float()).abs().max().item() for key in one) < 1e-5
