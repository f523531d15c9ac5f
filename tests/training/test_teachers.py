"""Teachers as columns: whose they are is checked, a killed run goes on, and the model keeps its tensors."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from datasets import load_dataset
from safetensors.torch import load_file
from transformers import BertModel, ViTModel

from vsehub.__main__ import main
from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows, row_image
from vsehub.demos.generated_overhead import write_dataset as write_overhead
from vsehub.demos.generated_overhead import write_towers as write_overhead_towers
from vsehub.demos.generated_scenes import write_dataset, write_towers
from vsehub.processing.processing_dual_encoder import square_image_processor
from vsehub.training import run_d2s, run_pir, run_rebalanced, teachers, train_teachers
from vsehub.training.losses import nt_xent
from vsehub.training.pairs import PairDataset
from vsehub.training.teachers import CHECKSUM, IMAGE, TEXT, read_teachers
from vsehub.training.views import Views

SMALL = """--image_size 32 --projection_dim 16 --per_device_train_batch_size 8 --logging_steps 1 --eval_strategy steps
--save_strategy steps --eval_steps 2 --save_steps 2 --max_steps 4 --use_cpu True --text_augmentation 0""".split()
D2S = "--num_mask_tokens 4 --decoder_layers 1 --decoder_heads 2 --size_augmentation 0 --text_dropout 0".split()


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_vision_config, tiny_text_config, tiny_tokenizer):
    """Generated scenes, the student's towers, and two uni-modal teachers; `taught` has the teachers' columns."""
    root = tmp_path_factory.mktemp("teachers")
    write_dataset(root / "data", train=24, validation=8, test=8)
    vision, text = write_towers(root / "towers")
    square_image_processor(32).save_pretrained(vision)
    torch.manual_seed(1)
    ViTModel(tiny_vision_config, add_pooling_layer=False).save_pretrained(root / "vit")
    square_image_processor(32).save_pretrained(root / "vit")
    BertModel(tiny_text_config, add_pooling_layer=False).save_pretrained(root / "bert")
    tiny_tokenizer.save_pretrained(root / "bert")
    assert main(words(root)) == 0
    student = ["--data", str(root / "taught"), "--vision", vision, "--text", text]
    return root, student


def words(root, out="taught"):
    given = ["--image", root / "vit", "--text", root / "bert", "--out", root / out, "--dense_text", "dense_text"]
    return ["teachers", str(root / "data"), *map(str, given)]


def test_every_row_has_the_features_of_its_own_picture_and_captions(world):
    root, _ = world
    rows = prepare_rows(DataArguments(data=str(root / "taught")), "train", None, need_dense=True)
    found = read_teachers(rows)
    assert found.image.shape == (24, 1, 32) and [x.shape for x in found.text] == [(2, 32)] * 24
    image, text = teachers.ImageTeacher(str(root / "vit"), "cpu"), teachers.TextTeacher(str(root / "bert"), "cpu")
    for row in (0, 23):
        picture = row_image(rows[row])
        assert torch.allclose(
            found.image[row, 0].float(), torch.from_numpy(image.embed(image.prepare([picture]))[0]).float(), atol=2e-3
        )
        alone = text.embed(text.prepare([rows[row]["captions"][1]]))[0]
        assert torch.allclose(found.text[row][1].float(), torch.from_numpy(alone).float(), atol=2e-3)


def test_features_of_another_row_are_refused(world):
    root, _ = world
    rows = prepare_rows(DataArguments(data=str(root / "taught")), "train", None, need_dense=False)
    kept = {name: list(rows[name]) for name in (IMAGE, TEXT, CHECKSUM)}
    swapped = rows.remove_columns(list(kept))
    for name, column in kept.items():
        swapped = swapped.add_column(name, column[1:] + column[:1])
    with pytest.raises(ValueError, match="row 0 .*another picture"):
        read_teachers(swapped)


def test_a_killed_run_goes_on_and_gives_the_same(world, monkeypatch):
    root, _ = world
    monkeypatch.setattr(teachers, "PART", 10)
    calls = []

    class Dying(teachers.ImageTeacher):
        def prepare(self, images):
            calls.append(len(images))
            if len(calls) == 2:
                raise KeyboardInterrupt
            return super().prepare(images)

    monkeypatch.setattr(teachers, "ImageTeacher", Dying)
    assert main(words(root, "again")) == 130
    assert main(words(root, "again")) == 0
    assert calls == [10, 10, 10, 4]  # the first part was not made twice
    first, again = (
        load_dataset(str(root / name), split="train").remove_columns("image") for name in ("taught", "again")
    )
    assert first[:] == again[:]


def test_new_captions_leave_the_images_features_alone(world, monkeypatch, tmp_path):
    root, _ = world
    rows = prepare_rows(DataArguments(data=str(root / "data")), "train", None, need_dense=False)
    image, text = teachers.ImageTeacher(str(root / "vit"), "cpu"), teachers.TextTeacher(str(root / "bert"), "cpu")
    first = teachers.add_teachers(rows, image, text, tmp_path)
    monkeypatch.setattr(image, "model", None)  # a picture that is embedded again would fail
    other = rows.remove_columns("captions").add_column("captions", [["another"]] * len(rows))
    second = teachers.add_teachers(other, image, text, tmp_path)
    assert second[IMAGE] == first[IMAGE] and second[TEXT] != first[TEXT] and second[CHECKSUM] != first[CHECKSUM]
    assert len(read_teachers(second).text[0]) == 1


def test_student_and_teacher_see_the_same_crop(world, tmp_path, tiny_processor):
    root, _ = world
    assert main([*words(root, "views"), "--views", "3"]) == 0
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


def test_teachers_learn_from_the_data_first_and_only_once(world, monkeypatch, capsys):
    root, _ = world
    flags = ["--train-teachers", "2", "--train_batch_size", "8", "--learning_rate", "1e-3", "--views", "2"]
    assert main([*words(root, "learned"), *flags]) == 0
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
    monkeypatch.setattr(train_teachers, "Trainer", None)  # training again would fail
    assert main([*words(root, "learned"), *flags]) == 0
    losses = []
    for path in (root / "vit", folder / "image"):  # what it was trained for: views of one image are alike
        teacher = teachers.ImageTeacher(str(path), "cpu")
        pictures = [Views(3).open(row, view, 32) for row in rows for view in (1, 2)]
        features = torch.from_numpy(teacher.embed(teacher.prepare(pictures))).float()
        unit = torch.nn.functional.normalize(features, dim=-1)
        losses.append(nt_xent(unit[::2], unit[1::2], 0.1).item())
    assert losses[1] < losses[0]


def test_a_text_teacher_needs_two_captions(world):
    root, _ = world
    rows = prepare_rows(DataArguments(data=str(root / "data")), "train", None, need_dense=False)
    single = rows.remove_columns("captions").add_column("captions", [["one"]] * len(rows))
    with pytest.raises(ValueError, match="two different captions"):
        train_teachers.train_text_teacher(str(root / "bert"), single, root / "none", {"temperature": 0.1})


def weights(out):
    return load_file(out / "hub" / "model.safetensors")


@pytest.mark.parametrize("relation", ["own", "fused"])
def test_structure_trains_another_model_of_the_same_tensors(world, tmp_path, relation):
    _, student = world
    flags = [*student, *SMALL, *D2S]
    assert run_rebalanced.main([*flags, "--structure_weight", "0", "--output_dir", str(tmp_path / "plain")]) == 0
    more = ["--structure_relation", relation, "--representation_text_weight", "2"]
    more += ["--learn_text_share", "True"] if relation == "fused" else []
    assert run_rebalanced.main([*flags, *more, "--output_dir", str(tmp_path / "taught")]) == 0
    plain, taught = weights(tmp_path / "plain"), weights(tmp_path / "taught")
    assert {key: x.shape for key, x in plain.items()} == {key: x.shape for key, x in taught.items()}
    assert any(not torch.equal(plain[key], taught[key]) for key in plain)
    state = load_file(next((tmp_path / "taught" / "baseline").glob("checkpoint-*")) / "objective.safetensors")
    assert {"structure.text_share", "structure.image_mean", "representation.text.projection.weight"} <= set(state)
    assert not (tmp_path / "taught" / "hub" / "objective.safetensors").exists()


def test_the_representation_alone_trains_too(world, tmp_path):
    _, student = world
    flags = [*student, *SMALL, *D2S, "--structure_weight", "0", "--output_dir"]
    assert run_rebalanced.main([*flags, str(tmp_path / "plain")]) == 0
    assert run_rebalanced.main([*flags, str(tmp_path / "taught"), "--representation_text_weight", "2"]) == 0
    plain, taught = weights(tmp_path / "plain"), weights(tmp_path / "taught")
    assert any(not torch.equal(plain[key], taught[key]) for key in plain)


def test_two_processes_relate_all_pairs_as_one_does(world, tmp_path):
    _, student = world
    flags = [*student, *SMALL, *D2S, "--max_steps", "3", "--eval_strategy", "no", "--save_strategy", "no", "--optim"]
    flags += ["sgd", "--load_best_model_at_end", "False", "--image_augmentation", "none", "--learning_rate", "0.01"]
    flags += ["--structure_bank", "16"]
    assert run_rebalanced.main([*flags, "--output_dir", str(tmp_path / "one")]) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0", run_rebalanced.__file__, *flags]
    command += ["--output_dir", str(tmp_path / "two"), "--per_device_train_batch_size", "4"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert max((one[key].float() - two[key].float()).abs().max().item() for key in one) < 2e-5


@pytest.mark.parametrize("extra", [["fused", "--learn_text_share", "True"], ["own", "--structure_bank", "20"]])
def test_structure_resumes_bitwise(world, tmp_path, extra):
    _, student = world
    flags = [*student, *SMALL, *D2S, "--structure_relation", *extra]
    flags += ["--load_best_model_at_end", "False", "--save_total_limit", "9"]
    assert run_rebalanced.main([*flags, "--output_dir", str(tmp_path / "whole")]) == 0
    assert run_rebalanced.main([*flags, "--output_dir", str(tmp_path / "broken")]) == 0
    shutil.rmtree(tmp_path / "broken" / "baseline" / "checkpoint-4")
    (tmp_path / "broken" / "baseline" / "finished.json").unlink()
    again = [*flags, "--output_dir", str(tmp_path / "broken"), "--resume_from_checkpoint", "true"]
    assert run_rebalanced.main(again) == 0
    whole, broken = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert all(torch.equal(whole[key], broken[key]) for key in whole)


def test_without_teachers_the_remedy_is_named(world, tmp_path):
    root, student = world
    flags = ["--data", str(root / "data"), *student[2:], *SMALL, *D2S, "--output_dir", str(tmp_path)]
    with pytest.raises(ValueError, match="vsehub teachers"):
        run_rebalanced.main(flags)


def test_d2s_takes_structure_in_its_second_stage(world, tmp_path):
    _, student = world
    flags = [*student, *SMALL, *D2S, "--structure_weight", "0.5", "--output_dir", str(tmp_path)]
    assert run_d2s.main(flags) == 0
    assert set(json.loads((tmp_path / "validation.json").read_text())) == {"pretrain", "finetune"}


def test_pir_has_its_image_teacher_for_free_and_needs_one_for_texts(tmp_path):
    write_overhead(tmp_path / "data", train=32, validation=8, test=8)
    towers = [word for name, path in write_overhead_towers(tmp_path / "towers").items() for word in (f"--{name}", path)]
    flags = [
        *towers,
        *SMALL,
        "--image_size",
        "64",
        "--attention_heads",
        "2",
        "--cycles",
        "1",
        "--instruction_layers",
        "1",
    ]
    flags += ["--stages", "retrieval", "--structure_weight", "1", "--output_dir", str(tmp_path / "run")]
    with pytest.raises(ValueError, match="vsehub teachers"):
        run_pir.main([*flags, "--data", str(tmp_path / "data")])
    teach = ["--image", towers[1], "--text", towers[3], "--out", str(tmp_path / "taught")]
    assert main(["teachers", str(tmp_path / "data"), *teach]) == 0
    assert run_pir.main([*flags, "--data", str(tmp_path / "taught")]) == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--views", "0"], "--views: must be a whole number of at least 1"),
        (["--batch_size", "-1"], "--batch_size: must be a whole number of at least 1"),
        (["--train_teachers", "nan"], "must be a number of at least 0"),
        (["--train_teachers", "-1"], "must be a number of at least 0"),
        (["--temperature", "0"], "must be a number above 0"),
        (["--image_column", "picture"], "has no column 'picture'"),
    ],
)
def test_wrong_flags_are_refused_before_any_work(world, flags, said, capsys, monkeypatch):
    root, _ = world
    monkeypatch.setattr(train_teachers, "_fit", lambda *args: pytest.fail("trained"))
    assert main([*words(root, "wrong"), *flags]) == 2
    assert said in capsys.readouterr().err


def test_a_text_teacher_needs_several_captions_of_an_image():
    with pytest.raises(ValueError, match="two different captions, and the data have 1 of them"):
        train_teachers.several_captions({"captions": [["a boat", "a ship"], ["a dog", "a dog"], ["a cat"]]})


def test_a_folder_that_holds_something_else_is_left_alone(world, tmp_path, capsys):
    root, _ = world
    (tmp_path / "file").write_text("mine")
    kept = lambda: {path: path.stat().st_mtime_ns for top in (tmp_path, root / "data") for path in top.rglob("*")}  # noqa: E731
    before = kept()
    for out, said in (("data", "holds other files"), (tmp_path, "holds other files"), (tmp_path / "file", "is a file")):
        assert main(words(root, out)) == 2
        assert said in capsys.readouterr().err
    assert kept() == before


def test_features_are_made_again_of_data_that_have_some_and_of_a_torn_part(world, tmp_path):
    root, _ = world
    taught = [*words(root, tmp_path / "again")[:1], str(root / "taught"), *words(root, tmp_path / "again")[2:]]
    assert main(taught) == 0
    part = next((tmp_path / "again" / ".parts").rglob(f"{IMAGE}-*.parquet"))
    part.write_bytes(part.read_bytes()[:50])
    assert main(taught) == 0
    found = [load_dataset(str(folder), split="train") for folder in (root / "taught", tmp_path / "again")]
    assert found[0][IMAGE] == found[1][IMAGE] and sorted(found[0].column_names) == sorted(found[1].column_names)
