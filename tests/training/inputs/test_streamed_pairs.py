"""Training on a source that is read as it comes: the same weights after a stop, no worker idle, clear refusals."""

import json
import shutil
import subprocess
import sys
from collections import Counter

import pytest
from accelerate.data_loader import BatchSamplerShard, SkipBatchSampler
from datasets import Image
from safetensors.torch import load_file
from small_runs import SMALL, equal, run, run_pir
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from vsehub.data.streams import Stream
from vsehub.files.bad_samples import read_bad_samples
from vsehub.training.inputs.bad_pictures import BadPictures
from vsehub.training.inputs.streamed_pairs import StreamedPairs, keep_order

STREAM = ["--streaming", "True", "--pairs_per_epoch", "24", "--shuffle_buffer", "6", "--stages", "baseline"]


def streamed(rows, processor, shares=2, folder=None, **kwargs):
    table = rows.remove_columns("dense_text_embeds").cast_column("image", Image(decode=False))
    stream = Stream(table.to_iterable_dataset(num_shards=1))
    return StreamedPairs(
        stream, pairs=13, batch_size=3, shares=shares, buffer=3, processor=processor,
        bad_pictures=BadPictures("quarantine", folder), **kwargs,
    )  # fmt: skip


def test_workers_read_their_own_share_and_none_is_idle(rows, tiny_processor):
    """One file and two workers: each gives half of the batches, and all rows are seen once in each pass."""
    data = streamed(rows, tiny_processor, text_augmentation=0.3)
    assert len(data) == 12
    alone = [data[position] for position in range(12)]
    loader = DataLoader(streamed(rows, tiny_processor, text_augmentation=0.3), 3, num_workers=2, collate_fn=list)
    assert [item["input_ids"] for batch in loader for item in batch] == [item["input_ids"] for item in alone]
    assert len({item["image_id"] for item in alone[:3] + alone[3:6]}) == 6  # a pass of both shares
    assert {item["image_id"] for item in alone[:3]} == {item["image_id"] for item in alone[6:9]}  # the same share again
    data.set_epoch(1)
    assert [data[position]["input_ids"] for position in range(3)] != [item["input_ids"] for item in alone[:3]]


@pytest.mark.parametrize(("processes", "workers"), [(1, 3), (2, 1), (2, 2), (4, 3)])
@pytest.mark.parametrize("skipped", [0, 1, 5])
def test_each_worker_of_each_process_reads_one_share_alone(rows, tiny_processor, processes, workers, skipped):
    """As accelerate deals batches to processes, DataLoader deals them to workers, and Trainer skips the first ones."""
    shares = processes * workers
    table = rows.select_columns(["image", "captions"]).cast_column("image", Image(decode=False))
    data = StreamedPairs(
        Stream(table.to_iterable_dataset()), pairs=16 * shares, batch_size=2, shares=shares, buffer=3,
        processor=tiny_processor,
    )  # fmt: skip
    readers = {}
    for process in range(processes):
        batches = BatchSampler(SequentialSampler(data), 2, drop_last=True)
        own = list(SkipBatchSampler(BatchSamplerShard(batches, processes, process), skipped))
        for number, batch in enumerate(own):
            for position in batch:
                readers.setdefault(data._key(position)[0], set()).add((process, number % workers))
    assert sorted(readers) == list(range(shares)) and all(len(each) == 1 for each in readers.values())
    assert len(set.union(*readers.values())) == shares


def test_texts_labels_and_numbers_of_pictures(rows, tiny_processor):
    rows = rows.add_column("label", ["sea", "wood", "sea", None, "sea", "wood"])
    data = streamed(rows, tiny_processor, texts="dense_text", with_dense=True)
    items = [data[position] for position in range(6)]
    assert items[0]["input_ids"] == items[0]["dense_input_ids"]
    assert len({item["scene_label"] for item in items}) == 3
    assert all(0 <= item["image_id"] < 2**63 for item in items)


def test_bad_rows_are_replaced_out_of_their_block(rows, tiny_processor, tmp_path):
    def spoil(row, number):
        image = dict(row["image"], bytes=row["image"]["bytes"][: 60 if number == 2 else None])
        return {"image": image, "captions": [" "] if number == 3 else row["captions"]}

    bad = rows.map(spoil, with_indices=True, keep_in_memory=True)
    data = streamed(bad, tiny_processor, folder=tmp_path)
    assert len([data[position] for position in range(12)]) == 12
    problems = {each.image_id: each.problem for each in read_bad_samples(tmp_path / "bad_samples.jsonl")}
    assert set(problems) == {"id-2", "id-3"} and "no caption" in problems["id-3"]


def test_too_short_an_epoch_and_another_order_are_refused(rows, tiny_processor, tmp_path):
    with pytest.raises(ValueError, match="--pairs_per_epoch"):
        streamed(rows, tiny_processor, shares=5)
    keep_order(tmp_path, {"files": 3}, resumed=False)
    keep_order(tmp_path, {"files": 3}, resumed=True)
    with pytest.raises(ValueError, match="another order .files was 3, and is 4.: set it as it was"):
        keep_order(tmp_path, {"files": 4}, resumed=True)
    with pytest.raises(ValueError, match="other does not say in which order.*name the --output_dir of the run that"):
        keep_order(tmp_path / "other", {"files": 3}, resumed=True)


def losses(folder):
    state = json.loads((folder / "checkpoint-7" / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


@pytest.mark.slow
def test_a_run_over_epochs_goes_on_bitwise_twice_in_a_row(scenes, tmp_path):
    flags = [*STREAM, "--max_steps", "7", "--save_steps", "1", "--eval_steps", "4", "--load_best_model_at_end", "False"]
    flags += ["--save_total_limit", "9", "--image_augmentation", "crop", "--dataloader_num_workers", "2"]
    flags[flags.index("24")] = "32"
    whole = run(scenes, tmp_path / "run", *flags)
    logged = losses(tmp_path / "run" / "baseline")
    assert len(logged) == 7
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    for step in (3, 5):  # of four steps an epoch: stopped after step 3, and the run that goes on after step 5
        for later in range(step + 1, 8):
            shutil.rmtree(tmp_path / "again" / "baseline" / f"checkpoint-{later}", ignore_errors=True)
        for name in ("hub", "baseline/best", "stream"):
            shutil.rmtree(tmp_path / "again" / name, ignore_errors=True)
        (tmp_path / "again" / "baseline" / "finished.json").unlink(missing_ok=True)
        assert equal(whole, run(scenes, tmp_path / "again", *flags, "--resume_from_checkpoint", "true"))
        assert losses(tmp_path / "again" / "baseline") == logged
    flags[flags.index("--dataloader_num_workers") + 1] = "1"
    (tmp_path / "run" / "baseline" / "finished.json").unlink()
    with pytest.raises(ValueError, match="processes and workers was 2, and is 1"):
        run(scenes, tmp_path / "run", *flags, "--max_steps", "9", "--resume_from_checkpoint", "true")


def test_both_stages_of_d2s_and_retrieval_of_pir_train_on_a_stream(scenes, overhead, tmp_path):
    flags = [*STREAM[:-2], "--finetune.dense_teacher", "online", "--dense_text", "union", "--max_steps", "2"]
    both = run(scenes, tmp_path / "d2s", *flags)
    assert any(name.startswith("mask_token_decoder") for name in both)
    assert load_file(tmp_path / "d2s" / "pretrain" / "best" / "model.safetensors").keys() < both.keys()
    flags = [*STREAM[:-2], "--stages", "retrieval", "--affiliation_weight", "1", "--max_steps", "2"]
    assert run_pir(overhead, tmp_path / "pir", *flags)
    with pytest.raises(ValueError, match="no column 'scene'"):
        run_pir(overhead, tmp_path / "pir", *flags, "--label_column", "scene")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--cache_vision", "True", "--freeze_vision", "True"], "--cache_vision needs all of them"),
        (["--check_images", "all"], "--check_images all"),
        (["--structure_weight", "1"], "--structure_weight"),
        (["--stages", "finetune", "--stage1_model", "x"], "--dense_teacher cached .take online."),
        (["--dense_text", "d.parquet"], "--dense_text d.parquet"),
        (["--max_train_images", "3"], "--max_train_images"),
    ],
)
def test_what_needs_all_rows_is_refused(scenes, tmp_path, flags, said):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        run(scenes, tmp_path, *STREAM, *flags)


READ_BY = """
import os, pathlib, sys
from vsehub.__main__ import main
from vsehub.training.inputs import streamed_pairs

row_image = streamed_pairs.row_image

def noted(row):
    with open(pathlib.Path(sys.argv[0]).parent / f"read-{os.environ['RANK']}", "a") as file:
        file.write(row["image_id"] + chr(10))
    return row_image(row)

streamed_pairs.row_image = noted
sys.exit(main(["train", "d2s", *sys.argv[1:]]))
"""


def read_by_two(folder, *words) -> list[list[str]]:
    """Train in two processes; the rows that each of them read, in order."""
    for old in folder.glob("read-*"):
        old.unlink()
    (folder / "read.py").write_text(READ_BY)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    command += ["--rdzv_endpoint", "127.0.0.1:0", str(folder / "read.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return [(folder / f"read-{rank}").read_text().split() for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("workers, shards", [(0, []), (2, []), (0, ["--fsdp"])], ids=["", "workers", "shards"])
def test_two_processes_read_each_row_once_a_pass_and_go_on(scenes, tmp_path, workers, shards):
    """24 rows of one file, two passes."""
    flags = [*scenes, *SMALL, *STREAM, "--per_device_train_batch_size", "3", "--max_steps", "8", "--eval_steps", "4"]
    flags += ["--save_steps", "1", "--save_total_limit", "9", "--load_best_model_at_end", "False", "--ramp_epochs", "0"]
    flags += ["--dataloader_num_workers", str(workers), "--output_dir", str(tmp_path / "run"), *shards]
    in_order = workers == 0  # those of one process read side by side, each ahead of what is trained on
    mine, others = read_by_two(tmp_path, *flags)
    assert len(mine) == len(others) == 24
    for each in (slice(0, 12), slice(12, 24)) if in_order else ():
        assert len({*mine[each], *others[each]}) == 24 and not set(mine[each]) & set(others[each])
    assert set(Counter([*mine, *others]).values()) == {2}
    whole = load_file(tmp_path / "run" / "hub" / "model.safetensors")
    checkpoint = tmp_path / "run" / "baseline" / "checkpoint-3"
    again = read_by_two(tmp_path, *flags, "--resume_from_checkpoint", str(checkpoint))
    if in_order:
        assert sorted(again[0][-15:]) == sorted(mine[-15:]) and sorted(again[1][-15:]) == sorted(others[-15:])
    assert equal(whole, load_file(tmp_path / "run" / "hub" / "model.safetensors"))
