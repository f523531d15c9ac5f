"""Generated data with untrained towers, and finished runs on them; all of them are read only."""

import io

import pytest
import torch
from datasets import Dataset
from small_runs import run, run_pir, scene_rows, teachers_command
from transformers import BertModel, ResNetModel, ViTModel

from vsehub.__main__ import main
from vsehub.demos.generated_scenes import write_dataset, write_towers
from vsehub.processing.processing_dual_encoder import square_image_processor


@pytest.fixture(scope="session")
def scenes(tmp_path_factory, tiny_vision_config):
    """Flags of generated scenes and untrained towers: a ViT (whose weights the stock Trainer loses), a small BERT."""
    root = tmp_path_factory.mktemp("scenes")
    write_dataset(root / "data", train=24, validation=8, test=8)
    _, text = write_towers(root / "towers")
    torch.manual_seed(0)
    ViTModel(tiny_vision_config, add_pooling_layer=False).save_pretrained(root / "vit")
    square_image_processor(32).save_pretrained(root / "vit")
    return ["--data", str(root / "data"), "--vision", str(root / "vit"), "--text", text]


@pytest.fixture(scope="session")
def both_stages(scenes, tmp_path_factory):
    """Folder and published weights of a run of D2S-VSE's two stages."""
    out = tmp_path_factory.mktemp("both")
    return out, run(scenes, out)


@pytest.fixture(scope="session")
def overhead(tmp_path_factory, tiny_vision_config, tiny_text_config, tiny_tokenizer, tiny_instruction_config):
    """Flags of three classes of noisy colours, and untrained towers: a ViT, a BERT, and a ResNet for the prior."""
    root = tmp_path_factory.mktemp("overhead")
    (root / "data").mkdir()
    for split, count, seed in (("train", 24, 0), ("validation", 9, 1)):
        scene_rows(count, seed).to_parquet(root / "data" / f"{split}-00000-of-00001.parquet")
    torch.manual_seed(0)
    ViTModel(tiny_vision_config, add_pooling_layer=False).save_pretrained(root / "vit")
    square_image_processor(32, [0.5] * 3, [0.5] * 3).save_pretrained(root / "vit")
    BertModel(tiny_text_config, add_pooling_layer=False).save_pretrained(root / "bert")
    tiny_tokenizer.save_pretrained(root / "bert")
    ResNetModel(tiny_instruction_config).save_pretrained(root / "resnet")
    square_image_processor(32).save_pretrained(root / "resnet")
    flags = ["--data", "data", "--vision", "vit", "--text", "bert", "--instruction", "resnet"]
    return [word if word.startswith("--") else str(root / word) for word in flags]


@pytest.fixture(scope="session")
def pir_run(overhead, tmp_path_factory):
    """Folder and published weights of a run of PIR's two stages, whose prior has learned the colours."""
    out = tmp_path_factory.mktemp("pir")
    prior = ["--prior.max_steps", "30", "--prior.learning_rate", "0.01"]
    return out, run_pir(overhead, out, *prior, "--prior.freeze_vision_batch_norm", "False")


@pytest.fixture(scope="session")
def taught(tmp_path_factory, tiny_vision_config, tiny_text_config, tiny_tokenizer):
    """A folder with generated scenes (`data`; in `taught` with features of teachers `vit` and `bert`), and flags."""
    root = tmp_path_factory.mktemp("teachers")
    write_dataset(root / "data", train=24, validation=8, test=8)
    vision, text = write_towers(root / "towers")
    square_image_processor(32).save_pretrained(vision)
    torch.manual_seed(1)
    ViTModel(tiny_vision_config, add_pooling_layer=False).save_pretrained(root / "vit")
    square_image_processor(32).save_pretrained(root / "vit")
    BertModel(tiny_text_config, add_pooling_layer=False).save_pretrained(root / "bert")
    tiny_tokenizer.save_pretrained(root / "bert")
    assert main(teachers_command(root)) == 0
    return root, ["--data", str(root / "taught"), "--vision", vision, "--text", text]


@pytest.fixture
def rows(tiny_pictures, tiny_captions):
    """Six prepared rows of two captions, a dense text, and its embedding."""

    def encoded(picture):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return {"bytes": buffer.getvalue(), "path": None}

    return Dataset.from_list(
        [
            {
                "image": encoded(picture),
                "captions": [caption, "a dog"],
                "image_id": f"id-{index}",
                "dense_text": f"{caption} and a dog",
                "dense_text_embeds": [float(index)] * 4,
            }
            for index, (picture, caption) in enumerate(zip(tiny_pictures, tiny_captions))
        ]
    )
