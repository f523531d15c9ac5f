"""Processes that meet at the start of a step, and one that does not come."""

import subprocess
import sys
import time

import pytest
from small_runs import SMALL

from vsehub.training import meeting
from vsehub.training.meeting import Meeting

TWO = """
import sys, time
from torch import distributed
from vsehub.training import meeting

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
