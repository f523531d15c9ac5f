"""What is said of embeddings, against brute force; and of tiny models on painted pictures."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from photos import jpeg
from torch.nn import functional as F

from vsehub.data.arguments import DataArguments
from vsehub.evaluation.analyse import analysis, dense_recall, describe, recall_by_width
from vsehub.evaluation.ranking import image_text_metrics
from vsehub.evaluation.tables import analysis_table

WORDS = ["dog", "cat", "river", "boat", "tree", "ball", "woman", "man"]


def made(images: int = 12, width: int = 16, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    vectors = F.normalize(torch.randn(images, width, generator=generator), dim=-1)
    texts = vectors.repeat_interleave(2, 0) + 0.3 * torch.randn(2 * images, width, generator=generator)
    return vectors, F.normalize(texts, dim=-1), torch.arange(images).repeat_interleave(2)


def test_a_caption_is_looked_for_among_all_dense_texts():
    _, texts, owners = made()
    dense = F.normalize(torch.randn(12, 16, generator=torch.Generator().manual_seed(1)), dim=-1)
    order = (texts @ dense.t()).argsort(1, descending=True)
    for k in (1, 5, 10):
        expected = 100 * np.mean([int(owner) in row[:k].tolist() for owner, row in zip(owners, order)])
        assert dense_recall(texts, dense, owners)[f"recall@{k}"] == pytest.approx(expected)
    same = torch.ones(12, 16) / 4
    assert dense_recall(texts, same, owners)["recall@1"] == pytest.approx(100 / 12)  # equal scores: chance


def test_recall_by_width_is_that_of_the_first_numbers():
    images, texts, owners = made()
    rows = recall_by_width((images, texts, owners), (4, 8))
    assert [row["width"] for row in rows] == [4, 8, 16]
    cut = [F.normalize(side[:, :4], dim=-1) for side in (images, texts)]
    assert rows[0]["rsum"] == pytest.approx(image_text_metrics(*cut, owners)["rsum"])
    assert rows[2]["rsum"] == pytest.approx(image_text_metrics(images, texts, owners)["rsum"])
    with pytest.raises(ValueError, match="width 17: these embeddings have 16 numbers"):
        recall_by_width((images, texts, owners), (17,))


def test_spaces_that_differ_in_one_respect_differ_in_its_measure():
    images, texts, owners = made()
    captions = ["a dog"] * 24
    plain = describe((images, texts, owners), captions)
    flat = [F.normalize(side * torch.tensor([1.0] * 4 + [0.01] * 12), dim=-1) for side in (images, texts)]
    assert describe((*flat, owners), captions)["image"]["effective_rank"] < plain["image"]["effective_rank"]
    apart = F.normalize(texts + torch.eye(16)[0], dim=-1)
    assert describe((images, apart, owners), captions)["modality_gap"] > plain["modality_gap"] + 0.3
    assert plain["dimension"] == 16 and len(plain["image"]["spectrum"]) == 12
    assert sum(plain["text"]["spectrum"]) == pytest.approx(1, abs=1e-5)
    assert "dense_recall" not in plain and plain["recall_by_words"][0]["texts"] == 24


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Twelve painted pictures with two captions and a dense text each."""
    numbers = range(12)
    captions = [[f"a {WORDS[n % 8]}", f"two {WORDS[n // 2]} and a {WORDS[n % 8]}"] for n in numbers]
    dense = [" ".join(texts) + f" near a {WORDS[(n + 3) % 8]}" for n, texts in enumerate(captions)]
    ids = [str(number) for number in numbers]
    rows = {
        "image": [{"bytes": jpeg(n), "path": None} for n in numbers],
        "captions": captions,
        "image_id": ids,
        "dense_text": dense,
    }
    path = tmp_path_factory.mktemp("analyse") / "data.parquet"
    Dataset.from_dict(rows).to_parquet(str(path))
    return path


def test_several_models_stand_side_by_side(source, tiny_folder, dual_folder, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    clip = str(dual_folder("clip"))
    results = analysis([str(tiny_folder), clip], DataArguments(data=str(source)), "validation", widths=(4,))
    assert caplog.text.count("was not trained for width 4") == 2
    ours, theirs = results.values()
    assert ours["dimension"] != theirs["dimension"] or ours["rsum"] != theirs["rsum"]
    assert set(ours["dense_recall"]) == {"recall@1", "recall@5", "recall@10"}
    lines = analysis_table(results).splitlines()
    assert lines[0] == "12 images, 24 captions" and all(name in lines[1] for name in results)
    row = next(line for line in lines if line.startswith("effective rank, images"))
    assert row.split()[-2:] == [f"{each['image']['effective_rank']:.1f}" for each in (ours, theirs)]
    narrow = lines[lines.index("rSum by the first numbers of the embedding") + 1].split()
    assert narrow == ["4", *(f"{each['recall_by_width'][0]['rsum']:.1f}" for each in (ours, theirs))]


def test_dense_texts_may_come_from_elsewhere_or_be_absent(source, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Dataset.from_parquet(str(source)).remove_columns("dense_text").to_parquet("plain.parquet")
    given = DataArguments(data="./plain.parquet")
    assert "dense_recall" not in next(iter(analysis([str(tiny_folder)], given, "validation").values()))
    given = DataArguments(data="./plain.parquet", dense_text="union")
    result = next(iter(analysis([str(tiny_folder)], given, "validation", need_dense=True).values()))
    assert result["dense_recall"]["recall@10"] > 0


def test_dense_texts_that_some_images_lack_are_left_out_and_told(source, tiny_folder, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    rows = Dataset.from_parquet(str(source))
    some = rows.remove_columns("dense_text").add_column("dense_text", ["a dog"] * 9 + ["", " ", None])
    some.to_parquet("some.parquet")
    result = next(iter(analysis([str(tiny_folder)], DataArguments(data="./some.parquet"), "validation").values()))
    assert "dense_recall" not in result and "3 of 12 images have no dense text" in caplog.text


def test_one_image_is_refused(source, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="one image has no geometry"):
        analysis([str(tiny_folder)], DataArguments(data=str(source), max_eval_images=1), "validation")


@pytest.mark.parametrize("split", ["test", "test_2017"])
def test_a_test_split_is_left_to_evaluate(split):
    with pytest.raises(ValueError, match=f"--split {split}: .*name a validation split"):
        analysis(["org/any"], DataArguments(data="org/pairs"), split)
