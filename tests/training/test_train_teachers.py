"""Teachers that first learn from the data, each within its modality."""

import pytest
import torch
from small_runs import teachers_command
from transformers import BertModel, ViTModel

from vsehub.__main__ import main
from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows
from vsehub.losses.contrastive import nt_xent
from vsehub.training import teachers, train_teachers
from vsehub.training.inputs.teacher_columns import read_teachers
from vsehub.training.inputs.views import Views


def test_teachers_learn_from_the_data_first_and_only_once(taught, monkeypatch, capsys):
    root, _ = taught
    flags = ["--train-teachers", "2", "--train_batch_size", "8", "--learning_rate", "1e-3", "--views", "2"]
    assert main([*teachers_command(root, "learned"), *flags]) == 0
    folder = next((root / "learned" / ".teachers").iterdir())
    for kind, model_class, source in (("image", ViTModel, "vit"), ("text", BertModel, "bert")):
        learned, before = (
            model_class.from_pretrained(path, add_pooling_layer=False).state_dict()
            for path in (folder / kind, root / source)
        )
        assert any(not torch.equal(learned[name], before[name]) for name in before)
    rows = prepare_rows(DataArguments(data=str(root / "learned")), "train", None, need_dense=False)
    teacher = teachers.TextTeacher(str(folder / "text"), "cpu")
    text = teacher.embed(teacher.prepare(rows[5]["captions"][:1]))[0]
    assert torch.allclose(read_teachers(rows).text[5][0].float(), torch.from_numpy(text).float(), atol=2e-3)
    monkeypatch.setattr(train_teachers, "SealedCheckpoints", None)  # training again would fail
    assert main([*teachers_command(root, "learned"), *flags]) == 0
    losses = []
    for path in (root / "vit", folder / "image"):  # what it was trained for: views of one image are alike
        teacher = teachers.ImageTeacher(str(path), "cpu")
        pictures = [Views(3).open(row, view, 32) for row in rows for view in (1, 2)]
        features = torch.from_numpy(teacher.embed(teacher.prepare(pictures))).float()
        unit = torch.nn.functional.normalize(features, dim=-1)
        losses.append(nt_xent(unit[::2], unit[1::2], 0.1).item())
    assert losses[1] < losses[0]


def test_a_text_teacher_needs_two_captions(taught):
    root, _ = taught
    rows = prepare_rows(DataArguments(data=str(root / "data")), "train", None, need_dense=False)
    single = rows.remove_columns("captions").add_column("captions", [["one"]] * len(rows))
    with pytest.raises(ValueError, match="two different captions"):
        train_teachers.train_text_teacher(str(root / "bert"), single, root / "none", {"temperature": 0.1})


def test_a_text_teacher_needs_several_captions_of_an_image():
    with pytest.raises(ValueError, match="two different captions, and the data have 1 of them"):
        train_teachers.several_captions({"captions": [["a boat", "a ship"], ["a dog", "a dog"], ["a cat"]]})
