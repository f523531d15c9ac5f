"""Generated overhead scenes: equal seeds, true captions, masks of the objects."""

from datasets import load_dataset

from vsehub.demos.generated_overhead import (
    CLASSES,
    generate,
    object_mask,
    scene_of,
    words,
    write_dataset,
)


def test_equal_seeds_give_equal_scenes_and_others_give_others():
    first, again, other = (generate(10, seed).with_format(None) for seed in (0, 0, 1))
    assert first["captions"] == again["captions"] != other["captions"]
    assert first[3]["image"] == again[3]["image"] != other[3]["image"]


def test_splits_are_read_by_datasets_and_every_caption_is_true_and_known(tmp_path):
    write_dataset(tmp_path, train=16, validation=8, test=8)
    rows = load_dataset(str(tmp_path), split="train")
    assert rows.features["label"].names == list(CLASSES) and rows[0]["image"].size == (64, 64)
    for index, row in enumerate(rows):
        scene, _ = scene_of(0, index)
        for caption in row["captions"]:
            said = caption.split()
            assert set(said) <= set(words())
            for fact, names in (
                ("ground", ("green", "brown", "grey", "sandy")),
                ("colour", ("white", "red", "blue", "yellow")),
            ):
                assert all(word == scene[fact] for word in said if word in names)


def test_the_mask_covers_the_objects_alone():
    for index in range(8):
        mask, (left, top, side) = object_mask(0, index, 8), scene_of(0, index)[0]["box"]
        assert 4 <= mask.sum() <= 36 and mask.shape == (8, 8)
        assert mask[int((top + side / 2) // 8), int((left + side / 2) // 8)]
