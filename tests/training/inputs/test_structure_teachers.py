"""Which features teach the structure: columns of the data, or what the run has anyway."""

import json

import pytest
import torch
from datasets import Dataset
from small_runs import COMMON, SMALL, teachers_command

from vsehub.__main__ import main
from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows
from vsehub.demos.generated_overhead import write_dataset as write_overhead
from vsehub.demos.generated_overhead import write_towers as write_overhead_towers
from vsehub.training import run_d2s, teachers
from vsehub.training import run_pir as run_pir_script
from vsehub.training.inputs.pairs import PairDataset
from vsehub.training.inputs.structure_teachers import StructureTeachers
from vsehub.training.inputs.teacher_columns import read_teachers


def test_student_and_teacher_see_the_same_crop(taught, tmp_path, tiny_processor):
    root, _ = taught
    assert main([*teachers_command(root, "views"), "--views", "3"]) == 0
    rows = prepare_rows(DataArguments(data=str(root / "views")), "train", None, need_dense=False)
    dataset = PairDataset(rows, tiny_processor, image_augmentation="crop", with_teachers=True)
    teacher, seen = teachers.ImageTeacher(str(root / "vit"), "cpu"), set()
    for epoch in range(12):
        dataset.set_epoch(epoch)
        for position in (0, 7):
            item = dataset[position]
            assert item["image_teacher"].shape == (32,)
            again = torch.from_numpy(teacher.embed(teacher.prepare([item["image"]]))[0])
            assert torch.allclose(item["image_teacher"].float(), again.float(), atol=2e-3)
            seen.add((position, item["image_teacher"].float().sum().item()))
    assert len(seen) == 2 * 3  # all views come up
    with pytest.raises(ValueError, match="--image_augmentation crop"):
        PairDataset(rows, tiny_processor, image_augmentation="rand_augment")


def test_d2s_takes_structure_in_its_second_stage(taught, tmp_path):
    _, student = taught
    flags = [*student, *SMALL, "--text_augmentation", "0", "--structure_weight", "0.5", "--output_dir", str(tmp_path)]
    assert run_d2s.main(flags) == 0
    assert set(json.loads((tmp_path / "validation.json").read_text())) == {"pretrain", "finetune"}


def test_pir_has_its_image_teacher_for_free_and_needs_one_for_texts(tmp_path):
    write_overhead(tmp_path / "data", train=32, validation=8, test=8)
    towers = [word for name, path in write_overhead_towers(tmp_path / "towers").items() for word in (f"--{name}", path)]
    small = "--text_augmentation 0 --image_size 64 --attention_heads 2 --cycles 1 --instruction_layers 1".split()
    frozen = ["--stages", "retrieval", "--freeze_vision", "True", "--cache_vision", "True"]
    flags = [*towers, *COMMON, *small, *frozen, "--structure_weight", "1", "--output_dir", str(tmp_path / "run")]
    with pytest.raises(ValueError, match="vsehub teachers"):
        run_pir_script.main([*flags, "--data", str(tmp_path / "data")])
    assert main(["teachers", str(tmp_path / "data"), "--text", towers[3], "--out", str(tmp_path / "taught")]) == 0
    assert run_pir_script.main([*flags, "--data", str(tmp_path / "taught")]) == 0


def test_d2s_has_its_text_teacher_for_free_and_needs_one_for_images(scenes, both_stages, taught, tmp_path):
    root, _ = taught
    flags = [*SMALL, "--text_augmentation", "0", "--structure_weight", "0.5", "--output_dir", str(tmp_path / "run")]
    flags += [*scenes[2:], "--stages", "finetune", "--stage1_model", str(both_stages[0] / "pretrain" / "best")]
    with pytest.raises(ValueError, match="vsehub teachers"):
        run_d2s.main([*flags, "--data", str(root / "data")])
    words = ["--image", str(root / "vit"), "--out", str(tmp_path / "taught"), "--dense_text", "dense_text"]
    assert main(["teachers", str(root / "data"), *words]) == 0
    assert run_d2s.main([*flags, "--data", str(tmp_path / "taught")]) == 0


class Scenes:
    """A cache of scene vectors: two views of three images."""

    views = 2

    def __len__(self):
        return 6

    def __getitem__(self, item):
        return torch.full((1, 4), float(item)).half()


@pytest.fixture
def plain_rows():
    return Dataset.from_dict({"captions": [["a"], ["b", "c"], ["d"]]})


def test_scene_vectors_and_dense_embeddings_teach_where_the_data_bring_no_features(plain_rows):
    dense = torch.arange(6.0).view(3, 2)
    teachers = StructureTeachers(plain_rows, Scenes(), dense)
    assert teachers.image(2, 1).tolist() == [5.0] * 4
    assert torch.equal(teachers.text(1, 1), dense[1])
    image_mean, text_mean = teachers.means()
    assert image_mean.tolist() == [2.5] * 4 and torch.equal(text_mean, dense.mean(0))


@pytest.mark.parametrize("given", [{}, {"scenes": Scenes()}, {"dense_text_embeds": torch.ones(3, 2)}])
def test_a_modality_without_a_teacher_is_refused_with_the_remedy(plain_rows, given):
    with pytest.raises(ValueError, match="vsehub teachers"):
        StructureTeachers(plain_rows, **given)


def test_columns_of_the_data_win_over_what_the_run_has(taught):
    root, _ = taught
    rows = prepare_rows(DataArguments(data=str(root / "taught")), "train", None, need_dense=False)
    columns = read_teachers(rows)
    teachers = StructureTeachers(rows, Scenes(), torch.zeros(len(rows), 2))
    assert torch.equal(teachers.image(3, 0), columns.image[3, 0]) and torch.equal(
        teachers.text(3, 1), columns.text[3][1]
    )
    image_mean, text_mean = teachers.means()
    assert torch.allclose(image_mean, columns.image[:, 0].float().mean(0), atol=1e-5)
    assert torch.allclose(text_mean, torch.cat(columns.text).float().mean(0), atol=1e-5)
