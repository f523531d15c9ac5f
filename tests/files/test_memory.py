"""Memory that is kept: fresh pages are asked for once, not in every round."""

import os
import subprocess
import sys

import pytest

from vsehub.files import memory

ROUNDS = """
import resource, sys
from vsehub.files.memory import reuse_memory
assert sys.argv[1] == "plain" or reuse_memory()
for round in range(6):
    if round == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = b"x" * 2**26
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    command = [sys.executable, "-c", ROUNDS, mode]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, env=own).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc maps and unmaps large blocks like this")
def test_large_blocks_are_mapped_once_and_not_in_every_round():
    plain, kept = faults("plain"), faults("kept")
    assert kept < 100 < plain


SCATTERED = """
from pathlib import Path
from vsehub.files.memory import reuse_memory
def held():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
blocks = [bytes(10_000) for _ in range(20_000)]
last = bytes(10_000)
del blocks
before = held()
reuse_memory()
print(before - held())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc keeps what lies below a block in use")
def test_what_was_freed_before_goes_back_to_the_system():
    done = subprocess.run([sys.executable, "-c", SCATTERED], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 100_000  # of 200 MB


def test_another_system_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert memory.reuse_memory() is False


def test_another_c_library_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert memory.reuse_memory() is False
