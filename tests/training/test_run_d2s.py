"""`run_d2s.py` end to end on generated scenes: both stages, their hand-over, resume, two processes."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from small_runs import SMALL, equal, run
from transformers import AutoModel

from vsehub import D2SVSEModel
from vsehub.__main__ import main
from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows
from vsehub.evaluation.evaluate import evaluate_model
from vsehub.evaluation.ranking import image_text_metrics
from vsehub.processing.pixels import open_image
from vsehub.training import run_d2s


def test_both_stages_leave_a_hub_folder_that_loads(both_stages):
    out, weights = both_stages
    model = AutoModel.from_pretrained(out / "hub")
    assert model.config.use_decoder and not D2SVSEModel.from_pretrained(out / "pretrain" / "best").config.use_decoder
    assert len(list(model.encode_text(["a red circle"]))) == 1
    assert not [path for path in (out / "hub").iterdir() if path.suffix in (".bin", ".pt", ".pth")]
    results = json.loads((out / "validation.json").read_text())
    assert set(results) == {"pretrain", "finetune"} and 0 <= results["finetune"]["eval_rsum"] <= 600


def test_the_teacher_is_never_in_a_checkpoint(both_stages):
    out, weights = both_stages
    model = AutoModel.from_pretrained(out / "hub")
    assert {key for key in weights if "teacher" in key or "long" in key} == set()
    assert sum(p.numel() for p in model.parameters()) < sum(w.numel() for w in weights.values()) + 1000


def test_stage_two_alone_continues_from_a_stage_one_folder(both_stages, scenes, tmp_path):
    out, weights = both_stages
    again = run(scenes, tmp_path, "--stages", "finetune", "--stage1_model", str(out / "pretrain" / "best"))
    assert equal(weights, again)


def test_stage_two_does_not_go_on_under_another_stage_one_of_the_same_folder(both_stages, scenes, tmp_path):
    shutil.copytree(both_stages[0] / "pretrain" / "best", tmp_path / "stage1")
    flags = ["--stages", "finetune", "--stage1_model", str(tmp_path / "stage1"), "--resume_from_checkpoint", "true"]
    run(scenes, tmp_path / "out", *flags)
    weights = load_file(tmp_path / "stage1" / "model.safetensors")
    save_file({name: 2 * tensor for name, tensor in weights.items()}, tmp_path / "stage1" / "model.safetensors")
    with pytest.raises(ValueError, match="the digest of --stage1_model was .*: set them as they were"):
        run(scenes, tmp_path / "out", *flags)


def test_resuming_a_finished_run_changes_nothing(scenes, tmp_path):
    first = run(scenes, tmp_path)
    assert equal(first, run(scenes, tmp_path, "--resume_from_checkpoint", "true"))


def test_an_interrupted_second_stage_resumes_from_the_first_stage_that_was(scenes, tmp_path):
    whole = run(scenes, tmp_path / "whole", "--load_best_model_at_end", "False", "--save_total_limit", "9")
    run(scenes, tmp_path / "broken", "--load_best_model_at_end", "False", "--save_total_limit", "9")
    shutil.rmtree(tmp_path / "broken" / "finetune" / "checkpoint-4")
    (tmp_path / "broken" / "finetune" / "finished.json").unlink()
    shutil.rmtree(tmp_path / "broken" / "hub")
    flags = ("--load_best_model_at_end", "False", "--save_total_limit", "9", "--resume_from_checkpoint", "true")
    assert equal(whole, run(scenes, tmp_path / "broken", *flags))


def test_the_online_teacher_and_text_augmentation_train(scenes, tmp_path):
    run(scenes, tmp_path, "--dense_teacher", "online", "--text_augmentation", "0.3", "--max_steps", "2")


def test_evaluation_equals_the_model_used_by_hand(both_stages, scenes, tmp_path):
    out, _ = both_stages
    data = DataArguments(data=scenes[1])
    rows = prepare_rows(data, "test", str(tmp_path), need_dense=False)
    model = AutoModel.from_pretrained(out / "hub")
    images = model.encode_image([open_image(row["image"]["bytes"]) for row in rows])
    texts = model.encode_text([text for row in rows for text in row["captions"]])
    owner = [index for index, row in enumerate(rows) for _ in row["captions"]]
    plain, found = image_text_metrics(images, texts, owner), evaluate_model(str(out / "hub"), data, "test")
    assert {key: found[key] for key in plain} == pytest.approx(plain)
    assert found["duplicate_aware_mean_recall"] > found["mean_recall"]  # scenes share captions
    flags = ["--json", str(tmp_path / "m.json"), "--graded", "captions"]
    assert main(["evaluate", str(out / "hub"), "--data", scenes[1], *flags]) == 0
    written = json.loads((tmp_path / "m.json").read_text())
    assert "rsum" in written and 0 < written["text_to_text_ndcg@10"] <= 100


def test_two_processes_train_as_one(scenes, tmp_path):
    """gloo, global negatives, masked batch-norm over the global batch: the same weights to rounding."""
    script = Path(run_d2s.__file__)
    flags = ["--stages", "baseline", "--max_steps", "3", "--learning_rate", "0.01", "--image_augmentation", "none"]
    flags += ["--text_augmentation", "0", "--load_best_model_at_end", "False", "--ramp_epochs", "0"]
    flags += [
        "--optim",
        "sgd",
    ]  # Adam blows rounding up to a full step where the true gradient is 0 (bias before a norm)
    one = run(scenes, tmp_path / "one", *flags)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0"]
    words = [*scenes, *SMALL, "--output_dir", str(tmp_path / "two"), *flags, "--per_device_train_batch_size", "4"]
    subprocess.run([*command, str(script), *words], check=True, capture_output=True, timeout=300)
    two = load_file(tmp_path / "two" / "hub" / "model.safetensors")
    assert max((one[key].float() - two[key].float()).abs().max().item() for key in one) < 2e-5


@pytest.mark.slow
def test_two_processes_train_adapters_as_one(scenes, tmp_path):
    """LoRA under gloo: the merged weights of both agree to rounding."""
    flags = ["--stages", "baseline", "--max_steps", "3", "--learning_rate", "0.01", "--image_augmentation", "none"]
    flags += ["--text_augmentation", "0", "--load_best_model_at_end", "False", "--ramp_epochs", "0", "--optim", "sgd"]
    flags += ["--lora", "True", "--lora_rank", "2"]
    one = run(scenes, tmp_path / "one", *flags)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0", run_d2s.__file__]
    words = [*scenes, *SMALL, "--output_dir", str(tmp_path / "two"), *flags, "--per_device_train_batch_size", "4"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    two = load_file(tmp_path / "two" / "hub" / "model.safetensors")
    assert max((one[key].float() - two[key].float()).abs().max().item() for key in one) < 2e-5


EXACT = """--max_steps 3 --learning_rate 0.01 --image_augmentation none --text_augmentation 0
--load_best_model_at_end False --ramp_epochs 0 --optim sgd""".split()


def test_a_run_in_chunks_trains_the_same_weights(scenes, both_stages, tmp_path):
    """With a dense teacher in each step, and accumulation."""
    extra = ["--dense_teacher", "online", "--gradient_accumulation_steps", "2"]
    flags = ["--stages", "finetune", *EXACT, "--stage1_model", str(both_stages[0] / "pretrain" / "best"), *extra]
    whole = run(scenes, tmp_path / "whole", *flags)
    chunked = run(scenes, tmp_path / "chunked", *flags, "--chunk_size", "3")
    assert max((whole[key].float() - chunked[key].float()).abs().max().item() for key in whole) < 2e-6


@pytest.mark.slow
@pytest.mark.parametrize("extra", [["--bf16", "True"], ["--lora", "True", "--lora_rank", "2"]])
def test_chunks_go_with_mixed_precision_and_adapters(scenes, tmp_path, extra):
    flags = ["--stages", "baseline", *EXACT, *extra]
    whole = run(scenes, tmp_path / "whole", *flags)
    chunked = run(scenes, tmp_path / "chunked", *flags, "--chunk_size", "3")
    bound = 2e-3 if "--bf16" in extra else 2e-6
    assert max((whole[key].float() - chunked[key].float()).abs().max().item() for key in whole) < bound


@pytest.mark.slow
def test_two_processes_train_in_chunks_as_one_without(scenes, tmp_path):
    flags = ["--stages", "baseline", *EXACT]
    one = run(scenes, tmp_path / "one", *flags)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0", run_d2s.__file__]
    words = [*scenes, *SMALL, "--output_dir", str(tmp_path / "two"), *flags, "--per_device_train_batch_size", "4"]
    done = subprocess.run([*command, *words, "--chunk_size", "3"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    two = load_file(tmp_path / "two" / "hub" / "model.safetensors")
    assert max((one[key].float() - two[key].float()).abs().max().item() for key in one) < 2e-5


def test_chunks_and_compilation_exclude_each_other(scenes, tmp_path):
    with pytest.raises(ValueError, match="--chunk_size and --torch_compile"):
        run(scenes, tmp_path, "--stages", "baseline", "--chunk_size", "3", "--torch_compile", "True")


@pytest.mark.slow
def test_two_machines_train_as_one(scenes, tmp_path):
    """Two launchers that meet over a port, as on two machines with a shared folder."""
    flags = ["--stages", "baseline", *EXACT]
    one = run(scenes, tmp_path / "one", *flags)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
    command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{port}", "--rdzv_id", "7", run_d2s.__file__]
    words = [*scenes, *SMALL, "--output_dir", str(tmp_path / "two"), *flags, "--per_device_train_batch_size", "4"]
    launchers = [subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for launcher in launchers:
        _, told = launcher.communicate(timeout=300)
        assert launcher.returncode == 0, told[-3000:]
    two = load_file(tmp_path / "two" / "hub" / "model.safetensors")
    assert max((one[key].float() - two[key].float()).abs().max().item() for key in one) < 2e-5
