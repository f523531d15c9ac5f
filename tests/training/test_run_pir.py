"""`run_pir.py` end to end on tiny scenes: the prior, retrieval under it, resume, two processes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file
from small_runs import PIR_SMALL, equal, run_pir
from transformers import AutoModel

from vsehub import PIRModel
from vsehub.training import run_pir as run_pir_script


def test_both_stages_leave_a_hub_folder_that_loads_and_believes(pir_run):
    out, _ = pir_run
    model = AutoModel.from_pretrained(out / "hub")
    assert type(model) is PIRModel and model.belief(torch.zeros(1, 3, 32, 32)).shape == (1, 17)
    assert model.encode_text(["a field"]).shape == (1, 16)
    results = json.loads((out / "validation.json").read_text())
    assert results["prior"]["eval_accuracy"] > 90  # colours are easy
    assert 0 <= results["retrieval"]["eval_rsum"] <= 600
    assert "accuracy" in (out / "hub" / "README.md").read_text()


def test_a_finished_prior_is_loaded_and_an_interrupted_retrieval_resumes(overhead, tmp_path):
    flags = ["--load_best_model_at_end", "False", "--save_total_limit", "9", "--dropout", "0.2"]
    flags += ["--image_augmentation", "rand_augment"]
    whole = run_pir(overhead, tmp_path / "whole", *flags)
    run_pir(overhead, tmp_path / "broken", *flags)
    shutil.rmtree(tmp_path / "broken" / "retrieval" / "checkpoint-4")
    (tmp_path / "broken" / "retrieval" / "finished.json").unlink()
    assert equal(whole, run_pir(overhead, tmp_path / "broken", *flags, "--resume_from_checkpoint", "true"))


def test_a_prior_does_not_go_on_after_its_classes_were_renamed(overhead, tmp_path):
    """The classes are numbered by their names, and the head of a checkpoint would take one for another."""
    shutil.copytree(overhead[1], tmp_path / "data")
    words = ["--data", str(tmp_path / "data"), *overhead[2:], *PIR_SMALL, "--stages", "prior", "--max_steps", "2"]
    words += ["--output_dir", str(tmp_path / "out"), "--resume_from_checkpoint", "true"]
    for names in (["field", "river", "street"], ["meadow", "river", "a street"]):
        for split in ("train", "validation"):
            (path,) = (tmp_path / "data").glob(f"{split}-*.parquet")
            rows = parquet.read_table(path).replace_schema_metadata(None)
            labels = pa.array([names[row % 3] for row in range(len(rows))])
            parquet.write_table(rows.set_column(rows.column_names.index("label"), "label", labels), path)
        if names[0] == "field":
            assert run_pir_script.main(words) == 0
    with pytest.raises(ValueError, match="the digest of the scene classes that train was .*: set them as they were"):
        run_pir_script.main(words)


@pytest.mark.parametrize(
    ("train", "validation", "said"),
    [
        (["a"], ["a"], "train has one scene class, 'a', and a prior learns nothing from one: .*--stages retrieval"),
        (["a", "b"], [None], "validation has no scene classes, so .* cannot be measured there: .*--label_column"),
        (["a", "b", *[None] * 22], ["a"], "2 training items do not fill one batch of 8"),
    ],
)
def test_classes_from_which_no_prior_can_learn_are_refused(overhead, tmp_path, train, validation, said):
    for split, labels in (("train", train), ("validation", validation)):
        table = parquet.read_table(f"{overhead[1]}/{split}-00000-of-00001.parquet").drop_columns(["label"])
        table = table.append_column("label", pa.array((labels * 24)[: len(table)], pa.string()))
        parquet.write_table(table.replace_schema_metadata(None), tmp_path / f"{split}.parquet")
    with pytest.raises(ValueError, match=said):
        run_pir(["--data", str(tmp_path), *overhead[2:]], tmp_path / "out")


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
def test_every_variant_trains(overhead, tmp_path, flags):
    run_pir(overhead, tmp_path, "--stages", "retrieval", "--max_steps", "2", *flags)


def test_a_prior_with_too_few_pictures_for_a_batch_is_refused(overhead, tmp_path):
    with pytest.raises(ValueError, match="training items do not fill one batch of 64"):
        run_pir(overhead, tmp_path / "run", "--stages", "prior", "--per_device_train_batch_size", "64")
    assert not (tmp_path / "run" / "prior").exists()


@pytest.mark.parametrize("flags", [["--dense_sampling", "True"], ["--dense_text", "long.jsonl"]])
def test_dense_texts_are_refused_and_not_ignored(overhead, tmp_path, flags):
    with pytest.raises(ValueError, match=f"{flags[0]} is of D2S-VSE: PIR reads no dense text"):
        run_pir(overhead, tmp_path / "run", *flags)


@pytest.mark.slow  # test_pair_stage.py does it for D2S-VSE
def test_caches_change_nothing_but_rounding(overhead, tmp_path):
    flags = ["--stages", "retrieval", "--freeze_vision", "True", "--freeze_text", "True"]
    flags += ["--image_augmentation", "none", "--load_best_model_at_end", "False"]
    plain = run_pir(overhead, tmp_path / "plain", *flags)
    quick = run_pir(overhead, tmp_path / "quick", *flags, "--cache_vision", "True", "--cache_text", "True")
    for key in plain:
        assert torch.allclose(plain[key].float(), quick[key].float(), atol=5e-3), key


@pytest.mark.slow
@pytest.mark.parametrize("batch", [4])
def test_two_processes_train_what_one_does(overhead, pir_run, tmp_path, batch):
    prior = str(pir_run[0] / "prior" / "best")
    flags = ["--stages", "retrieval", "--instruction", prior, "--max_steps", "3", "--learning_rate", "0.01"]
    flags += ["--image_augmentation", "none", "--optim", "sgd", "--load_best_model_at_end", "False"]
    one = run_pir(overhead, tmp_path / "one", *flags)
    script = Path(run_pir_script.__file__)
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
        *overhead,
        *PIR_SMALL,
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
