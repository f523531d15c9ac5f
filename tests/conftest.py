"""Tiny stand-ins for everything: seeded configurations, models, words and pictures. No network, one thread."""

import room  # noqa: F401  first, because libraries read the environment as they are imported

# isort: split
import copy
import gc
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertConfig, BertTokenizer, ResNetConfig, ViTConfig

from vsehub import D2SVSEConfig, D2SVSEModel, D2SVSEProcessor, PIRConfig, PIRModel, PIRProcessor
from vsehub.__main__ import main
from vsehub.processing.processing_dual_encoder import square_image_processor

torch.set_num_threads(1)

TEXT = """a the of in on and with two black white red brown small young dog cat man woman child boat bridge river tree
field snow street runs plays jumps stands near over under while holding wearing shirt ball grass water"""
WORDS = TEXT.split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [*string.ascii_lowercase, *string.digits, *string.punctuation]
VOCABULARY = [*SPECIAL, *WORDS, *(letter for letter in LETTERS if letter not in WORDS), *(f"##{x}" for x in LETTERS)]


def pytest_collection_modifyitems(items):
    """Put the files that take longest first: otherwise one of two processes waits for the other at the end."""
    longest = [Path(__file__).parent / name for name in ("training", "hub_cards")]
    items.sort(key=lambda item: not any(item.path.is_relative_to(folder) for folder in longest))


def pytest_collection_finish():
    """Let later collections of garbage skip the libraries and the tests themselves: each training run asks for some."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _own_cache_of_digests(tmp_path_factory):
    """Nothing is remembered from one run of the tests to the next, and nothing in the home of who runs them."""
    place = tmp_path_factory.mktemp("digests")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vsehub.files.remembered.digests_folder", lambda: place)
        yield


@pytest.fixture
def vsehub(capsys):
    """A function: words of a command line -> what it printed on stdout; on stderr, where it is expected to fail."""

    def run(*words, status: int = 0) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == status
        said = capsys.readouterr()
        return said.err if status > 1 else said.out

    return run


@pytest.fixture(scope="session")
def tiny_vision_config():
    """A ViT of 17 tokens (32 pixels, patches of 8), 32 wide."""
    return ViTConfig(
        image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )


@pytest.fixture(scope="session")
def tiny_text_config():
    """A BERT over `tiny_tokenizer`, 32 wide, without dropout, so that training mode is deterministic."""
    return BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


@pytest.fixture(scope="session")
def make_tiny_config(tiny_vision_config, tiny_text_config):
    """A function: overrides -> a D2S-VSE configuration of two tiny towers."""

    def make(vision_config=tiny_vision_config, text_config=tiny_text_config, **overrides):
        sizes = {
            "projection_dim": 16,
            "image_size": 32,
            "num_mask_tokens": 6,
            "decoder_layers": 2,
            "decoder_heads": 2,
            "pooling_dim": 8,
            "text_dropout": 0.0,
        }
        return D2SVSEConfig.from_vision_text_configs(vision_config, text_config, **(sizes | overrides))

    return make


@pytest.fixture(scope="session")
def make_tiny_model(make_tiny_config):
    """A function: overrides -> a seeded model in eval mode; the same overrides give the same weights."""

    def make(seed=0, **overrides):
        torch.manual_seed(seed)
        return D2SVSEModel(make_tiny_config(**overrides)).eval()

    return make


@pytest.fixture(scope="session")
def tiny_instruction_config():
    """A ResNet of two stages, 12 wide."""
    return ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")


@pytest.fixture(scope="session")
def make_tiny_pir_config(tiny_vision_config, tiny_text_config, tiny_instruction_config):
    """A function: overrides -> a PIR configuration of three tiny towers, without dropout; 9 of 17 tokens are kept."""

    def make(
        vision_config=tiny_vision_config,
        text_config=tiny_text_config,
        instruction_config=tiny_instruction_config,
        **overrides,
    ):
        sizes = {"projection_dim": 16, "image_size": 32, "filter_size": 9, "attention_heads": 2, "dropout": 0.0}
        return PIRConfig.from_vision_text_configs(
            vision_config, text_config, instruction_config=instruction_config.to_dict(), **(sizes | overrides)
        )

    return make


@pytest.fixture(scope="session")
def make_tiny_pir_model(make_tiny_pir_config):
    """A function: overrides -> a seeded model in eval mode, the statistics of whose batch-norms are not the initial."""

    def make(seed=0, **overrides):
        torch.manual_seed(seed)
        model = PIRModel(make_tiny_pir_config(**overrides)).eval()
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
        return model

    return make


@pytest.fixture
def tiny_config(make_tiny_config):
    """The default tiny configuration, fresh for each test."""
    return make_tiny_config()


@pytest.fixture(scope="session")
def _session_model(make_tiny_model):
    return make_tiny_model()


@pytest.fixture
def tiny_model(_session_model):
    """The default tiny model in eval mode, fresh for each test: train or break it as you like."""
    return copy.deepcopy(_session_model)


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """A BERT tokenizer of some words and all letters: every ASCII caption has tokens."""
    vocabulary = {word: row for row, word in enumerate(VOCABULARY)}
    return BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=64)


@pytest.fixture(scope="session")
def tiny_processor(tiny_tokenizer):
    """Squares of 32 pixels and tokens."""
    return D2SVSEProcessor(square_image_processor(32), tiny_tokenizer)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, _session_model, tiny_processor):
    """A folder with the default tiny model and its processor; read only."""
    folder = tmp_path_factory.mktemp("tiny_model")
    _session_model.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pir_folder(tmp_path_factory, make_tiny_pir_model, tiny_tokenizer):
    """A folder with a tiny PIR model and its processor; read only."""
    folder = tmp_path_factory.mktemp("tiny_pir")
    model = make_tiny_pir_model(instruction_scale=[1.5, 1.0, 0.5], instruction_shift=[0.0, 0.1, 0.2])
    model.save_pretrained(folder)
    PIRProcessor(square_image_processor(32), tiny_tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def dual_folder(tmp_path_factory):
    """A function: one of `dual_encoders.FAMILIES`, or `sentence-transformers` -> folder of a tiny model; read only."""
    folders: dict[str, str] = {}

    def made(family: str) -> str:
        if family not in folders:
            from dual_encoders import save_dual_encoder

            folders[family] = save_dual_encoder(family, tmp_path_factory.mktemp(family))
        return folders[family]

    return made


@pytest.fixture(scope="session")
def tiny_pictures():
    """Six RGB pictures of random blocks, of different sizes and shapes."""
    generator = np.random.default_rng(0)
    sizes = [(32, 32), (48, 32), (20, 60), (64, 64), (33, 17), (40, 40)]
    blocks = [generator.integers(0, 256, (4, 4, 3), dtype=np.uint8) for _ in sizes]
    return [Image.fromarray(block).resize(size, Image.Resampling.NEAREST) for block, size in zip(blocks, sizes)]


@pytest.fixture(scope="session")
def tiny_captions():
    """Six captions, from one word to fifteen."""
    return [
        "a dog runs in the snow",
        "boat",
        "two young women standing near a bridge over the river while holding a red ball",
        "a man and a child",
        "the small brown cat jumps on grass",
        "black and white",
    ]


@pytest.fixture(scope="session")
def tiny_text_batch(tiny_processor, tiny_captions):
    """`tiny_captions` as one padded batch: input_ids, token_type_ids, attention_mask (6, L)."""
    return dict(tiny_processor(text=tiny_captions, return_tensors="pt"))


@pytest.fixture(scope="session")
def tiny_image_batch(tiny_processor, tiny_pictures):
    """`tiny_pictures` as one batch: pixel_values (6, 3, 32, 32)."""
    return dict(tiny_processor(images=tiny_pictures, return_tensors="pt"))
