"""Processes meet at the start of each step, so that one that hangs is named and ends the run."""

from datetime import timedelta

from torch import distributed

SECONDS = 60  # that the others wait for the last process


class Meeting:
    """Where the processes of a run meet; nothing for a single process.

    Saving and evaluating have barriers of their own, so at the start of a step processes differ by the time of loading
    a batch and of one step.
    """

    def __init__(self):
        self.group = None
        if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
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


__all__ = ["SECONDS", "Meeting"]
