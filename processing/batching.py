"""Batches for a tower: which inputs go together, how they are padded, and the loop that runs them.

Whatever embeds a whole data set (evaluation, caches of frozen towers, features of teachers) goes through `run_batches`,
so that a faster way of running a tower has one place to be written.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch.nn.utils.rnn import pad_sequence

END = object()
Item = TypeVar("Item")
Result = TypeVar("Result")


def by_length(texts: Sequence[str], indices: Iterable[int] | None = None) -> list[int]:
    """Sort the indices of texts, or some of them, by the texts' length: neighbours need little padding."""
    return sorted(range(len(texts)) if indices is None else indices, key=lambda index: len(texts[index]))


def batches_of(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Cut a sequence into batches of `size` items; the last one may be smaller."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def decoding_threads() -> int:
    """How many threads open pictures while a model runs: one for each core, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores)


def ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    weight: Callable[[Item], float] = lambda item: 0,
    most: float = 1,
) -> Iterator[tuple[Item, Result]]:
    """Apply a function to items in other threads, before their results are asked for.

    Args:
        function: of one item. It must not change what calls in other threads use.
        items: taken in the caller's thread, at most two for each worker more than were asked for.
        workers: threads; with 0 the caller's own makes each result when it is asked for.
        weight, most: no further item is taken while those that wait weigh `most` or more together.

    Yields:
        Each item and its result, in the order of the items; an error is raised in its place.
    """
    if not workers:
        yield from ((item, function(item)) for item in items)
        return
    items, waiting = iter(items), deque()
    pool = ThreadPoolExecutor(workers)
    try:
        while True:
            while len(waiting) <= 2 * workers and sum(weight(item) for item, _ in waiting) < most:
                if (item := next(items, END)) is END:
                    break
                waiting.append((item, pool.submit(function, item)))  # type: ignore[arg-type]  # END is no item
            if not waiting:
                return
            item, future = waiting.popleft()
            yield item, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def run_batches(
    batches: Iterable[Sequence[Item]],
    prepare: Callable[[Sequence[Item]], dict[str, Any]],
    run: Callable[[dict[str, Any]], Result],
    device: torch.device | str,
    workers: int = 0,
) -> Iterator[tuple[Sequence[Item], Result]]:
    """Prepare and run batch after batch, without gradients.

    Args:
        batches: the items of each batch.
        prepare: items to named inputs on the CPU: tensors, and what else the model takes.
        run: the inputs, on `device`, to what the caller wants of them.
        device: where `run` computes.
        workers: threads that prepare the next batches while the model runs; for pictures `decoding_threads()`. Texts
            are prepared in this thread (0): tokenizers are not made for several.

    Yields:
        Each batch and its result, in the order of the batches.
    """
    for batch, prepared in ahead(prepare, batches, workers):
        inputs = on_device(prepared, device)
        with torch.no_grad():
            result = run(inputs)
        yield batch, result


def on_device(inputs: dict[str, Any], device: torch.device | str) -> dict[str, Any]:
    """The inputs with their tensors on a device; on a CPU, pictures lie channel after channel for each pixel.

    Convolutions on a CPU run faster over this layout (`torch.channels_last`); results are equal but for rounding.
    """
    return {
        name: _placed(value, torch.device(device)) if torch.is_tensor(value) else value
        for name, value in inputs.items()
    }


def _placed(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    if device.type == "cpu" and tensor.dim() == 4 and tensor.is_floating_point():
        return tensor.to(device, memory_format=torch.channels_last)
    return tensor.to(device)


def tokenize(tokenizer: Any, texts: Sequence[str], max_length: int | None = None) -> dict[str, torch.Tensor]:
    """Turn texts into one padded batch of the tokenizer's tensors (T, L), cut at `max_length` or `model_max_length`."""
    return dict(tokenizer(list(texts), padding=True, truncation=True, max_length=max_length, return_tensors="pt"))


def pad_ids(tokenizer: Any, ids: Sequence[list[int]]) -> dict[str, torch.Tensor]:
    """Pad token ids of several texts to `input_ids` and `attention_mask` (T, L)."""
    padded = tokenizer.pad({"input_ids": list(ids)}, return_tensors="pt")
    return {name: padded[name] for name in ("input_ids", "attention_mask")}


def pad_states(states: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Pad a tower's token states of several texts, each (L_i, C), to `text_hidden_states` (T, L, C) and their mask."""
    lengths = torch.tensor([len(state) for state in states])
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    padded = pad_sequence([state.float() for state in states], batch_first=True)
    return {"text_hidden_states": padded, "attention_mask": mask}


__all__ = [
    "ahead",
    "batches_of",
    "by_length",
    "decoding_threads",
    "on_device",
    "pad_ids",
    "pad_states",
    "run_batches",
    "tokenize",
]
