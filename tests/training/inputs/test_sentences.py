"""Sentences of dense texts, and which of them a step reads."""

import itertools

import numpy as np
import pytest
import torch

from vsehub.training.inputs.pairs import PairDataset
from vsehub.training.inputs.sentences import drawn, sentences
from vsehub.training.inputs.tower_cache import Caches, cache_text


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("A dog runs . Two men sit .", ["A dog runs .", "Two men sit ."]),
        ("One! Two? Three", ["One!", "Two?", "Three"]),
        ("a line\nanother", ["a line", "another"]),
        ("It is 3.5 m high. ...", ["It is 3.5 m high."]),
        ("no end", ["no end"]),
        ("...", ["..."]),
    ],
)
def test_texts_are_cut_into_sentences(text, parts):
    assert sentences(text) == parts


def test_every_number_of_sentences_and_every_order_is_drawn():
    rng = np.random.default_rng(0)
    draws = [tuple(drawn(3, rng)) for _ in range(600)]
    lengths = np.bincount([len(draw) for draw in draws], minlength=4)
    assert lengths[0] == 0 and (lengths[1:] > 150).all()
    assert {draw for draw in draws if len(draw) == 1} == {(0,), (1,), (2,)}
    assert len({draw for draw in draws if len(draw) == 3}) == 6
    assert drawn(1, rng) == [0]


def dense(rows):
    names = ["red", "blue", "green"]
    texts = [" ".join(f"a {names[(row + n) % 3]} circle ." for n in range(3)) for row in range(len(rows))]
    return rows.remove_columns("dense_text").add_column("dense_text", texts)


def test_an_item_reads_sentences_of_its_own_text(rows, tiny_processor):
    rows = dense(rows)
    sampled = PairDataset(rows, tiny_processor, texts="dense_text", dense_sampling=True)
    tokenizer, seen = tiny_processor.tokenizer, set()
    for epoch in range(8):
        sampled.set_epoch(epoch)
        for row in range(len(rows)):
            text = tokenizer.decode(sampled[row]["input_ids"], skip_special_tokens=True)
            own = [
                tokenizer.decode(tokenizer(part)["input_ids"], skip_special_tokens=True)
                for part in sentences(rows[row]["dense_text"])
            ]
            parts = [part for part in own if part in text]
            assert parts and len(text.split()) == sum(len(part.split()) for part in parts)
            seen.add((row, len(parts)))
    assert {count for _, count in seen} == {1, 2, 3}
    whole = PairDataset(rows, tiny_processor, texts="dense_text")
    assert tokenizer.decode(whole[0]["input_ids"], skip_special_tokens=True).count("circle") == 3


def test_cached_sentences_are_joined_as_they_are_drawn(rows, tiny_processor, tiny_model, tmp_path):
    rows = dense(rows)
    parts = [part for text in rows["dense_text"] for part in sentences(text)]
    cache = cache_text(tiny_model, tiny_processor, parts, tmp_path)
    cached = PairDataset(rows, tiny_processor, texts="dense_text", dense_sampling=True, caches=Caches(text=cache))
    orders = [order for count in (1, 2, 3) for order in itertools.permutations(range(3), count)]
    seen = set()
    for epoch in range(8):
        cached.set_epoch(epoch)
        for row in range(len(rows)):
            states = cached[row]["text_hidden_states"]
            joined = {order: torch.cat([cache[3 * row + place] for place in order]) for order in orders}
            (order,) = [order for order, expected in joined.items() if torch.equal(states, expected)]
            seen.add(order)
    assert {len(order) for order in seen} == {1, 2, 3}
