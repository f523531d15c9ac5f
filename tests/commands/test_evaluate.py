"""`vsehub evaluate`: options that reach the library, a table or JSON, and the JSON that `compare` reads."""

import json

import pytest
from datasets import Dataset
from dual_encoders import FAMILIES, SENTENCE
from photos import jpeg
from safetensors.torch import load_file

from vsehub.__main__ import main
from vsehub.evaluation.ranking import image_text_metrics
from vsehub.evaluation.record import read_record
from vsehub.evaluation.tables import few_images
from vsehub.processing.encoders import truncated

NAME = "vsehub.evaluation.evaluate.evaluation"


def test_a_table_and_json_say_the_same(vsehub, vsehub_json, tiny_folder, pairs, tmp_path):
    words = ("evaluate", "--model", tiny_folder, "--data", pairs, "--folds", "2")
    said = vsehub(*words, "--json", tmp_path / "mine.json")
    assert f"{tiny_folder.name} on test" in said and "95 % bootstrap intervals" in said
    written, printed = json.loads((tmp_path / "mine.json").read_text()), vsehub_json(*words)
    assert printed == written and f"{written['rsum']:8.1f}" in said and "2_fold_rsum" in written
    folds = next(line for line in said.splitlines() if line.startswith("mean of 2 folds"))
    assert folds.split()[4:7] == [f"{written[f'2_fold_image_to_text_recall@{k}']:.1f}" for k in (1, 5, 10)]
    assert folds.split()[-2:] == [f"{written['2_fold_rsum']:.1f}", f"{written['2_fold_mean_recall']:.2f}"]
    assert vsehub("compare", tmp_path / "mine.json", tmp_path / "mine.json").count("+0.00") > 0
    assert list(read_record(tmp_path / "mine.json")[1]) == ["recall"]


@pytest.mark.parametrize("family", [*FAMILIES, SENTENCE])
def test_any_dual_encoder_is_evaluated_and_compared_with_ours(
    family, vsehub, vsehub_json, dual_folder, tiny_folder, pairs, tmp_path
):
    words, ours, theirs, saved = ("--data", pairs), tmp_path / "a.json", tmp_path / "b.json", tmp_path / "e.safetensors"
    vsehub("evaluate", tiny_folder, *words, "--json", ours)
    said = vsehub("evaluate", dual_folder(family), *words, "--json", theirs, "--save_embeddings", saved)
    assert " on test" in said and "95 % bootstrap intervals" in said
    assert vsehub_json("compare", ours, theirs)["recall"]["rsum"]["a"] == json.loads(ours.read_text())["rsum"]
    again = vsehub_json("evaluate", dual_folder(family), *words, "--embeddings", saved)
    assert again["rsum"] == json.loads(theirs.read_text())["rsum"]
    assert "does not fit" in vsehub("evaluate", tiny_folder, *words, "--embeddings", saved, status=2)


def test_captions_that_are_cut_are_counted(vsehub, dual_folder, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("vsehub.modeling.modeling_dual_encoder.logger.warning", told.append)
    rows = [
        {"image": {"bytes": jpeg(n), "path": None}, "captions": ["a b c " * 30], "image_id": str(n)} for n in (0, 1)
    ]
    Dataset.from_list(rows).to_parquet(str(tmp_path / "long.parquet"))
    vsehub("evaluate", dual_folder("clip"), "--data", tmp_path / "long.parquet")
    assert told == ["2 of 2 texts were cut at 77 tokens: the rest of them was not read"]


@pytest.mark.parametrize(
    ("images", "said"),
    [(1, "with one image every model scores 100 %"), (4, "R@10 and the sums mean little"), (11, "")],
)
def test_figures_of_too_few_images_are_told_to_mean_little(images, said):
    assert said in few_images(images) and bool(said) == bool(few_images(images))


def test_a_perfect_score_of_one_image_is_remarked_on(tiny_folder, tmp_path, capsys):
    rows = [{"image": {"bytes": jpeg(0), "path": None}, "captions": ["a dog"], "image_id": "0"}]
    Dataset.from_list(rows).to_parquet(str(tmp_path / "one.parquet"))
    assert main(["evaluate", str(tiny_folder), "--data", str(tmp_path / "one.parquet")]) == 0
    assert "these figures mean little" in capsys.readouterr().err


def test_flags_reach_the_library(vsehub, calls):
    record = {"protocols": {}, "intervals": {"level": 0.95}}
    made = calls(NAME, ({}, record))
    words = ("--protocol", "recall, coco-5k,recall", "--dtype", "bf16", "--save-embeddings", "e", "--graded", "classes")
    vsehub("evaluate", "org/m", "--data", "d", "--split", "val", *words, "--label_column", "scene", "--batch_size", "3")
    model, data, split, options = made[0][0]
    assert (model, data.data, data.label_column, split) == ("org/m", "d", "scene", "val")
    assert options.protocols == ("recall", "coco-5k") and options.dtype == "bfloat16" and options.batch_size == 3
    assert options.save_embeddings == "e" and options.graded == "classes" and options.embeddings is None


def test_what_is_out_of_range_is_one_line(vsehub, calls):
    made = calls(NAME, None)
    for words, said in (
        (("--folds", "-1"), "--folds: must be"),
        (("--batch_size", "0"), "--batch_size: must be"),
        (("--ties", "optimistic"), "there is no flag --ties"),
        (("--no_means",), "--no_means changes nothing without --graded"),
        (("--ground_truth", "x"), "--ground_truth changes nothing without --protocol cxc or eccv"),
        (("--embeddings", "x", "--batch_size", "3"), "contradict each other"),
    ):
        assert said in vsehub("evaluate", "org/m", "--data", "d", *words, status=2)
    assert "DATA is missing" in vsehub("evaluate", "org/m", status=2) and made == []


def test_a_width_is_that_of_the_first_numbers(vsehub, vsehub_json, tiny_folder, pairs, tmp_path, caplog):
    saved, words = tmp_path / "e.safetensors", ("evaluate", tiny_folder, "--data", pairs)
    narrow = vsehub_json(*words, "--width", "5", "--save_embeddings", saved)
    assert narrow["evaluation"]["width"] == 5
    sides = load_file(saved)
    images, texts = (truncated(sides[f"{name}_embeds"], 5) for name in ("image", "text"))
    assert sides["image_embeds"].shape[1] == 16  # what is saved is whole
    assert narrow["rsum"] == pytest.approx(image_text_metrics(images, texts, sides["text_to_image"])["rsum"])
    caplog.clear()
    assert vsehub_json(*words, "--width", "5", "--embeddings", saved)["rsum"] == narrow["rsum"]
    assert "was not trained for width 5" in caplog.text
    caplog.clear()
    assert "width" not in vsehub_json(*words, "--embeddings", saved)["evaluation"]
    assert vsehub_json(*words, "--width", "16", "--embeddings", saved)["rsum"] and "not trained" not in caplog.text
    assert "fewer than --width 17" in vsehub(*words, "--width", "17", status=2)
    assert "width 17: these embeddings have 16" in vsehub(*words, "--width", "17", "--embeddings", saved, status=2)


def test_means_of_the_modalities_are_subtracted_unless_switched_off(
    vsehub, vsehub_json, make_tiny_model, tiny_processor, tmp_path
):
    rows = [{"image": {"bytes": jpeg(n), "path": None}, "captions": [f"a {n}"], "image_id": str(n)} for n in range(60)]
    rows = [row | {"label": f"class {number % 6}"} for number, row in enumerate(rows)]
    Dataset.from_list(rows).to_parquet(str(tmp_path / "classes.parquet"))
    model = make_tiny_model()
    model.config.image_embeds_mean, model.config.text_embeds_mean = [0.1] * 16, [-0.1] * 16
    for part in (model, tiny_processor):
        part.save_pretrained(tmp_path / "model")
    words = ("evaluate", tmp_path / "model", "--data", tmp_path / "classes.parquet", "--graded", "classes")
    assert "means of the modalities subtracted" in vsehub(*words)
    assert "means of the modalities subtracted" not in vsehub(*words, "--no_means")
    less, raw = vsehub_json(*words), vsehub_json(*words, "--no_means")
    assert [each["evaluation"]["means_subtracted"] for each in (less, raw)] == [True, False]
    changed = {name for name in raw if "ndcg" in name and raw[name] != less[name]}
    assert changed and all("mixed" in name for name in changed)


def test_a_column_of_scene_classes_that_is_not_there_is_told(vsehub, tiny_folder, pairs):
    said = vsehub("evaluate", tiny_folder, "--data", pairs, "--label_column", "scene", status=2)
    assert "no scene class for every image in 'scene': name another --label_column" in said


def test_a_class_that_one_image_lacks_is_told_with_the_number(vsehub, tiny_folder, pairs, tmp_path):
    rows = Dataset.from_parquet(str(pairs))
    labels = ["port", *[None] * (len(rows) - 1)]
    rows.add_column("label", labels).to_parquet(str(tmp_path / "some.parquet"))
    said = vsehub("evaluate", tiny_folder, "--data", tmp_path / "some.parquet", "--graded", "classes", status=2)
    assert f"{len(rows) - 1} of {len(rows)} images have no scene class for --graded classes" in said
