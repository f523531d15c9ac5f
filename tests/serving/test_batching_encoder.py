"""Requests that arrive together are embedded together, with the vectors that each has alone."""

import threading
import time

import pytest
import torch

from vsehub.processing.load_encoder import encoder_of
from vsehub.serving.batching_encoder import AT_ONCE, BatchingEncoder, Job, batches


@pytest.fixture
def made(tiny_model, tiny_processor):
    """A batching encoder, the sizes of its batches, and the encoder below."""
    plain, sizes = encoder_of(tiny_model, tiny_processor), []
    encoder = BatchingEncoder(plain, 20, lambda kind, count: sizes.append((kind, count)))
    yield encoder, sizes, plain
    encoder.close()


def test_no_texts_are_no_vectors_whatever_the_default_device(made):
    with torch.device("meta"):
        assert made[0].encode_text([]).device.type == "cpu"


def all_at_once(tasks):
    """Results of functions that run in a thread each."""
    results = [None] * len(tasks)

    def run(place):
        try:
            results[place] = tasks[place]()
        except Exception as error:
            results[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return results


def test_what_waits_is_one_batch_with_the_vectors_of_each_alone(made, tiny_captions, tiny_pictures):
    encoder, sizes, plain = made
    busy, tasks_wait = threading.Event(), lambda: encoder._jobs.qsize() == len(tiny_captions) + len(tiny_pictures)

    def block():
        busy.set()
        end = time.monotonic() + 20
        while not tasks_wait() and time.monotonic() < end:
            time.sleep(0.01)

    blocked = threading.Thread(target=encoder.call, args=(block,))
    blocked.start()
    assert busy.wait(20)  # all that follows waits
    texts = [lambda text=text: encoder.encode_text([text]) for text in tiny_captions]
    images = [lambda image=image: encoder.encode_image([image]) for image in tiny_pictures]
    results = torch.cat(all_at_once(texts + images))
    torch.testing.assert_close(results[:6], plain.encode_text(tiny_captions), atol=1e-5, rtol=0)
    torch.testing.assert_close(results[6:], plain.encode_image(tiny_pictures), atol=1e-5, rtol=0)
    assert sizes == [("text", 6), ("image", 6)]
    blocked.join()


def test_what_the_model_refuses_spoils_no_other(made, tiny_captions):
    encoder, _, plain = made
    wrong = "half a pair \ud800"
    tasks = [lambda text=text: encoder.encode_text([text]) for text in [wrong, *tiny_captions]]
    refused, *others = all_at_once([lambda: encoder.call(lambda: time.sleep(0.3)), *tasks])[1:]
    assert isinstance(refused, ValueError)
    torch.testing.assert_close(torch.cat(others), plain.encode_text(tiny_captions), atol=1e-5, rtol=0)


def test_a_long_request_is_cut_into_batches(made):
    encoder, sizes, _ = made
    assert encoder.encode_text(["a dog"] * 150).shape == (150, 16)
    assert max(count for _, count in sizes) <= AT_ONCE["text"] and sum(count for _, count in sizes) == 150
    assert encoder.encode_text([]).shape == (0, 16) and encoder.encode_image([]).shape == (0, 16)


def test_a_request_that_takes_too_long_is_told_so_and_the_next_is_answered(made):
    encoder, _, plain = made
    encoder.seconds = 0.2
    with pytest.raises(TimeoutError, match="did not answer within 0.2 s"):
        encoder.call(lambda: time.sleep(0.6))
    encoder.seconds = 20
    assert torch.allclose(encoder.encode_text(["a dog"]), plain.encode_text(["a dog"]), atol=1e-5)


def test_an_index_of_another_width_is_not_searched(made):
    encoder, _, _ = made
    assert encoder.with_width(None) is encoder and encoder.with_width(16) is encoder
    with pytest.raises(ValueError, match="started with 16 numbers"):
        encoder.with_width(8)


def test_groups_hold_at_most_so_many_items_and_lose_no_job():
    jobs = [Job("text", [0] * count) for count in (3, 1, 4, 9, 1, 2)]
    groups = list(batches(jobs, 5))
    assert [[len(job.items) for job in group] for group in groups] == [[3, 1], [4], [9], [1, 2]]
    assert [job for group in groups for job in group] == jobs


def test_fewer_numbers_of_the_encoder_below_are_kept(made):
    narrow = made[2].with_width(5)
    encoder = BatchingEncoder(narrow, 20)
    try:
        assert encoder.encode_text(["a dog"]).shape == (1, 5) and encoder.with_width(5) is encoder
        assert encoder.identity["width"] == encoder.dimension == 5
    finally:
        encoder.close()
