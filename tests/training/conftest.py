"""Generated scenes with untrained towers, and a finished run on them."""

import pytest
import torch
from small_runs import run
from transformers import ViTModel

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
    """Folder and published weights of a run of both stages; read only."""
    out = tmp_path_factory.mktemp("both")
    return out, run(scenes, out)
