"""A server that misbehaves on purpose, and twenty kills of its client."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import pyarrow.parquet as parquet
import pytest
from caption_folder import assert_whole, ids_of, paint, rows_of
from chat_server import ask, image_of
from PIL import Image

from vsehub.__main__ import main
from vsehub.data.captioning import caption_job as dense_captions
from vsehub.data.captioning import server_captioner as caption_server
from vsehub.data.captioning import transport
from vsehub.data.captioning.request import CaptionRequest

COLUMNS = ["image_id", "dense_text", "model_id", "revision", "prompt_hash", "truncated", "num_tokens", "picture"]


# --- The server backend ---------------------------------------------------------------------------------------------


def test_a_server_captions_every_image_with_the_papers_prompt_and_sampling(server, folder, tmp_path):
    out = tmp_path / "made" / "dense.parquet"
    assert ask(server, folder, out) == 0
    assert_whole(out, folder)
    rows = rows_of(out)
    assert parquet.read_schema(out).names == COLUMNS
    assert {row["model_id"] for row in rows} == {"vlm"} and {row["revision"] for row in rows} == {"served-1"}
    assert {row["prompt_hash"] for row in rows} == {CaptionRequest().prompt_hash}
    assert {row["num_tokens"] for row in rows} == {7} and not any(row["truncated"] for row in rows)
    body = server.bodies[0]
    assert (body["temperature"], body["top_p"], body["max_tokens"], body["model"]) == (0.2, 0.9, 500, "vlm")
    assert body["messages"][0]["content"][1]["text"] == "Describe this image in detail"
    assert "seed" not in body and "Authorization" not in server.headers[0]
    assert len(server.bodies) == 12


def test_requests_overlap_but_never_exceed_the_concurrency(server, folder, tmp_path):
    now, most = [0], [0]

    def plan(index, attempt):
        with server.guard:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with server.guard:
            now[0] -= 1
        return "good"

    server.plan = plan
    assert ask(server, folder, tmp_path / "d.parquet", "--concurrency", 4) == 0
    assert 2 <= most[0] <= 4


@pytest.mark.parametrize(
    "trouble",
    [
        "broken",
        "away",
        "busy_oddly",
        "reset",
        "short",
        "malformed",
        "wrong_shape",
        "nested",
        "no_choices",
        "empty",
        "none",
    ],
)
def test_trouble_that_passes_costs_tries_and_nothing_else(server, folder, tmp_path, trouble):
    server.plan = lambda index, attempt: trouble if attempt < 2 and index % 2 else "good"
    assert ask(server, folder, tmp_path / "d.parquet") == 0
    assert_whole(tmp_path / "d.parquet", folder)
    assert server.attempts == {index: 3 if index % 2 else 1 for index in range(12)}


@pytest.mark.parametrize("trouble", ["broken", "malformed", "no_choices", "empty", "reset", "too_large"])
def test_an_image_that_the_server_always_chokes_on_is_an_error_or_a_bad_sample(
    server, folder, tmp_path, trouble, capsys
):
    out = tmp_path / "d.parquet"
    server.plan = lambda index, attempt: trouble if index == 4 else "good"
    assert ask(server, folder, out, "--tries", 3) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "04.png" in message and "--on_bad_sample quarantine" in message and not out.exists()
    assert ask(server, folder, out, "--tries", 3, "--on_bad_sample", "quarantine") == 0
    assert [row["image_id"] for row in rows_of(out)] == [i for i in ids_of(folder) if i != "04.png"]
    report = [json.loads(line) for line in (tmp_path / "bad_samples.jsonl").read_text().splitlines()]
    assert [(row["image_id"], row["source"]) for row in report] == [("04.png", "captions d.parquet")]
    assert server.attempts[4] == (2 if trouble == "too_large" else 6)
    assert sum(server.attempts[index] for index in range(12) if index != 4) <= 11 + 8  # what was on its way


@pytest.mark.parametrize(
    "trouble, tries, words", [("forbidden", 1, "401"), ("moved", 1, "302"), ("away", 2, "503"), ("busy", 2, "429")]
)
def test_a_server_that_is_away_or_refuses_stops_the_job_even_in_quarantine(
    server, folder, tmp_path, trouble, tries, words, capsys, monkeypatch
):
    monkeypatch.setattr(transport, "MAX_RETRY_AFTER_S", 0.1)
    server.plan = lambda index, attempt: trouble
    options = ("--tries", 2, "--concurrency", 1, "--on_bad_sample", "quarantine")
    assert ask(server, folder, tmp_path / "d.parquet", *options) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert words in error and "Traceback" not in error and sum(server.attempts.values()) == tries
    server.plan = lambda index, attempt: "good"
    assert ask(server, folder, tmp_path / "d.parquet", *options) == 0
    assert_whole(tmp_path / "d.parquet", folder)


def test_no_server_at_all_is_one_clear_error(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(caption_server, "BACKOFF_S", 0.01)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    options = ["--api_base", base, "--tries", "2", "--on_bad_sample", "quarantine"]
    assert main(["caption", str(folder), "--model", "m", "--out", str(tmp_path / "d.parquet"), *options]) == 2
    assert "ConnectionRefusedError" in capsys.readouterr().err
    assert not (tmp_path / "d.parquet").exists() and not (tmp_path / "bad_samples.jsonl").exists()


def test_a_server_broken_for_every_image_does_not_quarantine_the_whole_collection(
    server, folder, tmp_path, capsys, monkeypatch
):
    server.plan = lambda index, attempt: "broken"
    options = ("--tries", 2, "--on_bad_sample", "quarantine")
    assert ask(server, folder, tmp_path / "d.parquet", *options) == 2  # fewer images than the limit
    assert "the model is probably misconfigured" in capsys.readouterr().err
    monkeypatch.setattr(dense_captions, "FAILURES_IN_A_ROW", 5)
    server.plan = lambda index, attempt: "good" if index < 2 else "broken"
    assert ask(server, folder, tmp_path / "d.parquet", "--concurrency", 1, *options) == 2
    server.plan = lambda index, attempt: "good"
    assert ask(server, folder, tmp_path / "d.parquet", *options) == 0
    assert_whole(tmp_path / "d.parquet", folder)


def test_answers_that_were_cut_are_flagged(server, folder, tmp_path):
    server.plan = lambda index, attempt: "cut" if index == 7 else "good"
    assert ask(server, folder, tmp_path / "d.parquet") == 0
    assert [row["image_id"] for row in rows_of(tmp_path / "d.parquet") if row["truncated"]] == ["07.png"]


def test_text_that_is_not_utf8_and_absurd_counts_do_not_break_the_table(server, folder, tmp_path, capsys):
    server.plan = lambda index, attempt: "surrogate" if index == 7 else "good"
    assert ask(server, folder, tmp_path / "d.parquet") == 0
    row = next(row for row in rows_of(tmp_path / "d.parquet") if row["image_id"] == "07.png")
    assert (row["dense_text"], row["revision"], row["num_tokens"]) == ("this is picture ?7", "served ?", None)
    assert "served ?, served-1" in capsys.readouterr().err


def test_pictures_arrive_upright_and_opaque(server, tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    Image.new("RGBA", (24, 16), (0, 0, 0, 0)).save(root / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter
    paint(0).save(root / "b.jpg", exif=exif)
    assert ask(server, root, tmp_path / "d.parquet", "--concurrency", 1) == 0
    first, second = map(image_of, server.bodies)
    assert first.getpixel((3, 3)) == (255, 255, 255) and second.size == (16, 24)


LAUNCHER = """
import json, os, sys
from vsehub.commands.caption import main
from vsehub.data.captioning import caption_job, server_captioner
print("ready", flush=True)
for line in sys.stdin:  # one import, many processes to kill
    child = os.fork()
    if child == 0:
        log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2), os.setsid()
        os._exit(main(json.loads(line)))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.slow
def test_twenty_real_kills_lose_and_double_nothing(server, folder, tmp_path):
    for index in range(12, 60):
        paint(index).save(folder / f"{index}.png")
    out, concurrency, chance = tmp_path / "d.parquet", 2, random.Random(0)
    journal = tmp_path / "d.parquet.journal.jsonl"
    command = [str(folder), "--model", "vlm", "--api_base", server.base, "--out", str(out)]
    command += ["--concurrency", str(concurrency)]
    launcher = [sys.executable, "-c", LAUNCHER, str(tmp_path / "log")]
    with subprocess.Popen(launcher, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        kept, codes, kills = set(), [], 20
        while True:
            arrived = threading.Event()
            before, wait = len(server.bodies), 2 + len(codes) % 3

            def plan(index, attempt, arrived=arrived, before=before, wait=wait):
                if len(server.bodies) - before >= wait and len(codes) < kills:
                    arrived.set()
                    time.sleep(0.005)
                return "good"

            server.plan = plan
            process.stdin.write(json.dumps(command) + "\n")
            process.stdin.flush()
            child = int(process.stdout.readline())
            if len(codes) < kills and arrived.wait(10):
                time.sleep(chance.random() * 0.01)
                os.kill(child, signal.SIGKILL)
            codes.append(int(process.stdout.readline()))
            if codes[-1] != -signal.SIGKILL:
                break
            lines = journal.read_bytes().split(b"\n")[1:-1] if journal.exists() else []
            held = [row[0] for line in lines for row in json.loads(line)["captions"]]
            assert len(held) == len(set(held)) and kept <= set(held)  # nothing doubled, nothing lost
            kept = set(held)
        process.stdin.close()
    assert codes[-1] == 0 and codes.count(-signal.SIGKILL) >= 20, (codes, (tmp_path / "log").read_text())
    assert_whole(out, folder)
    assert len(server.bodies) <= 60 + concurrency * kills * 2
