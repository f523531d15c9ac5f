"""Teachers as columns: whose they are is checked, and a killed run goes on."""

import shutil
from dataclasses import replace

import pytest
import torch
from datasets import load_dataset
from safetensors.torch import load_file, save_file
from small_runs import teachers_command

from vsehub.__main__ import main
from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows, row_image
from vsehub.training import teachers, train_teachers
from vsehub.training.inputs.teacher_columns import CHECKSUM, IMAGE, TEXT, VIEWS, read_teachers
from vsehub.training.inputs.views import Views


def test_every_row_has_the_features_of_its_own_picture_and_captions(taught):
    root, _ = taught
    rows = prepare_rows(DataArguments(data=str(root / "taught")), "train", None, need_dense=True)
    features = read_teachers(rows)
    assert features.image.shape == (24, 1, 32) and [x.shape for x in features.text] == [(2, 32)] * 24
    image, text = teachers.ImageTeacher(str(root / "vit"), "cpu"), teachers.TextTeacher(str(root / "bert"), "cpu")
    for row in (0, 23):
        picture = row_image(rows[row])
        assert torch.allclose(
            features.image[row, 0].float(),
            torch.from_numpy(image.embed(image.prepare([picture]))[0]).float(),
            atol=2e-3,
        )
        alone = text.embed(text.prepare([rows[row]["captions"][1]]))[0]
        assert torch.allclose(features.text[row][1].float(), torch.from_numpy(alone).float(), atol=2e-3)


def test_captions_teach_images_where_that_is_asked_for(taught, tmp_path, capsys):
    """An image's feature is the mean of the unit vectors of its captions, and new captions are new features."""
    root, _ = taught
    command = ["teachers", str(root / "data"), "--vision", "captions", "--out", str(tmp_path / "out")]
    assert main(command) == 2 and "--vision captions needs --text" in capsys.readouterr().err
    assert main([*command, "--text", str(root / "bert"), "--views", "2"]) == 0
    rows = prepare_rows(DataArguments(data=str(tmp_path / "out")), "train", None, need_dense=False)
    features = read_teachers(rows)
    assert features.image.shape == (24, 2, 32) and torch.equal(features.image[:, 0], features.image[:, 1])
    for row in (0, 23):
        expected = torch.nn.functional.normalize(features.text[row].float(), dim=-1).mean(0)
        torch.testing.assert_close(features.image[row, 0].float(), expected, atol=2e-3, rtol=0)
    assert not torch.allclose(features.image[0, 0].float(), features.image[1, 0].float(), atol=1e-3)


def test_a_killed_run_goes_on_and_gives_the_same(taught, monkeypatch):
    root, _ = taught
    monkeypatch.setattr(teachers, "PART", 10)
    calls = []

    class Dying(teachers.ImageTeacher):
        def prepare(self, images):
            calls.append(len(images))
            if len(calls) == 2:
                raise KeyboardInterrupt
            return super().prepare(images)

    monkeypatch.setattr(teachers, "ImageTeacher", Dying)
    assert main(teachers_command(root, "again")) == 130
    assert main(teachers_command(root, "again")) == 0
    assert calls == [10, 10, 10, 4]  # the first part was not made twice
    first, again = (
        load_dataset(str(root / name), split="train").remove_columns("image") for name in ("taught", "again")
    )
    assert first[:] == again[:]


@pytest.mark.parametrize(("flag", "column", "other"), [("--image", IMAGE, TEXT), ("--text", TEXT, IMAGE)])
def test_one_teacher_alone_leaves_its_column_alone(taught, tmp_path, flag, column, other):
    root, _ = taught
    source = {"--image": "vit", "--text": "bert"}[flag]
    words = ["teachers", str(root / "data"), flag, str(root / source), "--out", str(tmp_path / "one")]
    assert main(words) == 0
    both, one = (load_dataset(str(folder), split="train") for folder in (root / "taught", tmp_path / "one"))
    assert one[column] == both[column] and one[CHECKSUM] == both[CHECKSUM]
    assert other not in one.column_names and (VIEWS in one.column_names) == (column == IMAGE)


def test_features_of_another_teacher_or_of_other_training_have_another_place(taught, tmp_path):
    root, _ = taught
    rows = prepare_rows(DataArguments(data=str(root / "data")), "train", None, need_dense=False)
    vit = shutil.copytree(root / "vit", tmp_path / "vit")
    options = teachers.TeacherOptions(out="", image=str(vit), text=str(root / "bert"), train_teachers=1)
    facts = [
        teachers._facts(options, rows),
        teachers._facts(replace(options, image_augmentation="rand_augment"), rows),
        teachers._facts(options, rows.select(range(12))),
        teachers._facts(replace(options, train_teachers=0), rows),
    ]
    assert teachers._facts(options, rows) == facts[0]
    assert teachers._facts(replace(options, train_teachers=0), rows.select(range(12))) == facts[3]
    save_file(load_file(vit / "model.safetensors"), vit / "model.safetensors", {"format": "pt", "trained": "again"})
    facts += [teachers._facts(options, rows), teachers._facts(replace(options, train_teachers=0), rows)]
    assert len({str(fact) for fact in facts}) == len(facts)


def test_features_of_another_commit_of_a_repository_have_another_place(taught, tmp_path, monkeypatch):
    root, _ = taught
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    place, facts = tmp_path / "models--org--vit", []
    (place / "refs").mkdir(parents=True)
    for commit in ("a" * 40, "b" * 40):
        shutil.copytree(root / "vit", place / "snapshots" / commit)
        (place / "refs" / "main").write_text(commit)
        facts.append(teachers._facts(teachers.TeacherOptions(out="", image="org/vit"), None))
    assert facts[0] != facts[1]


@pytest.mark.parametrize(("views", "column"), [(2, "image_id"), (1, "bands")])
def test_what_decides_the_pixels_of_a_picture_decides_its_features(taught, tmp_path, views, column):
    """Views are drawn from ids, and a scene's pixels follow from its bands: parts of others are not used again."""
    root, _ = taught
    rows = prepare_rows(DataArguments(data=str(root / "data"), bands=[1, 2, 3]), "train", None, need_dense=False)
    rows = rows.select(range(2))
    image, views = teachers.ImageTeacher(str(root / "vit"), "cpu"), Views(views, "crop")
    teachers.add_teachers(rows, image, None, tmp_path, views=views)
    other = {"image_id": ["x", "y"], "bands": [[3, 2, 1]] * 2}[column]
    rows = rows.remove_columns([column]).add_column(column, other)
    again = teachers.add_teachers(rows, image, None, tmp_path, views=views)
    anew = teachers.add_teachers(rows, image, None, tmp_path / "anew", views=views)
    assert again[IMAGE] == anew[IMAGE]


def test_features_in_bfloat16_are_near_and_are_not_mixed_with_others(taught, tmp_path):
    root, _ = taught
    command = ["teachers", str(root / "data"), "--vision", str(root / "vit"), "--text", str(root / "bert")]
    assert main([*command, "--out", str(tmp_path / "out")]) == main([*command, "--out", str(tmp_path / "out2")]) == 0
    assert main([*command, "--out", str(tmp_path / "out"), "--dtype", "bfloat16"]) == 0
    half, exact = (
        read_teachers(prepare_rows(DataArguments(data=str(tmp_path / out)), "train", None, need_dense=False))
        for out in ("out", "out2")
    )
    near = torch.nn.functional.cosine_similarity(half.image[:, 0].float(), exact.image[:, 0].float())
    assert not torch.equal(half.image, exact.image) and near.min() > 0.99


def test_new_captions_leave_the_images_features_alone(taught, monkeypatch, tmp_path):
    root, _ = taught
    rows = prepare_rows(DataArguments(data=str(root / "data")), "train", None, need_dense=False)
    image, text = teachers.ImageTeacher(str(root / "vit"), "cpu"), teachers.TextTeacher(str(root / "bert"), "cpu")
    first = teachers.add_teachers(rows, image, text, tmp_path)
    monkeypatch.setattr(image, "model", None)  # a picture that is embedded again would fail
    other = rows.remove_columns("captions").add_column("captions", [["another"]] * len(rows))
    second = teachers.add_teachers(other, image, text, tmp_path)
    assert second[IMAGE] == first[IMAGE] and second[TEXT] != first[TEXT] and second[CHECKSUM] != first[CHECKSUM]
    assert len(read_teachers(second).text[0]) == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--views", "0"], "--views: must be a whole number from 1 to 1024"),
        (["--batch_size", "-1"], "--batch_size: must be a whole number of at least 1"),
        (["--train_teachers", "nan"], "must be a number from 0 to"),
        (["--train_teachers", "-1"], "must be a number from 0 to"),
        (["--temperature", "0"], "must be a number above 0"),
        (["--image_column", "picture"], "has no column 'picture'"),
    ],
)
def test_wrong_flags_are_refused_before_any_work(taught, flags, said, capsys, monkeypatch):
    root, _ = taught
    monkeypatch.setattr(train_teachers, "_fit", lambda *args: pytest.fail("trained"))
    assert main([*teachers_command(root, "wrong"), *flags]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--splits", "--copy"])
def test_a_part_of_a_split_is_refused_since_no_file_of_it_would_be_found(taught, tmp_path, capsys, flag):
    assert main([*teachers_command(taught[0], tmp_path), flag, "train[:50%]"]) == 2
    assert "features are made of whole splits; name train, and the parts when you train" in capsys.readouterr().err


def test_no_teacher_at_all_is_refused(taught, tmp_path, capsys):
    assert main(["teachers", str(taught[0] / "data"), "--out", str(tmp_path / "none")]) == 2
    assert "set --vision, --text or both" in capsys.readouterr().err


def test_a_folder_that_holds_something_else_is_left_alone(taught, tmp_path, capsys):
    root, _ = taught
    (tmp_path / "file").write_text("mine")
    kept = lambda: {path: path.stat().st_mtime_ns for top in (tmp_path, root / "data") for path in top.rglob("*")}  # noqa: E731
    before = kept()
    for out, said in (("data", "holds other files"), (tmp_path, "holds other files"), (tmp_path / "file", "is a file")):
        assert main(teachers_command(root, out)) == 2
        assert said in capsys.readouterr().err
    assert kept() == before


def test_features_are_made_again_of_data_that_have_some_and_of_a_torn_part(taught, tmp_path):
    root, _ = taught
    taught = [
        *teachers_command(root, tmp_path / "again")[:1],
        str(root / "taught"),
        *teachers_command(root, tmp_path / "again")[2:],
    ]
    assert main(taught) == 0
    part = next((tmp_path / "again" / ".parts").rglob(f"{IMAGE}-*.parquet"))
    part.write_bytes(part.read_bytes()[:50])
    assert main(taught) == 0
    found = [load_dataset(str(folder), split="train") for folder in (root / "taught", tmp_path / "again")]
    assert found[0][IMAGE] == found[1][IMAGE] and sorted(found[0].column_names) == sorted(found[1].column_names)
