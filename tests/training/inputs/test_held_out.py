"""One table is two splits only where the user says so, and no picture of the evaluation trains."""

import pytest
from datasets import Dataset
from photos import jpeg
from small_runs import run

from vsehub.data.arguments import DataArguments
from vsehub.data.rows import SOURCE_ROW
from vsehub.training.inputs.held_out import parts_of_one_split, without_pictures_of


def arguments(path, train="train", evaluation="validation"):
    return DataArguments(data=str(path), train_split=train, eval_split=evaluation)


@pytest.fixture
def table(tmp_path):
    (tmp_path / "pairs.csv").write_text("image,captions\na.jpg,a dog\n")
    return tmp_path / "pairs.csv"


@pytest.mark.parametrize("splits", [("train", "validation"), ("train[:90%]", "validation"), ("train", "train[90%:]")])
def test_a_table_without_splits_is_refused_with_the_remedies(table, splits):
    with pytest.raises(ValueError, match=r"pairs_{split}.csv\), or two parts: --train_split 'train\[:95%\]'"):
        parts_of_one_split(arguments(table, *splits))


@pytest.mark.parametrize("content", ["[]", '\ufeff [{"image": "a.jpg"}]', '{"images": [], "annotations" : []}'])
def test_a_json_list_and_cocos_annotations_are_a_table_and_karpathys_json_has_splits(tmp_path, content):
    (tmp_path / "list.JSON").write_text(content)
    (tmp_path / "splits.json").write_text('{"images": []}')
    with pytest.raises(ValueError, match="is one table without splits"):
        parts_of_one_split(arguments(tmp_path / "list.JSON"))
    assert not parts_of_one_split(arguments(tmp_path / "splits.json"))


def test_two_tables_folders_and_one_split_twice_are_left_to_the_user(table):
    assert not parts_of_one_split(arguments(table, "train", "train"))
    assert not parts_of_one_split(arguments(table.parent))
    assert not parts_of_one_split(arguments(table.parent / "{split}.csv"))
    assert parts_of_one_split(arguments(table, "train[:90%]", "train[90%:]"))
    assert parts_of_one_split(arguments("org/pairs", "train[:90%]", "train[90%:]"))
    assert not parts_of_one_split(arguments("org/pairs", "train[:90%]", "test[:90%]"))


@pytest.mark.parametrize("images", ["abcb", [jpeg(1), jpeg(2), jpeg(3), jpeg(2)]])
def test_pictures_of_the_evaluation_do_not_train_and_rows_keep_their_numbers(images, capsys):
    images = [
        {"bytes": image, "path": None} if isinstance(image, bytes) else {"bytes": None, "path": image}
        for image in images
    ]
    train, evaluation = (Dataset.from_list([{"image": image} for image in part]) for part in (images, images[1:2]))
    kept = without_pictures_of(train, evaluation)
    assert kept[SOURCE_ROW][:] == [0, 2] and kept["image"][:] == [images[0], images[2]]
    assert "2 picture(s) of both splits are evaluated on, and left out of training" in capsys.readouterr().err
    assert without_pictures_of(evaluation, train.select([0])) is evaluation
    with pytest.raises(ValueError, match="each picture that trains is evaluated on, too"):
        without_pictures_of(evaluation, train)


def test_pairs_of_a_csv_train_beside_their_pictures_and_none_of_those_that_are_evaluated(scenes, tmp_path, capsys):
    """The rows of a picture lie apart in the table, so both parts of it hold the first three."""
    for index in range(10):
        (tmp_path / f"{index}.jpg").write_bytes(jpeg(index))
    numbers = [*range(9), *range(10)]
    lines = ["picture,text", *(f'{number}.jpg,"a dog, number {row}"' for row, number in enumerate(numbers))]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    words = [
        "--data",
        str(tmp_path / "pairs.csv"),
        *scenes[2:],
        "--image_column",
        "picture",
        "--captions_column",
        "text",
    ]
    words += ["--stages", "baseline", "--per_device_train_batch_size", "4"]
    with pytest.raises(ValueError, match="is one table without splits"):
        run(words, tmp_path / "out")
    run([*words, "--train_split", "train[3:]", "--eval_split", "train[:3]"], tmp_path / "out")
    said = capsys.readouterr()
    assert "3 picture(s) of both splits are evaluated on, and left out of training" in said.err
    assert "7 pictures, 13 texts; 3 pictures to evaluate" in said.out + said.err
