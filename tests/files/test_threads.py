"""Threads that wait go to sleep soon, unless the user has chosen otherwise, and before PyTorch starts them."""

import os
import subprocess
import sys

import pytest

from vsehub.files.threads import CHOSEN, wait_asleep

STARTED = "import sys, vsehub.__main__ as vsehub; assert 'torch' not in sys.modules; vsehub.main(['info'])"
SHOWN = "import os; print(os.environ.get('GOMP_SPINCOUNT'))"


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    for name in CHOSEN:
        monkeypatch.setenv(name, "")  # so that it is as before after the test
        monkeypatch.delenv(name)


def test_waiting_threads_sleep_soon():
    wait_asleep()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"


@pytest.mark.parametrize("name", CHOSEN)
def test_what_the_user_has_chosen_stays(monkeypatch, name):
    monkeypatch.setenv(name, "ACTIVE")
    wait_asleep()
    assert os.environ[name] == "ACTIVE" and sum(other in os.environ for other in CHOSEN) == 1


def test_every_verb_sets_it_before_torch_is_imported():
    done = subprocess.run([sys.executable, "-c", f"{STARTED}\n{SHOWN}"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "1000", done.stderr
