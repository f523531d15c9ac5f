"""Tiny seeded dual encoders of transformers and sentence-transformers, saved with their processors. No network."""

import contextlib

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AlignConfig,
    AlignModel,
    AlignProcessor,
    BertTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2Model,
    Siglip2Processor,
    SiglipConfig,
    SiglipModel,
    SiglipProcessor,
)

with contextlib.suppress(ImportError):  # the plain names need torchvision, or are Pillow's own before 5.4
    from transformers import CLIPImageProcessorPil as CLIPImageProcessor
    from transformers import EfficientNetImageProcessorPil as EfficientNetImageProcessor
    from transformers import Siglip2ImageProcessorPil as Siglip2ImageProcessor
    from transformers import SiglipImageProcessorPil as SiglipImageProcessor
if "CLIPImageProcessor" not in globals():
    from transformers import (
        CLIPImageProcessor,
        EfficientNetImageProcessor,
        Siglip2ImageProcessor,
        SiglipImageProcessor,
    )

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**TOWER, "image_size": 32, "patch_size": 8}


def clip():
    """CLIP: squares cut from the middle, byte pairs, end of text as padding, 77 tokens."""
    tokens = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={token: row for row, token in enumerate(tokens)}, merges=[], model_max_length=77)
    last = len(tokens) - 1
    text = {**TOWER, "vocab_size": len(tokens), "bos_token_id": last - 1, "eos_token_id": last, "pad_token_id": last}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16))
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return model, CLIPProcessor(images, tokenizer)


def lower_casing_tokenizer(**settings):
    """Letters in lower case, then the end token, which also pads."""
    tokens = ["</s>", "<unk>", *LETTERS]
    backend = Tokenizer(models.WordLevel({token: row for row, token in enumerate(tokens)}, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", pad_token="</s>", unk_token="<unk>", **settings
    )


def siglip():
    """SigLIP: no mask, texts padded to 64."""
    tokenizer = lower_casing_tokenizer(model_max_length=64, model_input_names=["input_ids"])
    text = {**TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 64}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=VISION))
    return model, SiglipProcessor(SiglipImageProcessor(size={"height": 32, "width": 32}), tokenizer)


def siglip2():
    """SigLIP 2 (NaFlex): any shape of picture in patches of 16; a tokenizer that states no length."""
    try:
        from transformers import Siglip2Tokenizer
    except ImportError:  # transformers 5.0 has none
        tokenizer = lower_casing_tokenizer()
    else:
        tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *LETTERS]
        tokenizer = Siglip2Tokenizer(vocab={token: row for row, token in enumerate(tokens)}, merges=[])
    text = {**TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 64}
    vision = {**TOWER, "patch_size": 16, "num_patches": 16}
    model = Siglip2Model(Siglip2Config(text_config=text, vision_config=vision))
    return model, Siglip2Processor(Siglip2ImageProcessor(patch_size=16), tokenizer)


def align():
    """ALIGN: an EfficientNet and a BERT; texts padded to 64."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokenizer = BertTokenizer(vocab={token: row for row, token in enumerate(tokens)}, model_max_length=512)
    vision = {
        "kernel_sizes": [3, 3, 5],
        "in_channels": [32, 16, 24],
        "out_channels": [16, 24, 30],
        "hidden_dim": 64,
        "strides": [1, 1, 2],
        "num_block_repeats": [1, 1, 2],
        "expand_ratios": [1, 6, 6],
    }
    text = {**TOWER, "vocab_size": len(tokens)}
    model = AlignModel(AlignConfig(text_config=text, vision_config=vision, projection_dim=64))
    images = EfficientNetImageProcessor(size={"height": 40, "width": 40}, crop_size={"height": 32, "width": 32})
    return model, AlignProcessor(images, tokenizer)


FAMILIES = {"clip": clip, "siglip": siglip, "siglip2": siglip2, "align": align}
SENTENCE = "sentence-transformers"


def save_dual_encoder(family: str, folder, seed: int = 0) -> str:
    """Write a model of one of `FAMILIES`, or CLIP as `SENTENCE` saves it; returns the folder."""
    if family == SENTENCE:
        from sentence_transformers import SentenceTransformer

        SentenceTransformer(save_dual_encoder("clip", folder / "plain", seed), device="cpu").save(str(folder / "st"))
        return str(folder / "st")
    torch.manual_seed(seed)
    model, processor = FAMILIES[family]()
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)
