"""`vsehub index`: what was done in words and as JSON, arguments by name, quiet; its sub-verbs."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from vsehub.commands import index, index_calibrate, index_export, index_remove
from vsehub.processing.encoders import Encoder
from vsehub.search import refresh, vector_types
from vsehub.search.index_store import Store
from vsehub.search.vector_index import VectorIndex


@pytest.fixture(scope="module")
def photos(tmp_path_factory, tiny_pictures):
    folder = tmp_path_factory.mktemp("photos")
    for number, picture in enumerate(tiny_pictures[:3]):
        picture.save(folder / f"{number}.png")
    (folder / "torn.png").write_bytes(b"torn")
    return folder


def test_what_was_done_is_told_in_words_and_numbers(vsehub, vsehub_json, photos, tiny_folder, tmp_path):
    out = tmp_path / "index"
    words = ("--data", photos, "--model", tiny_folder, "--out", out, "--batch-size", "2", "--workers", "1")
    assert f"{out}: 3 rows; 3 embedded, 0 unchanged, 0 removed; 1 bad" in vsehub("index", *words, "--device", "cpu")
    done = vsehub_json("index", photos, "--out", out, "--update")
    counts = {name: done[name] for name in ("rows", "embedded", "unchanged", "removed", "bad")}
    assert counts == {"rows": 3, "embedded": 0, "unchanged": 3, "removed": 0, "bad": 1}
    assert "--update brings it up to date" in vsehub("index", *words, status=2)


@pytest.mark.slow
def test_quiet_prints_the_result_alone(photos, tiny_folder, tmp_path):
    words = ["index", photos, "--model", tiny_folder, "--out", tmp_path / "index", "--quiet", "--json"]
    command = [sys.executable, "-m", "vsehub", *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout)["embedded"] == 3


@pytest.mark.parametrize(
    ("verb", "module"), [("export", index_export), ("calibrate", index_calibrate), ("remove", index_remove)]
)
def test_sub_verbs_get_the_rest(verb, module, vsehub, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "main", lambda rest: seen.append(rest) or 0)
    vsehub("index", verb, "photos.index", "--out", "x")
    assert seen == [["photos.index", "--out", "x"]]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--batch_size", "0"), "--batch_size: must be"),
        (("--workers", "-1"), "--workers: must be"),
        (("--bands", "0", "1", "2"), "--bands: must be"),
        (("--kind", "ivf"), "invalid choice: 'ivf'"),
        (("--device", "gpu"), "--device: must be auto, cpu, cuda"),
    ],
)
def test_what_is_out_of_range_is_one_line(flags, said, vsehub, photos, tmp_path):
    assert said in vsehub("index", photos, "--model", "m", "--out", tmp_path / "index", *flags, status=2)
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--captions_column", "text"), "--captions_column goes with a dataset"),
        (("--image_root", "."), "add --split train"),
        (("--split", "train", "--tile", "64"), "--tile 64: rows of a dataset are not cut into tiles"),
        (("--overlap", "8"), "--overlap 8 changes nothing without --tile"),
        (("--no_fast",), "--no_fast changes nothing without --update"),
        (("--no_fast", "--update", "--fast"), "contradict each other"),
    ],
)
def test_flags_that_would_change_nothing_are_refused(flags, said, vsehub, photos, tmp_path):
    assert said in vsehub("index", photos, "--model", "m", "--out", tmp_path / "index", *flags, status=2)
    assert not (tmp_path / "index").exists()


def test_an_update_reads_a_source_as_before_unless_flags_say_otherwise(tiny_folder, tmp_path, vsehub, vsehub_json):
    pictures, out = tmp_path / "pictures", tmp_path / "tiled.index"
    pictures.mkdir()
    Image.effect_noise((128, 128), 80).convert("RGB").save(pictures / "scene.tif")
    Image.new("RGB", (32, 32), "blue").save(pictures / "photo.png")
    first = vsehub_json(
        "index", pictures, "--model", tiny_folder, "--out", out, "--tile", "64", "--overlap", "0", "--fast"
    )
    again = vsehub_json("index", pictures, "--out", out, "--update")
    assert first["rows"] == again["rows"] == again["unchanged"] == 5 and again["embedded"] == 0
    exact = vsehub_json("index", pictures, "--out", out, "--update", "--no-fast")
    assert exact["embedded"] == 5 and vsehub_json("index", pictures, "--out", out, "--update")["unchanged"] == 5
    whole = vsehub_json("index", pictures, "--out", out, "--update", "--tile", "0")
    assert whole["rows"] == 2 and vsehub_json("index", pictures, "--out", out, "--update")["unchanged"] == 2


def test_an_index_in_bfloat16_is_near_and_stays_so_until_float32_is_asked_for(
    tiny_folder, photos, tmp_path, vsehub_json
):
    def vectors(out):
        index = VectorIndex.open(out)
        rows = np.flatnonzero(index.alive)
        order = np.argsort([item["id"] for item in index.items(rows)])
        return index.vectors(rows[order])

    def update(*words):
        return vsehub_json("index", photos, "--out", tmp_path / "half", "--update", *words)

    vsehub_json("index", photos, "--model", tiny_folder, "--out", tmp_path / "exact")
    vsehub_json("index", photos, "--model", tiny_folder, "--out", tmp_path / "half", "--dtype", "bf16")
    exact, half = vectors(tmp_path / "exact"), vectors(tmp_path / "half")
    assert not np.array_equal(exact, half) and (exact * half).sum(1).min() > 0.98
    assert update()["embedded"] == update("--dtype", "bfloat16")["embedded"] == 0
    assert update("--dtype", "float32")["unchanged"] == 0 and np.array_equal(exact, vectors(tmp_path / "half"))
    again = vsehub_json("index", photos, "--out", tmp_path / "exact", "--update", "--dtype", "float32")
    assert again["embedded"] == 0


def test_the_width_is_kept_in_the_index_and_used_by_a_search(vsehub, vsehub_json, photos, tiny_folder, tmp_path):
    out = tmp_path / "narrow"
    vsehub("index", photos, "--model", tiny_folder, "--out", out, "--width", "5")
    assert len(vsehub_json("search", out, "a dog")["hits"]) == 3
    assert "3 unchanged" in vsehub("index", photos, "--out", out, "--update")
    said = vsehub("index", photos, "--out", out, "--update", "--width", "6", status=2)
    assert "holds the first 5 numbers of each embedding" in said
    words = ("index", photos, "--model", tiny_folder, "--out", tmp_path / "wide", "--width")
    assert "its embeddings have 16 numbers, fewer than --width 17" in vsehub(*words, "17", status=2)
    assert "--width: must be" in vsehub(*words, "0", status=2)


HOLD = """
import sys, time
from vsehub.search.vector_index import VectorIndex
with VectorIndex.open(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def writer(tmp_path):
    """A function: seconds -> another process that holds the lock of `tmp_path/index` so long."""
    started = []

    def start(seconds):
        words = [sys.executable, "-c", HOLD, str(tmp_path / "index"), str(seconds)]
        started.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_command_waits_for_another_writer_where_it_is_told_to(
    vsehub, photos, tiny_folder, tmp_path, writer, caplog, pairs
):
    out = tmp_path / "index"
    vsehub("index", photos, "--model", tiny_folder, "--out", out)
    update = ("index", photos, "--out", out, "--update")
    other = writer(600)
    assert f"process {other.pid} is writing {out}: wait for it" in vsehub(*update, status=2)
    assert f"process {other.pid} has been writing {out} for 0.2 s" in vsehub(*update, "--wait", "0.2", status=2)
    calibrate = ("index", "calibrate", out, pairs, "--split", "train", "--force", "--wait", "0.2")
    assert f"process {other.pid} has been writing {out} for 0.2 s" in vsehub(*calibrate, status=2)
    other.kill()
    other = writer(2)
    caplog.clear()
    assert "3 unchanged" in vsehub(*update, "--wait")
    assert f"waiting for process {other.pid}, which is writing {out}" in caplog.text
    assert "--wait: must be a number of at least 0, not photos; without a number" in vsehub(
        "index", "--wait", "photos", "--out", out, "--update", status=2
    )


def test_an_update_that_waited_reads_a_source_as_the_other_writer_left_it(
    vsehub, vsehub_json, photos, tiny_folder, tmp_path, monkeypatch
):
    out, real = tmp_path / "index", refresh._opened
    vsehub("index", photos, "--model", tiny_folder, "--out", out)

    def opened(*args):
        with monkeypatch.context() as patch:
            patch.setattr(refresh, "_opened", real)
            vsehub("index", photos, "--out", out, "--update", "--dtype", "bfloat16")
        return real(*args)

    monkeypatch.setattr(refresh, "_opened", opened)
    assert vsehub_json("index", photos, "--out", out, "--update", "--wait")["embedded"] == 0
    assert VectorIndex.open(out).sources[str(photos)]["dtype"] == "bfloat16"


@pytest.mark.slow
def test_a_batch_that_does_not_fit_the_device_is_one_line(photos, tiny_folder, tmp_path, vsehub, monkeypatch):
    def full(encoder, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")

    monkeypatch.setattr(Encoder, "features", full)
    said = vsehub("index", photos, "--model", tiny_folder, "--out", tmp_path / "index", status=2)
    assert "vsehub index: the device has too little memory: lower --batch_size" in said


@pytest.mark.slow
def test_two_jobs_of_one_new_index_both_end_well(photos, tiny_folder, tmp_path):
    out, said = tmp_path / "index", [tmp_path / "first", tmp_path / "second"]
    words = ["index", photos, "--model", tiny_folder, "--out", out, "--wait", "120", "--json"]
    command = [sys.executable, "-m", "vsehub", *map(str, words)]
    with Store(out).lock():  # else the first may have finished before the second has looked, which then is refused
        jobs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=path.open("w"), text=True) for path in said]
        end = time.monotonic() + 120
        while not all("waiting for process" in path.read_text() for path in said):
            assert time.monotonic() < end, [path.read_text() for path in said]
            time.sleep(0.05)
    done = [json.loads(job.communicate(timeout=300)[0]) for job in jobs]
    assert sorted(job["embedded"] for job in done) == [0, 3] and [job["rows"] for job in done] == [3, 3]


@pytest.mark.parametrize("name", ["float16", "int8"])
def test_an_index_keeps_how_its_vectors_are_stored(name, photos, tiny_folder, tmp_path, vsehub, vsehub_json):
    out = tmp_path / "index"
    first = vsehub_json("index", photos, "--model", tiny_folder, "--out", out, "--vectors", name, "--width", "8")
    again = vsehub_json("index", photos, "--out", out, "--update", "--vectors", name, "--no-fast")
    assert first["embedded"] == 3 and again["unchanged"] == 3
    assert json.loads((out / "manifest.json").read_text())["vectors"] == name
    said = vsehub("index", photos, "--out", out, "--update", "--vectors", "float32", status=2)
    assert f"{out} holds {name} vectors, and float32 were asked for: leave that out, or make another index" in said
    plain = tmp_path / "plain"
    vsehub("index", photos, "--model", tiny_folder, "--out", plain, "--width", "8")
    for query in (("a dog",), ("--like", photos / "1.png"), ("a dog", "--minus", "a cat", "--path", "*.png")):
        hits, exact = (vsehub_json("search", folder, *query)["hits"] for folder in (out, plain))
        assert [hit["score"] for hit in hits] == pytest.approx([hit["score"] for hit in exact], abs=0.01)
    vsehub("index", "export", out, "--out", tmp_path / "vectors.parquet")
    import pyarrow.parquet as pq

    assert len(pq.read_table(tmp_path / "vectors.parquet")["vector"][0]) == 8


def test_the_flag_offers_every_way_of_storing_vectors():
    assert index.VECTORS == vector_types.TYPES  # written twice, since a command's help imports no numpy


def test_an_update_of_an_index_that_is_not_there_says_so(vsehub, tmp_path):
    (tmp_path / "photos").mkdir()
    said = vsehub("index", tmp_path / "photos", "--out", tmp_path / "mistyped", "--update", status=2)
    assert f"{tmp_path / 'mistyped'} holds no index; to make one, --model is missing" in said
