"""`run_rebalanced.py` end to end: structure-aware distillation beside a plain dual encoder."""

import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from small_runs import SMALL

from vsehub.training import run_rebalanced


def weights(out):
    return load_file(out / "hub" / "model.safetensors")


@pytest.mark.parametrize("relation", ["own", pytest.param("fused", marks=pytest.mark.slow)])
def test_structure_trains_another_model_of_the_same_tensors(taught, tmp_path, relation):
    _, student = taught
    flags = [*student, *SMALL, "--text_augmentation", "0"]
    assert run_rebalanced.main([*flags, "--structure_weight", "0", "--output_dir", str(tmp_path / "plain")]) == 0
    more = ["--structure_relation", relation, "--representation_text_weight", "2"]
    more += ["--learn_text_share", "True"] if relation == "fused" else []
    assert run_rebalanced.main([*flags, *more, "--output_dir", str(tmp_path / "taught")]) == 0
    plain, taught = weights(tmp_path / "plain"), weights(tmp_path / "taught")
    assert {key: x.shape for key, x in plain.items()} == {key: x.shape for key, x in taught.items()}
    assert any(not torch.equal(plain[key], taught[key]) for key in plain)
    state = load_file(next((tmp_path / "taught" / "baseline").glob("checkpoint-*")) / "objective.safetensors")
    assert {"structure.text_share", "structure.image_mean", "representation.text.projection.weight"} <= set(state)
    assert not (tmp_path / "taught" / "hub" / "objective.safetensors").exists()


@pytest.mark.slow
def test_the_representation_alone_trains_too(taught, tmp_path):
    _, student = taught
    flags = [*student, *SMALL, "--text_augmentation", "0", "--structure_weight", "0", "--output_dir"]
    assert run_rebalanced.main([*flags, str(tmp_path / "plain")]) == 0
    assert run_rebalanced.main([*flags, str(tmp_path / "taught"), "--representation_text_weight", "2"]) == 0
    plain, taught = weights(tmp_path / "plain"), weights(tmp_path / "taught")
    assert any(not torch.equal(plain[key], taught[key]) for key in plain)


@pytest.mark.slow
def test_two_processes_relate_all_pairs_as_one_does(taught, tmp_path):
    _, student = taught
    flags = [
        *student,
        *SMALL,
        "--text_augmentation",
        "0",
        "--max_steps",
        "3",
        "--eval_strategy",
        "no",
        "--save_strategy",
        "no",
        "--optim",
    ]
    flags += ["sgd", "--load_best_model_at_end", "False", "--image_augmentation", "none", "--learning_rate", "0.01"]
    flags += ["--structure_bank", "16"]
    assert run_rebalanced.main([*flags, "--output_dir", str(tmp_path / "one")]) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0", run_rebalanced.__file__, *flags]
    command += ["--output_dir", str(tmp_path / "two"), "--per_device_train_batch_size", "4"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert max((one[key].float() - two[key].float()).abs().max().item() for key in one) < 2e-5


@pytest.mark.parametrize(
    "extra",
    [
        ["fused", "--learn_text_share", "True"],
        pytest.param(["own", "--matryoshka", "4"], marks=pytest.mark.slow),
        pytest.param(["own", "--structure_bank", "20"], marks=pytest.mark.slow),
    ],
)
def test_structure_resumes_bitwise(taught, tmp_path, extra):
    _, student = taught
    flags = [*student, *SMALL, "--text_augmentation", "0", "--structure_relation", *extra]
    flags += ["--load_best_model_at_end", "False", "--save_total_limit", "9"]
    assert run_rebalanced.main([*flags, "--output_dir", str(tmp_path / "whole")]) == 0
    assert run_rebalanced.main([*flags, "--output_dir", str(tmp_path / "broken")]) == 0
    shutil.rmtree(tmp_path / "broken" / "baseline" / "checkpoint-4")
    (tmp_path / "broken" / "baseline" / "finished.json").unlink()
    again = [*flags, "--output_dir", str(tmp_path / "broken"), "--resume_from_checkpoint", "true"]
    assert run_rebalanced.main(again) == 0
    whole, broken = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert all(torch.equal(whole[key], broken[key]) for key in whole)


def test_without_teachers_the_remedy_is_named(taught, tmp_path):
    root, student = taught
    flags = [
        "--data",
        str(root / "data"),
        *student[2:],
        *SMALL,
        "--text_augmentation",
        "0",
        "--output_dir",
        str(tmp_path),
    ]
    with pytest.raises(ValueError, match="vsehub teachers"):
        run_rebalanced.main(flags)
