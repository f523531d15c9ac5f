"""Batches of texts of like length, their padding, and the loop that runs them."""

import itertools
import threading

import pytest
import torch

from vsehub.processing.batching import ahead, batches_of, by_length, pad_ids, pad_states, run_batches, tokenize


def test_texts_go_by_length_and_equal_lengths_keep_their_order():
    texts = ["ccc", "a", "bb", "d"]
    assert by_length(texts) == [1, 3, 2, 0]
    assert by_length(texts, [0, 3, 2]) == [3, 2, 0]


def test_batches_hold_every_item_once_and_only_the_last_is_smaller():
    assert batches_of([5, 6, 7, 8, 9], 2) == [[5, 6], [7, 8], [9]]
    assert batches_of([], 2) == []


def test_the_loop_prepares_and_runs_in_order_without_gradients():
    seen = []

    def prepare(batch):
        seen.append(("prepare", batch))
        return {"x": torch.tensor(batch, dtype=torch.float32)}

    def run(inputs):
        seen.append(("run", inputs["x"].tolist()))
        return inputs["x"] * weight

    weight = torch.tensor(2.0, requires_grad=True)
    results = list(run_batches([[1, 2], [3]], prepare, run, "cpu"))
    assert [(batch, result.tolist()) for batch, result in results] == [([1, 2], [2, 4]), ([3], [6])]
    assert not any(result.requires_grad for _, result in results)
    assert [kind for kind, _ in seen] == ["prepare", "run", "prepare", "run"]


def test_the_next_batches_are_prepared_while_the_model_runs():
    second = threading.Event()

    def prepare(batch):
        if batch == [2]:
            second.set()
        return {"x": torch.tensor(batch)}

    def run(inputs):
        assert second.wait(timeout=60)  # of the first batch, which would wait for ever
        return inputs["x"].item()

    assert [result for _, result in run_batches([[1], [2], [3]], prepare, run, "cpu", workers=1)] == [1, 2, 3]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_items_and_an_error_in_its_place(workers):
    def function(number):
        if number == 7:
            raise ValueError("7 is bad")
        return number * number

    results = ahead(function, iter(range(100)), workers)
    assert [next(results) for _ in range(7)] == [(number, number**2) for number in range(7)]
    with pytest.raises(ValueError, match="7 is bad"):
        next(results)


def test_few_items_are_taken_before_they_are_needed_and_fewer_where_they_are_heavy():
    def taken(**limits):
        items = itertools.count()
        next(ahead(str, items, 2, **limits))
        return next(items)

    assert taken() == 5  # two for each worker, and the one that was asked for
    assert taken(weight=lambda item: 10, most=20) == 2


def test_no_thread_is_left_where_the_results_are_not_taken():
    results = ahead(str, range(100), 2)
    next(results)
    results.close()
    assert not any("ThreadPoolExecutor" in thread.name for thread in threading.enumerate())


def test_gradients_are_off_for_the_batch_and_not_for_the_caller():
    for _ in run_batches([[1]], lambda batch: {}, lambda inputs: None, "cpu"):
        assert torch.is_grad_enabled()


def test_inputs_are_moved_to_the_device():
    ((_, device),) = run_batches([[1]], lambda b: {"x": torch.zeros(2)}, lambda inputs: inputs["x"].device, "meta")
    assert device == torch.device("meta")


def test_tokens_are_cut_and_padded(tiny_tokenizer):
    tokens = tokenize(tiny_tokenizer, ["a dog runs in the snow", "boat"], max_length=5)
    assert tokens["input_ids"].shape == (2, 5)
    assert tokens["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]


def test_padded_ids_are_the_tokenizers_own(tiny_tokenizer):
    texts = ["a dog runs in the snow", "boat"]
    whole = tokenize(tiny_tokenizer, texts)
    padded = pad_ids(tiny_tokenizer, [tiny_tokenizer(text)["input_ids"] for text in texts])
    assert torch.equal(padded["input_ids"], whole["input_ids"])
    assert torch.equal(padded["attention_mask"], whole["attention_mask"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_padded_states_are_zero_where_the_mask_is(dtype):
    states = [torch.ones(3, 2, dtype=dtype), torch.ones(1, 2, dtype=dtype)]
    padded = pad_states(states)
    assert padded["text_hidden_states"].dtype == torch.float32
    assert padded["text_hidden_states"][..., 0].tolist() == padded["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
