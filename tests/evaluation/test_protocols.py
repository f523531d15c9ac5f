"""Protocols by name: shapes, ground truth, and agreement with brute force and with the package `eccv_caption`."""

import json

import numpy as np
import pytest

from vsehub.evaluation.ground_truth import coco_id, read_ground_truth
from vsehub.evaluation.protocols import PROTOCOLS, Protocol, captions_that_count, protocol_outcomes, protocols_outcomes
from vsehub.evaluation.ranking import folded_metrics, image_text_metrics


def unit(*shape, seed=0):
    values = np.random.default_rng(seed).normal(size=shape)
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """COCO of 10 images with ids 100 ... and 2 captions each, its ground-truth folder, and protocols of that size."""
    for name in ("coco-5k", "coco-1k", "cxc", "eccv"):
        old = PROTOCOLS[name]
        new = Protocol("tiny", 10, 2, spare=True, folds=old.folds, truth=old.truth)
        monkeypatch.setitem(PROTOCOLS, name, new)
    captions = np.arange(1000, 1020)
    np.save(tmp_path / "coco_test_ids.npy", captions)
    own = {int(caption): [100 + place // 2] for place, caption in enumerate(captions)}
    rng = np.random.default_rng(0)
    more = {
        caption: sorted({*images, int(rng.integers(100, 110))}) for caption, images in own.items() if caption != 1003
    }
    few = {caption: images for caption, images in more.items() if caption % 3 == 0}
    for name, content in (("original", own), ("cxc", more), ("eccv", few)):
        back = {}
        for caption, images in content.items():
            for image in images:
                back.setdefault(image, []).append(caption)
        if name == "eccv":
            back[next(iter(back))].append(77)  # two of the real ones are no captions of the test set either
        (tmp_path / f"{name}_caption_to_image.json").write_text(json.dumps(content))
        (tmp_path / f"{name}_image_to_caption.json").write_text(json.dumps(back))
    return tmp_path


def by_hand(scores, positives):
    """R@1, R@5, MAP@R, R-Precision in per cent of queries {row: set of items}."""
    found = []
    for row, those in positives.items():
        right = [int(item in those) for item in np.argsort(-scores[row])]
        wanted = len(those)
        precision = [sum(right[: r + 1]) / (r + 1) * right[r] for r in range(wanted)]
        found.append([any(right[:1]), any(right[:5]), sum(precision) / wanted, sum(right[:wanted]) / wanted])
    return 100 * np.mean(found, axis=0)


@pytest.mark.parametrize("name", ["cxc", "eccv"])
def test_ground_truths_equal_loops_in_any_order_of_the_images(name, tiny):
    truth = read_ground_truth(name, tiny)
    images, texts, owners = unit(10, 4), unit(20, 4, seed=1), np.repeat(np.arange(10), 2)
    order = np.random.default_rng(2).permutation(10)
    ids = [f"COCO_val2014_{100 + image:012}.jpg" for image in order]
    found = protocol_outcomes(name, images, texts, owners, image_ids=ids, truth=truth).metrics()
    text_of = {1000 + 2 * image + place: 2 * row + place for row, image in enumerate(order) for place in range(2)}
    image_of = {100 + image: row for row, image in enumerate(order)}
    positives = {
        "image_to_text": {
            image_of[i]: {text_of.get(c) for c in those} for i, those in truth.positives["image_to_text"].items()
        },
        "text_to_image": {
            text_of[c]: {image_of[i] for i in those} for c, those in truth.positives["text_to_image"].items()
        },
    }
    for way, scores in (("image_to_text", images @ texts.T), ("text_to_image", texts @ images.T)):
        first, five, precision, r_precision = by_hand(scores, positives[way])
        assert found[f"{way}_recall@1"] == pytest.approx(first)
        if name == "cxc":
            assert found[f"{way}_recall@5"] == pytest.approx(five)
        else:
            assert found[f"{way}_map@r"] == pytest.approx(precision)
            assert found[f"{way}_r_precision"] == pytest.approx(r_precision)
    assert ("rsum" in found) == (name == "cxc")


def test_protocols_together_are_protocols_apart(tiny):
    given = {"image_embeds": unit(10, 4), "text_embeds": unit(23, 4, seed=1), "image_ids": range(100, 110)}
    given["text_to_image"] = np.array([*np.repeat(np.arange(10), 2), 3, 3, 0])
    truths = {name: None for name in ("coco-1k", "recall", "coco-5k")}
    truths |= {name: read_ground_truth(name, tiny) for name in ("eccv", "cxc")}
    together = protocols_outcomes(truths, **given)
    assert list(together) == list(truths)
    for name, truth in truths.items():
        alone = protocol_outcomes(name, **given, truth=truth)
        assert together[name].metrics() == alone.metrics() and together[name].sums == alone.sums


def test_caption_ids_may_say_which_caption_is_which(tiny):
    truth = read_ground_truth("cxc", tiny)
    images, texts, owners, ids = unit(10, 4), unit(20, 4, seed=1), np.repeat(np.arange(10), 2), range(100, 110)
    swap = np.arange(20).reshape(10, 2)[:, ::-1].reshape(-1)
    plain = protocol_outcomes("cxc", images, texts, owners, image_ids=ids, truth=truth).metrics()
    given = {"image_ids": ids, "caption_ids": 1000 + swap, "truth": truth}
    assert protocol_outcomes("cxc", images, texts[swap], owners, **given).metrics() == pytest.approx(plain)


def test_the_wrong_images_and_captions_are_named(tiny):
    truth = read_ground_truth("cxc", tiny)
    given = {"image_embeds": unit(10, 4), "text_embeds": unit(20, 4), "text_to_image": np.repeat(np.arange(10), 2)}
    with pytest.raises(ValueError, match=r"1 are missing \[109\], 1 are others \[7\]"):
        protocol_outcomes("cxc", **given, image_ids=[*range(100, 109), 7], truth=truth)
    with pytest.raises(ValueError, match="captions of the ground truth are missing"):
        protocol_outcomes("cxc", **given, image_ids=range(100, 110), caption_ids=np.arange(20), truth=truth)
    with pytest.raises(ValueError, match="does not end in a COCO id"):
        coco_id("dog")
    assert coco_id("COCO_val2014_000000391895.jpg") == coco_id(391895) == 391895


def test_spare_captions_are_left_out_and_too_few_are_named(tiny):
    owners = np.array([*np.repeat(np.arange(10), 2), 3, 3, 0])
    assert captions_that_count("coco-5k", 10, owners).tolist() == list(range(20))
    images, texts = unit(10, 4), unit(23, 4, seed=1)
    found = protocol_outcomes("coco-5k", images, texts, owners).metrics()
    assert found == pytest.approx(image_text_metrics(images, texts[:20], owners[:20]))
    with pytest.raises(ValueError, match="first row 9 with 1"):
        captions_that_count("coco-5k", 10, owners[:19])
    with pytest.raises(ValueError, match="needs 10 images, these are 9"):
        captions_that_count("coco-5k", 9, owners)
    with pytest.raises(ValueError, match="no protocol 'coco'; there are recall, flickr30k-1k"):
        captions_that_count("coco", 9, owners)
    with pytest.raises(ValueError, match="rsitmd needs 5 captions of each image; 1 .* row 7 with 6"):
        captions_that_count("rsitmd", 452, [*np.repeat(np.arange(452), 5), 7])


def test_folds_are_means_of_the_parts(tiny):
    images, texts, owners = unit(10, 4), unit(20, 4, seed=1), np.repeat(np.arange(10), 2)
    found, expected = protocol_outcomes("coco-1k", images, texts, owners), folded_metrics(images, texts, owners, 5)
    metrics = found.metrics()
    assert metrics == pytest.approx({key: expected[key] for key in metrics})
    assert set(expected) - set(metrics) == {"image_to_text_median_rank", "text_to_image_median_rank"}
    assert found.images["text_to_image"].tolist() == owners.tolist()


def test_shared_captions_add_their_recalls():
    images, owners = unit(4, 3), np.repeat(np.arange(4), 2)
    texts = unit(8, 3, seed=1)
    with_shared = protocol_outcomes("recall", images, texts, owners, texts=["a port", *"bcdefg", "A  port"]).metrics()
    without = protocol_outcomes("recall", images, texts, owners, texts=list("abcdefgh")).metrics()
    assert set(with_shared) - set(without) >= {"duplicate_aware_mean_recall"}
    assert without == pytest.approx({key: with_shared[key] for key in without})


def test_the_package_of_the_authors_agrees():
    """COCO-5K shapes; the package needs ranked lists, of which it looks at the first 48 at most."""
    package = pytest.importorskip("eccv_caption", reason="eccv_caption is not installed (extra `eccv`)")
    reference = package.Metrics()
    captions = reference.coco_ids
    owner_ids = np.array([reference.coco_gts["t2i"][int(caption)][0] for caption in captions])
    image_ids, owners = owner_ids[::5], np.repeat(np.arange(5000), 5)
    images = unit(5000, 32)
    texts = images[owners] + unit(25000, 32, seed=1)
    scores = images @ texts.T
    top = [np.argpartition(-part, 50, axis=1)[:, :50] for part in (scores, scores.T)]
    top = [np.take_along_axis(t, np.argsort(-np.take_along_axis(s, t, 1)), 1) for t, s in zip(top, (scores, scores.T))]
    ranked = {
        "i2t_retrieved_items": dict(zip(image_ids.tolist(), captions[top[0]].tolist())),
        "t2i_retrieved_items": dict(zip(captions.tolist(), image_ids[top[1]].tolist())),
    }
    wanted = ("coco_5k_recalls", "cxc_recalls", "eccv_r1", "eccv_map_at_r", "eccv_rprecision")
    expected = reference.compute_all_metrics(**ranked, target_metrics=wanted)
    given = {"image_embeds": images, "text_embeds": texts, "text_to_image": owners, "image_ids": image_ids}
    truths = {"coco-5k": None, "cxc": read_ground_truth("cxc"), "eccv": read_ground_truth("eccv")}
    together = protocols_outcomes(truths, **given)
    for name, keys in (
        ("coco-5k", {f"recall@{k}": f"coco_5k_r{k}" for k in (1, 5, 10)}),
        ("cxc", {f"recall@{k}": f"cxc_r{k}" for k in (1, 5, 10)}),
        ("eccv", {"recall@1": "eccv_r1", "map@r": "eccv_map_at_r", "r_precision": "eccv_rprecision"}),
    ):
        found = together[name].metrics()
        for key, theirs in keys.items():
            for way, short in (("image_to_text", "i2t"), ("text_to_image", "t2i")):
                assert found[f"{way}_{key}"] == pytest.approx(100 * expected[theirs][short], abs=1e-9), (name, key)
