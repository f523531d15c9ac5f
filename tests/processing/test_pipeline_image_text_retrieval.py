"""The pipeline ranks as a loop over cosines does, whatever is asked of whatever gallery, and refuses the rest."""

import math
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity, normalize

from vsehub.processing.pipeline_image_text_retrieval import ImageTextRetrievalPipeline


@pytest.fixture
def pipe(tiny_model, tiny_processor):
    return ImageTextRetrievalPipeline(model=tiny_model, processor=tiny_processor, device="cpu")


@pytest.fixture
def embed(tiny_model, tiny_processor):
    """A function: one text or picture -> its vector, embedded alone, (D,)."""

    def one(item):
        encode = tiny_model.encode_text if isinstance(item, str) else tiny_model.encode_image
        return encode([item], processor=tiny_processor)[0]

    return one


def ranked(query, gallery):
    """Brute force: (cosine, index) of every row, best first."""
    found = [(cosine_similarity(query, row, dim=0).item(), index) for index, row in enumerate(gallery)]
    return sorted(found, reverse=True)


def assert_hits(hits, expected):
    assert [hit["index"] for hit in hits] == [index for _, index in expected]
    assert [hit["score"] for hit in hits] == pytest.approx([score for score, _ in expected], abs=1e-5)


def test_texts_rank_pictures_as_a_loop_over_cosines_does(pipe, embed, tiny_pictures, tiny_captions):
    assert pipe.index(tiny_pictures, batch_size=4) is pipe
    gallery = [embed(picture) for picture in tiny_pictures]
    answers = pipe(tiny_captions, top_k=6)
    assert len(answers) == len(tiny_captions)
    for caption, hits in zip(tiny_captions, answers):
        assert_hits(hits, ranked(embed(caption), gallery))


def test_pictures_rank_texts_and_one_query_gets_one_answer(pipe, embed, tiny_pictures, tiny_captions):
    pipe.index(tiny_captions)
    expected = ranked(embed(tiny_pictures[2]), [embed(caption) for caption in tiny_captions])
    assert_hits(pipe(tiny_pictures[2], top_k=6), expected)
    assert_hits(pipe([tiny_pictures[2]], top_k=6)[0], expected)
    assert pipe([]) == []


def test_a_gallery_may_mix_texts_and_pictures_and_keeps_its_order(pipe, embed, tiny_pictures, tiny_captions):
    mixed = [item for pair in zip(tiny_pictures, tiny_captions) for item in pair]
    pipe.index(mixed)
    gallery = [embed(item) for item in mixed]
    queries = [tiny_captions[0], tiny_pictures[3]]
    for query, hits in zip(queries, pipe(queries, top_k=len(mixed))):
        assert_hits(hits, ranked(embed(query), gallery))
    assert pipe(tiny_captions[4], top_k=1)[0]["index"] == 9 and pipe(tiny_pictures[5], top_k=1)[0]["index"] == 10


def test_a_dict_asks_with_the_sum_of_its_picture_and_its_text(pipe, embed, tiny_pictures, tiny_captions):
    pipe.index(tiny_pictures)
    gallery = [embed(picture) for picture in tiny_pictures]
    picture, text = tiny_pictures[1], tiny_captions[2]
    both = normalize(embed(picture) + embed(text), dim=-1)
    assert_hits(pipe({"image": picture, "text": text}, top_k=6), ranked(both, gallery))
    assert_hits(pipe({"text": text, "image": picture}, top_k=6), ranked(both, gallery))
    assert_hits(pipe({"text": text}, top_k=6), ranked(embed(text), gallery))
    assert_hits(pipe({"image": picture}, top_k=6), ranked(embed(picture), gallery))


def test_a_batch_of_queries_gets_the_answers_of_single_ones(pipe, tiny_pictures, tiny_captions):
    pipe.index(tiny_pictures)
    queries = [*tiny_captions[:2], tiny_pictures[3], {"text": tiny_captions[2], "image": tiny_pictures[1]}, "snow"]
    for size in (2, 3, 8):
        for hits, query in zip(pipe(queries, top_k=6, batch_size=size), queries, strict=True):
            assert_hits(hits, [(hit["score"], hit["index"]) for hit in pipe(query, top_k=6)])


def test_errors_count_the_queries_or_the_gallery_whatever_the_batch(pipe, tiny_pictures):
    pipe.index(tiny_pictures)
    for bad, said in (
        ({"text": "a dog", "imgae": tiny_pictures[0]}, "query 3 is a dict of ['imgae', 'text']"),
        ({}, "query 3 is a dict of []"),
        (" ", "item 3 is empty"),
        ({"text": "\ud800"}, "item 3 is not Unicode"),
        (7, "item 3 is a int"),
        (["a", "b"], "item 3 is a list"),
        ({"image": "a.png"}, "item 3 is a str"),
    ):
        with pytest.raises((TypeError, ValueError), match=re.escape(said)):
            pipe(["a dog", tiny_pictures[0], "snow", bad], batch_size=2)
    for bad, said in ((" ", "item 7 is empty"), (7, "item 7 is a int")):
        with pytest.raises((TypeError, ValueError), match=said):
            pipe.index([*tiny_pictures, "a dog", bad], batch_size=1)


def test_five_hits_are_given_by_default_and_all_of_a_smaller_gallery(pipe, tiny_pictures):
    pipe.index(tiny_pictures)
    assert [len(pipe("a dog")), len(pipe("a dog", top_k=2)), len(pipe("a dog", top_k=100))] == [5, 2, 6]
    pipe.index(tiny_pictures[0])  # one item is a gallery of one
    assert [hit["index"] for hit in pipe("a dog")] == [0]


def test_a_threshold_leaves_out_what_lies_below_it(pipe, tiny_pictures):
    pipe.index(tiny_pictures)
    hits = pipe("a dog", top_k=6)
    assert hits[0]["score"] > hits[5]["score"]
    for count in range(1, 7):
        kept = pipe("a dog", top_k=6, threshold=hits[count - 1]["score"])  # a hit at the threshold stays
        assert kept == [hit for hit in hits if hit["score"] >= hits[count - 1]["score"]]
    assert pipe("a dog", threshold=1.01) == [] and len(pipe("a dog", threshold=-1, top_k=6)) == 6


def test_several_may_be_an_array_or_whatever_can_be_iterated(pipe, tiny_pictures, tiny_captions):
    expected = pipe.index(tiny_pictures)(tiny_captions)
    assert pipe.index(picture for picture in tiny_pictures)(np.array(tiny_captions)) == expected
    assert pipe(iter(())) == []
    with pytest.raises(TypeError, match="item 0 is a dict"):
        pipe.index({"text": "a dog"})


def test_numbers_of_numpy_are_numbers(pipe, tiny_pictures):
    pipe.index(tiny_pictures)
    assert pipe("a dog", top_k=np.int64(2), threshold=np.float32(-1)) == pipe("a dog", top_k=2, threshold=-1)


def test_a_gallery_of_a_call_holds_for_that_call_alone(pipe, embed, tiny_pictures, tiny_captions):
    pipe.index(tiny_pictures)
    before = pipe("a dog", top_k=6)
    hits = pipe("a dog", gallery=tiny_captions[:3], top_k=6)
    assert_hits(hits, ranked(embed("a dog"), [embed(caption) for caption in tiny_captions[:3]]))
    assert pipe("a dog", top_k=6) == before


def test_batches_do_not_change_the_gallery(pipe, tiny_pictures):
    first = pipe.index(tiny_pictures, batch_size=1).gallery
    torch.testing.assert_close(pipe.index(tiny_pictures, batch_size=32).gallery, first, atol=1e-5, rtol=0)
    torch.testing.assert_close(first.norm(dim=-1), torch.ones(6))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"top_k": 0}, ValueError, "top_k must be a whole number of at least 1, got 0"),
        ({"top_k": 2.0}, ValueError, "top_k must be a whole number of at least 1, got 2.0"),
        ({"threshold": math.nan}, ValueError, "threshold must be a cosine, got nan"),
        ({"threshold": "high"}, ValueError, "threshold must be a cosine, got 'high'"),
        ({"gallery": []}, ValueError, "the gallery is empty"),
        ({"candidate_labels": ["a"]}, TypeError, "no parameter .'candidate_labels'.; see top_k, gallery, threshold"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_is_refused(pipe, tiny_pictures, options, error, words):
    pipe.index(tiny_pictures)
    with pytest.raises(error, match=words):
        pipe("a dog", **options)


def test_without_a_gallery_it_says_how_to_give_one(pipe):
    with pytest.raises(ValueError, match=r"there is no gallery yet: call pipe.index\(images or texts\)"):
        pipe("a dog")
    with pytest.raises(ValueError, match="the gallery is empty"):
        pipe.index([])


@pytest.mark.parametrize("query", [{}, {"picture": Image.new("RGB", (8, 8))}], ids=["empty", "another name"])
def test_a_dict_without_picture_and_text_is_refused(pipe, tiny_pictures, query):
    pipe.index(tiny_pictures)
    with pytest.raises(TypeError, match="query 0 is a dict of .*: `image`, `text` or both are read"):
        pipe(query)


@pytest.mark.parametrize("item", [None, 7, b"bytes"])
def test_an_item_that_is_neither_text_nor_picture_is_refused(pipe, tiny_pictures, item):
    with pytest.raises(TypeError, match=type(item).__name__):
        pipe.index([tiny_pictures[0], item])
    with pytest.raises(TypeError, match=type(item).__name__):
        pipe.index(tiny_pictures)(item)
