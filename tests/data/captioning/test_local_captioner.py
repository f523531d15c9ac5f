"""A tiny LLaVA, from its folder to a table of captions."""

import os

import pytest
from caption_folder import ids_of, paint, rows_of
from PIL import Image

from vsehub.data.captioning.caption_job import caption_images, main
from vsehub.data.captioning.journal import Journal
from vsehub.data.captioning.local_captioner import TransformersCaptioner
from vsehub.data.captioning.request import Caption, CaptionRequest, Failure

WORDS = [
    "a",
    "the",
    "cat",
    "dog",
    "red",
    "blue",
    "sky",
    "tree",
    "house",
    "on",
    "in",
    "under",
    "big",
    "small",
    "river",
    "road",
    "field",
    "roof",
    "car",
    "boat",
]
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} : {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)


def build_llava(path, template=TEMPLATE, **generation):
    """Save a random LLaVA of 20,000 weights with its processor."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "user", "assistant", ":", *WORDS]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    pixels = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    LlavaProcessor(pixels, tokenizer, patch_size=8, vision_feature_select_strategy="default",
                   num_additional_image_tokens=1, chat_template=template).save_pretrained(path)  # fmt: skip
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=16, patch_size=8, projection_dim=16, **size),
        text_config=LlamaConfig(vocab_size=len(words), max_position_embeddings=256, num_key_value_heads=4, **size),
        image_token_index=4,
        image_seq_length=4,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.update(**{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **generation})
    model.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    return build_llava(tmp_path_factory.mktemp("llava"))


def local(llava, batch_size=5, max_new_tokens=6, **more):
    request = CaptionRequest(max_new_tokens=max_new_tokens, **{"min_words": 1, **more})
    return TransformersCaptioner(llava, request, batch_size=batch_size)


def test_a_tiny_llava_captions_a_folder_through_the_command(llava, folder, tmp_path, capsys):
    out = tmp_path / "d.parquet"
    options = ["--max_new_tokens", "6", "--batch_size", "5", "--temperature", "1.5"]
    assert main([str(folder), "--model", llava, "--out", str(out), *options]) == 0
    rows = rows_of(out)
    assert [row["image_id"] for row in rows] == ids_of(folder)
    request = CaptionRequest(max_new_tokens=6, temperature=1.5)
    assert {(row["model_id"], row["prompt_hash"]) for row in rows} == {(llava, request.prompt_hash)}
    assert all(row["revision"].startswith("local-") for row in rows)
    known = {*WORDS, "user", "assistant", ":"}
    assert all(row["dense_text"] and set(row["dense_text"].split()) <= known for row in rows)
    assert all(row["truncated"] == (row["num_tokens"] == 6) for row in rows)
    assert f"{out}: 12 captions" in capsys.readouterr().out


def test_a_killed_and_resumed_local_job_draws_what_an_unbroken_one_draws(llava, folder, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole.parquet", tmp_path / "broken.parquet"
    caption_images(folder, whole, local(llava, temperature=2.0))
    real = Journal.append

    def last(journal, *outcomes):
        real(journal, *outcomes)
        raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Journal, "append", last)
            caption_images(folder, broken, local(llava, temperature=2.0))
    caption_images(folder, broken, local(llava, temperature=2.0))
    assert rows_of(broken) == rows_of(whole)
    other = tmp_path / "other.parquet"
    caption_images(folder, other, local(llava, temperature=2.0, seed=1))
    assert [r["dense_text"] for r in rows_of(other)] != [r["dense_text"] for r in rows_of(whole)]


def test_the_answer_is_what_generate_adds_to_the_prompt_and_ends_at_eos(llava, folder, tmp_path):
    import torch

    captioner = local(llava, temperature=0.0)
    captioner.load()
    answers = captioner._generate([("a", paint(1)), ("b", paint(30))])
    for (answer, truncated, num_tokens), image in zip(answers, (paint(1), paint(30))):
        prompt = "user : <image> Describe this image in detail assistant :"
        inputs = captioner.processor(images=image, text=prompt, return_tensors="pt")
        tokens = captioner.model.generate(**inputs, do_sample=False, max_new_tokens=6)[0]
        new = tokens[inputs["input_ids"].shape[1] :]
        stopped = bool(torch.isin(new, torch.tensor([2])).any())
        assert answer == captioner.processor.tokenizer.decode(new, skip_special_tokens=True)
        assert truncated is not stopped and num_tokens == len(new) - stopped


def test_an_answer_that_stops_early_is_not_truncated_and_an_empty_one_is_a_bad_sample(folder, tmp_path, capsys):
    half = build_llava(tmp_path / "half", eos_token_id=[2, *range(8, 18)])  # stops at half of its words
    caption_images(folder, tmp_path / "a.parquet", local(half, 5, 12, temperature=2.0), on_bad_sample="quarantine")
    rows = rows_of(tmp_path / "a.parquet")
    assert all(row["truncated"] == (row["num_tokens"] == 12) for row in rows)
    assert any(6 <= row["num_tokens"] < 12 for row in rows)
    assert not any(set(row["dense_text"].split()) & set(WORDS[:10]) for row in rows)
    mute = build_llava(tmp_path / "mute", eos_token_id=list(range(28)))
    assert main([str(folder), "--model", mute, "--out", str(tmp_path / "b.parquet"), "--max_new_tokens", "3"]) == 2
    assert "empty answer" in capsys.readouterr().err


def test_a_processor_without_a_chat_template_is_asked_as_llava_is(folder, tmp_path):
    captioner = local(build_llava(tmp_path / "plain", template=None), temperature=0.0)
    (outcomes,) = captioner.captions([("a", paint(1))])
    ids = captioner._inputs([("a", paint(1))])["input_ids"][0].tolist()
    assert ids.count(4) == 4 and isinstance(outcomes[0], Caption)
    assert captioner.processor.tokenizer.padding_side == "left"


def test_one_picture_that_the_processor_refuses_does_not_spoil_its_batch(llava, monkeypatch):
    captioner = local(llava)
    captioner.load()
    monkeypatch.setattr(captioner, "load", lambda: None)
    monkeypatch.setattr(captioner, "processor", PickyProcessor(captioner.processor))
    (outcomes,) = captioner.captions([("a", paint(1)), ("thin", Image.new("RGB", (1, 9))), ("b", paint(2))])
    assert [type(outcome) for outcome in outcomes] == [Caption, Failure, Caption]


class PickyProcessor:
    def __init__(self, real):
        self.real = real

    def __getattr__(self, name):
        return getattr(self.real, name)

    def __call__(self, images, **kwargs):
        if any(image.width < 2 for (image,) in images):
            raise ValueError("too thin")
        return self.real(images=images, **kwargs)


def test_the_revision_of_a_folder_changes_with_its_weights(llava, tmp_path):
    import shutil

    copy = shutil.copytree(llava, tmp_path / "copy")
    same = TransformersCaptioner(str(copy)).identity()["revision"]
    assert same == TransformersCaptioner(llava).identity()["revision"]
    with open(copy / "model.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    assert same != TransformersCaptioner(str(copy)).identity()["revision"]
