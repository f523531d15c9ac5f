"""Runs that take seconds: their flags, their data, and what they leave behind."""

import io
from pathlib import Path

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as Pillow
from safetensors.torch import load_file

from vsehub.training import run_d2s
from vsehub.training import run_pir as run_pir_script
from vsehub.training.flags.arguments import D2S_ARGUMENTS
from vsehub.training.stage_arguments import read_stages

COMMON = """--image_size 32 --projection_dim 16 --per_device_train_batch_size 8 --logging_steps 1 --eval_strategy steps
--save_strategy steps --eval_steps 2 --save_steps 2 --max_steps 4 --use_cpu True""".split()
SMALL = """--num_mask_tokens 4 --decoder_layers 1 --decoder_heads 2 --size_augmentation 0 --text_dropout 0""".split()
SMALL += COMMON
PIR_SMALL = """--attention_heads 2 --filter_size 9 --dropout 0 --instruction_layers 1 --cycles 1
--text_augmentation 0""".split()
PIR_SMALL += COMMON

COLOURS = {"field": (40, 160, 60), "river": (40, 80, 210), "street": (120, 120, 120)}
FEATURES = Features(
    {
        "image": Image(),
        "captions": List(Value("string")),
        "label": ClassLabel(names=list(COLOURS)),
        "image_id": Value("string"),
    }
)


def read_flags(*flags, stages="baseline", kinds=D2S_ARGUMENTS, names=("pretrain", "finetune", "baseline")):
    """The arguments of each stage of a run, which is not started."""
    return read_stages(["--data", "d", *SMALL[:10], "--stages", stages, "--use_cpu", "True", *flags], names, kinds)


def run(scenes: list[str], out: Path, *flags: str) -> dict[str, torch.Tensor]:
    """Train D2S-VSE and return the published weights."""
    run_d2s.main([*scenes, *SMALL, "--output_dir", str(out), *flags])
    return load_file(out / "hub" / "model.safetensors")


def run_pir(overhead: list[str], out: Path, *flags: str) -> dict[str, torch.Tensor]:
    """Train PIR and return the published weights."""
    run_pir_script.main([*overhead, *PIR_SMALL, "--output_dir", str(out), *flags])
    return load_file(out / "hub" / "model.safetensors")


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two dictionaries of weights are bitwise equal."""
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def scene_rows(count: int, seed: int) -> Dataset:
    """Pictures of one noisy colour, whose class is the colour, with two captions each."""
    rng, rows = np.random.default_rng(seed), []
    for index in range(count):
        name = list(COLOURS)[index % 3]
        pixels = np.array(COLOURS[name]) + rng.normal(0, 20, (40, 40, 3))
        buffer = io.BytesIO()
        Pillow.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
        captions = [f"a {name}", f"the {name} with {'tree boat'.split()[index % 2]}"]
        image = {"bytes": buffer.getvalue(), "path": f"{name}_{index}.png"}
        rows.append({"image": image, "captions": captions, "label": index % 3, "image_id": f"{seed}-{index}"})
    return Dataset.from_list(rows, features=FEATURES)


def teachers_command(root: Path, out: str | Path = "taught") -> list[str]:
    """`vsehub teachers` over the data and the two teachers of the fixture `taught`."""
    flags = ["--image", root / "vit", "--text", root / "bert", "--out", root / out, "--dense_text", "dense_text"]
    return ["teachers", str(root / "data"), *map(str, flags)]
