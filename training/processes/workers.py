"""Processes that load training items: what each is loading, and one line where one fails, dies or hangs."""

import contextlib
from collections.abc import Iterator

import torch
from torch.utils.data import get_worker_info

SECONDS = 60  # without a batch, after which a process hangs
PER_PAIR = 0.1  # seconds, for batches that take longer
MOST = 1024  # processes


class Loading:
    """Which item each process is loading, in memory that they share."""

    def __init__(self):
        self.items = torch.full((MOST,), -1).share_memory_()

    @contextlib.contextmanager
    def of(self, position: int) -> Iterator[None]:
        """Note that this process loads an item, inside."""
        worker = get_worker_info()
        place = 0 if worker is None else worker.id
        self.items[place] = position
        yield
        self.items[place] = -1

    def now(self) -> list[int]:
        """The items that are being loaded, or were when their process ended."""
        return [position for position in self.items.tolist() if position >= 0]


@contextlib.contextmanager
def told_in_one_line(dataset) -> Iterator[None]:
    """Turn what DataLoader raises where a process dies or hangs into one line that names the items.

    Args:
        dataset: with `loading` (`Loading`) and `name_of` (position -> what a user calls the item).

    Raises:
        ValueError: instead.
    """
    try:
        yield
    except ValueError as error:
        if "in DataLoader worker process" not in str(error):
            raise
        raise ValueError(str(error).strip().splitlines()[-1].partition(": ")[2]) from None
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        names = ", ".join(map(dataset.name_of, dataset.loading.now())) or "nothing yet"
        what = "gave no batch in time" if "timed out" in str(error) else "ended by itself (out of memory, perhaps)"
        raise ValueError(
            f"a process that loads training items {what}; being loaded: {names}. Look at these, take fewer processes "
            "(--dataloader_num_workers), or leave bad rows out (--on_bad_sample quarantine)"
        ) from None


__all__ = ["SECONDS", "Loading", "told_in_one_line"]
