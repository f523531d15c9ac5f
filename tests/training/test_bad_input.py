"""Bad input through the command line: one line that names the thing and the remedy, exit status 2, nothing lost."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import ViTModel

from vsehub.__main__ import main
from vsehub.demos.generated_scenes import write_dataset, write_towers
from vsehub.processing.processing_dual_encoder import square_image_processor

SMALL = """--image_size 32 --projection_dim 16 --num_mask_tokens 4 --decoder_layers 1 --decoder_heads 2
--per_device_train_batch_size 4 --logging_steps 1 --eval_strategy steps --save_strategy steps --eval_steps 1
--save_steps 1 --max_steps 1 --use_cpu True --text_augmentation 0""".split()


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_vision_config):
    """Data, towers, a finished stage 1, and what is wrong with copies of them."""
    root = tmp_path_factory.mktemp("world")
    write_dataset(root / "data", train=12, validation=4, test=4)
    resnet, text = write_towers(root / "towers")
    torch.manual_seed(0)
    ViTModel(tiny_vision_config, add_pooling_layer=False).save_pretrained(root / "vit")
    square_image_processor(32).save_pretrained(root / "vit")
    shutil.move(resnet, root / "resnet")
    shutil.move(text, root / "text")
    flags = ["--data", root / "data", "--vision", root / "vit", "--text", root / "text"]
    words = ["train", *map(str, flags), *SMALL, "--output_dir", str(root / "run"), "--stages", "pretrain"]
    assert main(words) == 0
    shutil.copytree(root / "run" / "pretrain" / "best", root / "stage1")
    for name, source in {"torn": "stage1", "bare": "stage1", "no_words": "text", "no_processor": "vit"}.items():
        shutil.copytree(root / source, root / name)
    whole = (root / "torn" / "model.safetensors").read_bytes()
    (root / "torn" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    (root / "bare" / "model.safetensors").unlink()
    (root / "no_processor" / "preprocessor_config.json").unlink()
    for path in [*(root / "no_words").glob("*token*"), *(root / "no_words").glob("vocab*")]:
        path.unlink()
    (root / "empty").mkdir()
    (root / "file").write_text("no folder")
    (root / "link").symlink_to(root / "gone")
    return root


@pytest.fixture
def refused(world, tmp_path, capsys):
    """A function: flags, `@name` meaning a path in the world -> the one line of the error."""

    def refuse(*flags, verb="train"):
        words = [str(world / flag[1:]) if flag.startswith("@") else flag for flag in flags]
        if verb == "train":
            given = ["--data", world / "data", "--vision", world / "vit", "--text", world / "text"]
            words = [*map(str, given), *SMALL, "--output_dir", str(tmp_path / "run"), *words]
        assert main([verb, *words]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if f"vsehub {verb}:" in line]
        assert len(lines) == 1 and "Traceback" not in lines[0]
        return lines[0].partition(f"vsehub {verb}: ")[2]

    return refuse


ALONE = ["--stages", "finetune", "--stage1_model"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([*ALONE, "@nowhere"], "--stage1_model .*nowhere: no such folder"),
        ([*ALONE, "@empty"], "empty"),
        ([*ALONE, "@vit"], "is a vit, not a stage-1 model"),
        ([*ALONE, "@bare"], "no file named model.safetensors.*bare"),
        ([*ALONE, "@torn"], "torn: its weights are damaged .*download them again"),
        ([*ALONE, "@stage1", "--vision", "@resnet"], "is a resnet, but .* trained with a vit"),
        (["--vision", "@nowhere"], "--vision .*nowhere: no such folder"),
        (["--vision", "@empty"], "empty"),
        (["--vision", "@no_processor"], "no_processor has no image processor.*--imagenet_normalisation"),
        (["--vision", "@text"], "this bert tower does not run on pictures .*choose another --vision"),
        (["--text", "@vit"], "vit has no tokenizer: put its tokenizer.json"),
        (["--text", "@no_words"], "no_words has no tokenizer: put its tokenizer.json"),
        (["--eval_split", "test"], "--eval_split test.*vsehub evaluate"),
        (["--eval_split", "test[:50%]"], "cannot be a test split"),
        (["--eval_split", "Test"], "cannot be a test split"),
        (["--eval_split", "karpathy_test"], "cannot be a test split"),
        (["--eval_split", "train"], "both 'train'"),
        (["--lora", "True", "--freeze_vision_batch_norm", "False"], "--lora True and --freeze_vision_batch_norm False"),
        (["--output_dir", "@file"], "file is a file; choose a folder"),
        (["--output_dir", "@link"], "link is a link to what is not there; choose a folder"),
        (["--output_dir", "/dev/null"], "/dev/null is a file; choose a folder"),
        (["--resume_from_checkpoint", "@empty"], "empty: no checkpoint of a run"),
        (["--max_steps", "many"], "--max_steps.*a whole number .*, not many"),
        (["--decoder_heads", "3"], "decoder_heads=3 does not divide projection_dim=16"),
        (
            ["--learning_rate", "1e30", "--max_steps", "4", "--eval_steps", "4", "--save_steps", "4"],
            "the loss is nan.*Lower the learning rate",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_training_refuses(refused, flags, said):
    import re

    assert re.search(said, refused(*flags))


def test_evaluation_refuses(refused):
    assert "no such folder" in refused("@nowhere", "--data", "@data", verb="evaluate")
    assert "is a ViTModel, which does not embed both images and texts" in refused(
        "@vit", "--data", "@data", verb="evaluate"
    )
    assert "split 'dev'" in refused("@stage1", "--data", "@data", "--split", "dev", verb="evaluate")
    assert "damaged" in refused("@torn", "--data", "@data", verb="evaluate")


def encoded(image, kind, **kwargs) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **kwargs)
    return buffer.getvalue()


def write_rows(folder, pictures: dict[str, bytes], captions=None):
    rows = [
        {
            "image": {"bytes": data, "path": None},
            "captions": (captions or {}).get(name, ["a red circle"]),
            "image_id": name,
        }
        for name, data in pictures.items()
    ]
    folder.mkdir()
    for split in ("train", "validation"):
        chosen = rows if split == "train" else [row for row in rows if row["image_id"] == "good 0"]
        Dataset.from_list(chosen).to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))


@pytest.fixture(scope="module")
def pictures():
    """Four good photographs, odd ones that are fine, and ones that are not."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    photo = Image.fromarray(pixels)
    good = {f"good {i}": encoded(photo, "JPEG", quality=90 - i) for i in range(4)}
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    odd = {
        "cmyk": encoded(photo.convert("CMYK"), "JPEG"),
        "16 bit": encoded(Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), "PNG"),
        "palette": encoded(photo.quantize(8), "PNG", transparency=0),
        "turned": encoded(photo, "JPEG", exif=exif),
    }
    bad = {
        "half": good["good 0"][: len(good["good 0"]) // 2],
        "nothing": b"",
        "page": b"<!DOCTYPE html><html><body>404</body></html>",
    }
    return good, odd, bad


def test_odd_pictures_are_trained_on_upright_and_in_colour(world, pictures, tmp_path):
    good, odd, _ = pictures
    write_rows(tmp_path / "data", good | odd)
    given = ["--data", tmp_path / "data", "--vision", world / "vit", "--text", world / "text", "--dense_text", "union"]
    assert main(["train", *map(str, given), *SMALL, "--output_dir", str(tmp_path / "run")]) == 0
    assert not (tmp_path / "run" / "bad_samples.jsonl").exists()


@pytest.mark.parametrize("name", ["half", "nothing", "page"])
def test_a_picture_that_is_none_stops_the_run_with_its_name(refused, pictures, tmp_path, name):
    good, _, bad = pictures
    write_rows(tmp_path / "data", {**good, name: bad[name]})
    error = refused("--data", str(tmp_path / "data"), "--dense_text", "union", "--check_images", "all")
    assert f"image_id {name}" in error and "--on_bad_sample quarantine" in error


def test_or_all_bad_rows_are_listed_and_the_rest_is_trained_on(world, pictures, tmp_path):
    good, _, bad = pictures
    captions = {"good 1": ["  "], "good 2": ["a red circle", None]}
    more = {f"more {i}": good["good 3"] for i in range(4)}
    write_rows(tmp_path / "data", good | bad | more, captions)
    given = ["--data", tmp_path / "data", "--vision", world / "vit", "--text", world / "text", "--dense_text", "union"]
    flags = ["--on_bad_sample", "quarantine", "--check_images", "all", "--output_dir", str(tmp_path / "run")]
    assert main(["train", *map(str, given), *SMALL, *flags]) == 0
    listed = [json.loads(line) for line in (tmp_path / "run" / "bad_samples.jsonl").read_text().splitlines()]
    assert {entry["image_id"] for entry in listed} == {*bad, "good 1", "good 2"}
