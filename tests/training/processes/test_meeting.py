"""Processes that meet at the start of a step, and one that does not come."""

import re
import socket
import subprocess
import sys
import threading
import time

import pytest
from small_runs import SMALL
from torch.distributed import HashStore

from vsehub.training.processes import meeting
from vsehub.training.processes.meeting import Meeting, ending_together, line_of, shared_line, watch

TWO = """
import sys, time
from torch import distributed
from vsehub.training.processes import meeting

distributed.init_process_group("gloo")
meeting.SECONDS = 3
met = meeting.Meeting()
met.wait(1)
print("met", flush=True)
if distributed.get_rank() == 1:
    time.sleep(600)
try:
    met.wait(2)
except ValueError as error:
    sys.exit(str(error))
"""

OTHER_FAULT = """
import sys
from torch import distributed
from vsehub.__main__ import main
from vsehub.training.inputs import pairs
from vsehub.training.trainer import RetrievalTrainer

row_image, embed = pairs.row_image, RetrievalTrainer._embed

def broken(row):
    if distributed.get_rank() == 1 and row["image_id"] == "scene-0-5":
        raise OSError("broken data stream")
    return row_image(row)

def faulty(self, model, batch):
    if distributed.get_rank() == 1 and self.state.global_step == 1:
        {}["margin"]
    return embed(self, model, batch)

def killed(self, model, batch):
    if distributed.get_rank() == 1 and self.state.global_step == 1:
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    return embed(self, model, batch)

what = sys.argv.pop(1)
if what == "row":
    pairs.row_image = broken
else:
    RetrievalTrainer._embed = {"loss": faulty, "killed": killed}[what]
sys.exit(main(["train", "d2s", *sys.argv[1:]]))
"""

ONE_OF_TWO = """
import sys, time
from torch import distributed
from vsehub.training.processes import meeting

distributed.init_process_group("gloo")
meeting.GRACE = 2
try:
    with meeting.ending_together():
        distributed.barrier()
        if distributed.get_rank() == 1:
            raise OSError("row 7 cannot be read")
        time.sleep(600)
except ValueError as error:
    print("ended:", error, file=sys.stderr)
    sys.exit(2)
"""

NAN_OF_ONE = """
import sys
from torch import distributed
from vsehub.__main__ import main
from vsehub.training.trainer import RetrievalTrainer

embed = RetrievalTrainer._embed

def spoiled(self, model, batch):
    outputs, embeds = embed(self, model, batch)
    if distributed.get_rank() == 1:
        embeds["image_embeds"] = embeds["image_embeds"].clone()
        embeds["image_embeds"][3] = float("nan")
    return outputs, embeds

RetrievalTrainer._embed = spoiled
sys.exit(main(["train", "d2s", *sys.argv[1:]]))
"""


def test_a_single_process_waits_for_nobody():
    Meeting().wait(1)


def test_the_line_names_the_step_and_what_to_do(monkeypatch):
    alone = Meeting()
    alone.group = "all"

    def missing(group, timeout, wait_all_ranks):
        assert group == "all" and timeout.total_seconds() == meeting.SECONDS and wait_all_ranks
        raise RuntimeError("[Rank 0]: Ranks 1 failed to pass monitoredBarrier in 60000 ms\nmore")

    monkeypatch.setattr(meeting.distributed, "monitored_barrier", missing)
    with pytest.raises(ValueError, match=r"step 7 within 60 s: \[Rank 0\]: Ranks 1 failed .* ms\. The one") as error:
        alone.wait(7)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_process_that_hangs_ends_all_of_them(tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    command += ["--rdzv_endpoint", "127.0.0.1:0", str(tmp_path / "two.py")]
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0 and done.stdout.count("met") == 2
    assert "not all processes came to step 2 within 3 s" in done.stderr and "1 failed to pass" in done.stderr
    assert time.monotonic() - start < 120


@pytest.mark.slow
def test_nan_of_one_process_ends_both_with_its_number_and_the_row(scenes, tmp_path):
    (tmp_path / "nan.py").write_text(NAN_OF_ONE)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    command += ["--rdzv_endpoint", "127.0.0.1:0", str(tmp_path / "nan.py"), *scenes, *SMALL, "--stages", "baseline"]
    command += ["--output_dir", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if "vsehub train: the loss is nan at step 0" in line]
    assert lines and all("not finite of process 1, image rows [" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("row", r"vsehub train: row 5 \(scene-0-5\) cannot be loaded: broken data stream \(process 1 of 2\)"),
        ("loss", r"vsehub train: KeyError at other.py:\d+: 'margin'; VSEHUB_TRACEBACK=1 .* \(process 1 of 2\)"),
    ],
)
def test_another_fault_of_one_process_ends_both_with_one_line(scenes, tmp_path, what, line):
    (tmp_path / "other.py").write_text(OTHER_FAULT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    command += ["--rdzv_endpoint", "127.0.0.1:0", str(tmp_path / "other.py"), what, *scenes, *SMALL]
    start = time.monotonic()
    command += ["--stages", "baseline", "--output_dir", str(tmp_path / "run"), "--image_augmentation", "none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0 and time.monotonic() - start < 120
    told = {text[text.index("vsehub train:") :] for text in done.stderr.splitlines() if "vsehub train:" in text}
    assert len(told) == 1 and re.fullmatch(line, *told), done.stderr[-3000:]
    own = done.stderr.partition("elastic")[0]  # then the launcher reports in its way
    assert "Traceback" not in own


@pytest.mark.slow
def test_a_process_on_another_machine_is_ended_where_it_waits(tmp_path):
    """Two launchers that meet over a port: none sees the processes of the other."""
    (tmp_path / "one.py").write_text(ONE_OF_TWO)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
    command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{port}", "--rdzv_id", "7"]
    start, launchers = time.monotonic(), []
    for _ in range(2):
        launchers.append(subprocess.Popen([*command, str(tmp_path / "one.py")], stderr=subprocess.PIPE, text=True))
    told = [launcher.communicate(timeout=200)[1] for launcher in launchers]
    assert all(launcher.returncode for launcher in launchers) and time.monotonic() - start < 120
    line = "row 7 cannot be read (process 1 of 2)"
    assert sorted((f"ended: {line}" in text, f"vsehub train: {line}" in text) for text in told) == [
        (False, True),
        (True, False),
    ]


def test_a_single_process_keeps_its_error():
    with pytest.raises(KeyError), ending_together():
        raise KeyError("x")


def test_the_first_line_is_that_of_all(monkeypatch):
    monkeypatch.setattr(meeting, "POLL", 0)
    store = HashStore()
    lost = RuntimeError("[pair.cc:534] Connection closed by peer [127.0.0.1]:1")
    assert "ended without a word" in shared_line(store, lost, 0, 2) and not store.check([meeting.FAILED])
    first = shared_line(store, OSError("row 7 cannot be read"), 1, 2)
    assert first == "row 7 cannot be read (process 1 of 2)"
    assert shared_line(store, lost, 0, 2) == shared_line(store, ValueError("mine"), 0, 2) == first


def test_a_fault_is_told_with_its_kind_and_place():
    try:
        {}["margin"]
    except KeyError as error:
        assert re.fullmatch(r"KeyError at test_meeting.py:\d+: 'margin'; VSEHUB_TRACEBACK=1 shows more", line_of(error))
    assert line_of(ValueError("two\nlines")) == "two lines"


def test_a_process_that_waits_for_ever_ends_with_the_line_of_the_other(monkeypatch, capsys):
    monkeypatch.setattr(meeting, "POLL", 0.01)
    monkeypatch.setattr(meeting, "GRACE", 0.01)
    statuses, store = [], HashStore()
    monkeypatch.setattr(meeting.os, "_exit", statuses.append)
    store.set(meeting.FAILED, "row 7 cannot be read (process 1 of 2)")
    watch(store, threading.Event())
    assert statuses == [2] and capsys.readouterr().err == "vsehub train: row 7 cannot be read (process 1 of 2)\n"
    ended = threading.Event()
    ended.set()
    watch(store, ended)
    assert statuses == [2]
