"""Pictures and texts ranked together, without the mean of their modality: against a loop, and through the retriever."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vsehub.search.mixed import centred, search_mixed
from vsehub.search.retriever import Retriever
from vsehub.search.vector_index import VectorIndex


def world(count: int = 40, width: int = 12, gap: float = 1.5, seed: int = 0):
    """Unit vectors of pictures and texts of the same things, each modality around a place of its own, and the means."""
    rng = np.random.default_rng(seed)
    things = rng.normal(size=(count, width))
    places = rng.normal(size=(2, width)) * gap
    sides = [things + 0.4 * rng.normal(size=things.shape) + place for place in places]
    sides = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
    return sides, {kind: side.mean(0) for kind, side in zip(("image", "text"), sides)}


def index_of(images, texts) -> VectorIndex:
    index = VectorIndex()
    for kind, vectors in (("image", images), ("text", texts)):
        items = [{"id": f"{kind}-{row}", "modality": kind} for row in range(len(vectors))]
        index.add(vectors.astype(np.float32), items, merge=False)  # several segments
    return index


@pytest.mark.parametrize("chosen", [False, True])
def test_hits_are_those_of_a_loop(chosen):
    (images, texts), means = world()
    index = index_of(images, texts)
    index.delete(["image-3", "text-7"])
    now = index.snapshot
    kinds, names = now.column("modality"), now.column("id")
    mask = np.random.default_rng(1).random(len(names)) < 0.6 if chosen else None
    query = centred(texts[0], means["text"])
    scores = {}
    for row in range(len(names)):
        if now.alive[row] and (mask is None or mask[row]):
            vector = now.vectors([row])[0].astype(np.float64) - means[kinds[row]]
            scores[row] = float(vector @ query / np.linalg.norm(vector))
    expected = sorted(scores, key=lambda row: (-scores[row], row))
    rows, cosines = search_mixed(now, query, means, 9, None, mask)
    assert rows.tolist() == expected[:9] and cosines == pytest.approx([scores[row] for row in expected[:9]], abs=1e-6)
    assert len(search_mixed(now, query, means, 500, None, mask)[0]) == len(scores)
    cut = scores[expected[3]] - 1e-9
    assert search_mixed(now, query, means, 9, cut, mask)[0].tolist() == expected[:4]
    with pytest.raises(ValueError, match="k must be at least 1"):
        search_mixed(now, query, means, 0)


def test_equal_vectors_keep_their_order():
    (images, texts), means = world(6)
    index = index_of(np.repeat(images[:1], 6, axis=0), texts)
    query = centred(images[0], means["image"])
    rows, cosines = search_mixed(index.snapshot, query, means, 3)
    assert rows.tolist() == [0, 1, 2] and cosines == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("spread", [1e-1, 1e-2, 1e-3])
def test_vectors_that_are_near_their_mean_are_ranked_as_in_float64(spread):
    rng = np.random.default_rng(1)
    places = rng.normal(size=(2, 1, 32))
    sides = places / np.linalg.norm(places, axis=-1, keepdims=True) + spread * rng.normal(size=(2, 300, 32))
    images, texts = sides / np.linalg.norm(sides, axis=-1, keepdims=True)
    means = {"image": images.mean(0), "text": texts.mean(0)}
    now = index_of(images, texts).snapshot
    kept = now.vectors(np.arange(600))
    gallery = np.concatenate([centred(kept[:300], means["image"]), centred(kept[300:], means["text"])])
    for query in gallery[:20]:
        assert (
            search_mixed(now, query, means, 5)[0].tolist() == np.argsort(-(gallery @ query), kind="stable")[:5].tolist()
        )


def test_a_vector_that_equals_its_mean_is_near_nothing():
    (images, texts), means = world(5)
    means["image"] = images.astype(np.float32)[0].astype(np.float64)
    rows, cosines = search_mixed(index_of(images, texts).snapshot, centred(texts[1], means["text"]), means, 10)
    assert len(rows) == 10 and np.isfinite(cosines).all() and abs(cosines[rows.tolist().index(0)]) < 1e-3


def test_both_modalities_make_an_index_mixed():
    (images, texts), _ = world(5)
    now = index_of(images, texts).snapshot
    assert now.is_mixed() and now.texts.tolist() == [False] * 5 + [True] * 5
    assert not now.is_mixed(~now.texts) and not now.is_mixed(now.texts)
    assert not index_of(images, texts[:0]).snapshot.is_mixed() and not VectorIndex().snapshot.is_mixed()


def test_the_thing_comes_before_the_modality():
    """A query of one modality finds its thing in the other at once, where without the means its own modality comes."""
    (images, texts), means = world(gap=3.0)
    now = index_of(images, texts).snapshot
    raw, less = [], []
    for row in range(40):
        chosen = np.ones(80, bool)
        chosen[row] = False  # the picture itself
        raw.append(now.search(images[row][None], 1, where=chosen)[0][0][0] == 40 + row)
        query = centred(images[row], means["image"])
        less.append(search_mixed(now, query, means, 1, chosen=chosen)[0][0] == 40 + row)
    assert np.mean(less) > 0.7 > 0.1 > np.mean(raw)


@pytest.fixture
def mixed(make_tiny_model, tiny_processor, tiny_pictures, tiny_captions):
    """A retriever over pictures and captions whose model knows the means."""
    model = make_tiny_model()
    retriever = Retriever(model, tiny_processor)
    images, texts = retriever.encoder.encode_image(tiny_pictures), retriever.encoder.encode_text(tiny_captions)
    model.config.image_embeds_mean, model.config.text_embeds_mean = images.mean(0).tolist(), texts.mean(0).tolist()
    retriever.add_images(tiny_pictures)
    retriever.add_texts(tiny_captions)
    return retriever, images, texts


def test_a_retriever_subtracts_the_means_of_its_model(mixed, tiny_pictures, tiny_captions):
    retriever, images, texts = mixed
    less = [F.normalize(side - side.mean(0), dim=-1) for side in (images, texts)]
    gallery, names = torch.cat(less), [f"image-{n}" for n in range(6)] + [f"text-{n}" for n in range(6)]
    queries = {
        "text": (less[1][2], {"text": tiny_captions[2]}),
        "image": (less[0][1], {"image": tiny_pictures[1]}),
        "both": (
            F.normalize(0.5 * less[1][2] + 0.5 * less[0][1], dim=0),
            {"text": tiny_captions[2], "image": tiny_pictures[1]},
        ),
        "minus": (F.normalize(less[1][2] - less[1][0], dim=0), {"text": tiny_captions[2], "minus": [tiny_captions[0]]}),
    }
    for name, (query, words) in queries.items():
        cosines = gallery @ query
        hits = retriever.search(k=12, **words)
        assert np.allclose([hit.score for hit in hits], cosines.sort(descending=True).values, atol=1e-5), name
        assert [hit.score for hit in hits] == pytest.approx(
            [float(cosines[names.index(hit.id)]) for hit in hits], abs=1e-5
        )
    hits = retriever.search(like="text-2", k=12)
    assert len(hits) == 11 and hits[0].score == pytest.approx(float((gallery @ less[1][2]).topk(2).values[1]), abs=1e-5)


def test_without_the_flag_or_within_one_modality_nothing_is_subtracted(mixed, tiny_captions):
    retriever, images, texts = mixed
    raw = (torch.cat([images, texts]) @ texts[2]).sort(descending=True).values
    assert np.allclose([hit.score for hit in retriever.search(tiny_captions[2], k=12, means=False)], raw, atol=1e-5)
    among = retriever.search(tiny_captions[2], k=6, among="image")
    assert np.allclose([hit.score for hit in among], (images @ texts[2]).sort(descending=True).values, atol=1e-5)
    retriever.index.note(cutoff={"text": 2.0})  # of cosines before the subtraction
    assert len(retriever.search(tiny_captions[2], k=12)) == 12
    assert retriever.search(tiny_captions[2], k=12, means=False) == []
