"""Processes meet at the start of each step, so that one that hangs is named; one that fails ends all of them."""

import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from datetime import timedelta

from torch import distributed

SECONDS = 60  # that the others wait for the last process
FAILED = "vsehub: failed"  # in the store that processes share: the line of the first that failed
POLL, GRACE = 1.0, 10.0  # seconds between two looks there, and to end by itself
BAD_INPUT = (ValueError, TypeError, OSError, ImportError, FloatingPointError, RecursionError)
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket closed", "monitoredBarrier")


def several_processes() -> bool:
    """Whether this process is one of several that train together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


class Meeting:
    """Where the processes of a run meet; nothing for a single process.

    Saving and evaluating have barriers of their own, so at the start of a step processes differ by the time of loading
    a batch and of one step.
    """

    def __init__(self):
        self.group = None
        if several_processes():
            self.group = distributed.new_group(backend="gloo")  # only gloo says who is missing

    def wait(self, step: int):
        """Wait until every process has come to a step.

        Raises:
            ValueError: one has not, within `SECONDS` of the others; the first process names it.
        """
        if self.group is None:
            return
        try:
            distributed.monitored_barrier(self.group, timedelta(seconds=SECONDS), wait_all_ranks=True)
        except RuntimeError as error:
            raise ValueError(
                f"not all processes came to step {step} within {SECONDS} s: {str(error).splitlines()[0]}. The one that "
                "is missing hangs or has ended: look at its output, at its disk and its memory; the run goes on from "
                "the last checkpoint with --resume_from_checkpoint true"
            ) from None


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Let a failure of one process end all of them, each with its line, wherever the others wait; nothing if alone.

    Raises:
        ValueError: this process or another one has failed; the line names it and the cause.
    """
    if not several_processes():
        yield
        return
    store = distributed.distributed_c10d._get_default_store()  # there is no public way to it
    ended = threading.Event()
    watched = store.clone() if hasattr(store, "clone") else store  # a store answers one question at a time
    threading.Thread(target=watch, args=(watched, ended), daemon=True).start()
    try:
        yield
    except Exception as error:
        raise ValueError(shared_line(store, error, distributed.get_rank(), distributed.get_world_size())) from error
    finally:
        ended.set()


def shared_line(store: distributed.Store, error: Exception, rank: int, world: int) -> str:
    """The line of the first process that failed, which is this one if none has before.

    Args:
        store: of all processes.
        error: of this process.
        rank: of this process.
        world: number of processes.
    """
    mine = f"{line_of(error)} (process {rank} of {world})"
    try:
        if store.check([FAILED]):
            return store.get(FAILED).decode()
        if any(sign in str(error) for sign in LOST) and not isinstance(error, BAD_INPUT):
            return (
                f"another process ended without a word (killed, or out of memory?): {line_of(error)}. Look at its "
                "output and its memory; the run goes on from the last checkpoint with --resume_from_checkpoint true "
                f"(process {rank} of {world})"
            )
        first = store.compare_set(FAILED, "", mine).decode()
    except RuntimeError:  # the process that held the store has ended
        return mine
    if first == mine:
        time.sleep(2 * POLL)  # the store may end with this process, and the others are to read it
    return first


def line_of(error: Exception) -> str:
    """An error in one line; one that is no bad input with its kind and its place."""
    text = " ".join(str(error).split())
    if isinstance(error, BAD_INPUT):
        return text
    frame = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" at {os.path.basename(frame[0].filename)}:{frame[0].lineno}" if frame else ""
    return f"{type(error).__name__}{place}: {text}; VSEHUB_TRACEBACK=1 shows more"


def watch(store: distributed.Store, ended: threading.Event):
    """End this process when another one has failed, unless it comes to its own end before.

    A process may wait for the one that failed in an operation that no exception interrupts.
    """
    while not ended.wait(POLL):
        try:
            if not store.check([FAILED]):
                continue
            line = store.get(FAILED).decode()
        except RuntimeError:  # the process that held the store has ended
            return
        if not ended.wait(GRACE):
            print(f"vsehub train: {line}", file=sys.stderr, flush=True)
            os._exit(2)
        return


__all__ = ["SECONDS", "Meeting", "ending_together", "line_of", "shared_line", "watch"]
