"""Threads of one operation that wait for each other go to sleep soon, so that other programs do not stop them.

They wait at the end of every operation, and the library that runs them (GNU OpenMP, which PyTorch ships on Linux) lets
the waiting ones spin. Where another program keeps a core busy, a spinning thread holds the core that the last one
needs, and a step takes seconds.
"""

import os

SPINS = 1000  # turns before a waiting thread sleeps, some microseconds: as fast as ever where nothing else runs
CHOSEN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # what a user may have set


def wait_asleep():
    """Let waiting threads sleep soon in this process and those that it starts; only before PyTorch is imported.

    What the user has set stays.
    """
    if not any(name in os.environ for name in CHOSEN):
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)


__all__ = ["wait_asleep"]
