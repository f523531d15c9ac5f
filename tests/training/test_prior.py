"""PIR's prior: a scene classifier that is trained as one would train it."""

import pytest
import torch
from datasets import Image, load_dataset
from safetensors.torch import load_file
from small_runs import PIR_SMALL, scene_rows
from transformers import AutoModelForImageClassification, ResNetModel

from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows
from vsehub.training import run_pir as run_pir_script
from vsehub.training.inputs.pairs import PairDataset
from vsehub.training.prior import labelled


def test_the_prior_keeps_the_batch_norm_statistics_that_it_was_loaded_with(overhead, tmp_path):
    run_pir_script.main(
        [*overhead, *PIR_SMALL, "--output_dir", str(tmp_path), "--stages", "prior", "--learning_rate", "0.01"]
    )
    before, after = (ResNetModel.from_pretrained(path).state_dict() for path in (overhead[7], tmp_path / "prior/best"))
    assert all(torch.equal(before[key], after[key]) for key in before if "running" in key)
    assert not all(torch.equal(before[key], after[key]) for key in before)


def test_the_prior_accumulates_gradients_to_those_of_the_whole_batch(overhead, tmp_path):
    flags = ["--stages", "prior", "--image_augmentation", "none", "--optim", "sgd", "--learning_rate", "0.05"]
    for name, *batch in (("whole", "8"), ("halves", "4", "--gradient_accumulation_steps", "2")):
        words = [*flags, "--output_dir", str(tmp_path / name), "--per_device_train_batch_size", *batch]
        assert run_pir_script.main([*overhead, *PIR_SMALL, *words]) == 0
    whole, halves = (load_file(tmp_path / name / "prior/best/model.safetensors") for name in ("whole", "halves"))
    assert all(torch.allclose(whole[key].float(), halves[key].float(), atol=1e-5) for key in whole)


def test_the_prior_learns_from_labelled_pictures_without_captions(overhead, tmp_path):
    (tmp_path / "data").mkdir()
    for split in ("train", "validation"):
        rows = load_dataset(overhead[1], split=split).select_columns(["image", "label"])
        rows.to_parquet(str(tmp_path / "data" / f"{split}-00000-of-00001.parquet"))
    flags = ["--data", str(tmp_path / "data"), *overhead[2:], "--stages", "prior"]
    assert run_pir_script.main([*flags, *PIR_SMALL, "--output_dir", str(tmp_path / "run")]) == 0
    assert AutoModelForImageClassification.from_pretrained(tmp_path / "run" / "prior" / "best").config.num_labels == 3
    retrieval = [*flags, *overhead[2:6], *PIR_SMALL, "--output_dir", str(tmp_path / "run"), "--stages", "retrieval"]
    with pytest.raises(ValueError, match="no column 'captions'"):
        run_pir_script.main(retrieval)


def test_labels_come_from_a_column_of_any_kind_or_from_file_names(overhead):
    named = prepare_rows(DataArguments(data=overhead[1]), "validation", None, False, need_label=True)
    prefixed = prepare_rows(DataArguments(data=overhead[1], label_column="prefix"), "validation", None, False)
    assert named["label"] == prefixed["label"] == ["field", "river", "street"] * 3


def test_an_image_without_a_class_is_one_of_its_own_and_teaches_the_prior_nothing(overhead, tmp_path, tiny_processor):

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
