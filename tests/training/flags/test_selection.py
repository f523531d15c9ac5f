"""The metric that selects a checkpoint: its names, and rows that do not give it."""

import pytest
from datasets import Dataset
from small_runs import read_flags, run

from vsehub.training.flags.arguments import PIR_ARGUMENTS
from vsehub.training.flags.selection import check_metric_of_rows
from vsehub.training.stage_arguments import read_stages


@pytest.mark.parametrize("name", ["rsum", "eval_rsum", "image_to_text_recall@1", "5_fold_rsum"])
def test_a_metric_is_named_with_or_without_eval(name):
    training = read_flags("--metric_for_best_model", name)["baseline"].training
    assert training.metric_for_best_model == f"eval_{name.removeprefix('eval_')}"


def test_the_prior_is_chosen_by_accuracy_whatever_chooses_retrieval():
    flags = ["--metric_for_best_model", "mean_recall", "--label_smoothing_factor", "0"]
    words = ["--data", "d", "--use_cpu", "True", *flags, "--prior.label_smoothing_factor", "0.1"]
    stages = read_stages([*words, "--prior.per_device_train_batch_size", "1"], ("prior", "retrieval"), PIR_ARGUMENTS)
    chosen = [args.training.metric_for_best_model for args in stages.values()]
    assert chosen == ["eval_accuracy", "eval_mean_recall"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("eval_scene_text_to_image_precision@1", "scene classes"),
        ("eval_duplicate_aware_text_to_image_recall@1", "captions that pictures share"),
        ("eval_5_fold_rsum", "5000 pictures"),
    ],
)
def test_a_metric_that_these_rows_do_not_give_is_refused_before_the_first_stage(name, said):
    rows = Dataset.from_dict({"captions": [["a"], ["b"]]})
    with pytest.raises(ValueError, match=said):
        check_metric_of_rows(name, rows)
    check_metric_of_rows("eval_rsum", rows)


def test_a_run_selects_by_a_metric_without_eval(scenes, tmp_path, capsys):
    run(scenes, tmp_path, "--stages", "baseline", "--metric_for_best_model", "image_to_text_recall@5")
    assert "baseline: image_to_text_recall@5" in capsys.readouterr().out
