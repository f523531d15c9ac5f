"""A tiny LLaVA, from its folder to a table of captions."""

import os

import pytest
from caption_folder import ids_of, paint, rows_of
from PIL import Image

from vsehub.__main__ import main
from vsehub.data.captioning.caption_job import caption_images
from vsehub.data.captioning.journal import Journal
from vsehub.data.captioning.local_captioner import TransformersCaptioner
from vsehub.data.captioning.request import Caption, CaptionError, CaptionRequest, Failure

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


def build_llava(path, template=TEMPLATE, special=(), **generation):
    """Save a random LLaVA of 20,000 weights with its processor; `special` are more special tokens, from id 28 on."""
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

    words = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "user", "assistant", ":", *WORDS, *special]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>", **{f"token_{word}": word for word in special}},
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
    assert main(["caption", str(folder), "--model", llava, "--out", str(out), *options]) == 0
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
    assert (
        main(["caption", str(folder), "--model", mute, "--out", str(tmp_path / "b.parquet"), "--max_new_tokens", "3"])
        == 2
    )
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


# --- Answers that are no captions, faults of the model ----------------------------------------------------------------


def answering(captioner, monkeypatch, *answers):
    """Let the model generate these words, one answer a picture, over and over; return the list of its calls."""
    import torch

    captioner.load()
    calls, vocabulary = [], captioner.processor.tokenizer.get_vocab()

    def generate(input_ids, **_):
        calls.append(len(input_ids))
        rows = [[vocabulary[word] for word in answers[i % len(answers)].split()] for i in range(len(input_ids))]
        width = max(map(len, rows))
        rows = torch.tensor([row + [2] * (width - len(row)) for row in rows])
        return torch.cat([input_ids, rows], 1)

    monkeypatch.setattr(captioner.model, "generate", generate)
    monkeypatch.setattr(captioner, "load", lambda: None)
    return calls


def outcomes_of(captioner, count=2):
    return [
        outcome for outcomes in captioner.captions([(str(i), paint(i)) for i in range(count)]) for outcome in outcomes
    ]


@pytest.fixture(scope="module")
def thinker(tmp_path_factory):
    template = TEMPLATE.replace("assistant :", "assistant : {% if enable_thinking is not false %}[THINK]{% endif %}")
    return build_llava(tmp_path_factory.mktemp("thinker"), template, ["[THINK]", "[/THINK]", "<|im_end|>"])


def test_reasoning_between_special_tokens_is_removed_before_they_are_dropped(thinker, monkeypatch):
    captioner = local(thinker, max_new_tokens=20)
    answering(
        captioner, monkeypatch, "[THINK] the sky big [/THINK] a red cat on the roof", "a red car in the road <|im_end|>"
    )
    assert [outcome.dense_text for outcome in outcomes_of(captioner)] == [
        "a red cat on the roof",
        "a red car in the road",
    ]


def test_reasoning_that_is_cut_is_no_caption(thinker, monkeypatch):
    captioner = local(thinker, max_new_tokens=20)
    answering(captioner, monkeypatch, "[THINK] the sky big under")
    assert ["ends inside the model's reasoning" in outcome.reason for outcome in outcomes_of(captioner)] == [True, True]


def test_a_template_is_told_not_to_open_reasoning_and_what_it_opens_is_no_caption(thinker, tmp_path, monkeypatch):
    captioner = local(thinker)
    captioner.load()
    assert captioner.prompt.endswith("assistant : ")
    opener = build_llava(
        tmp_path / "opener", TEMPLATE.replace("assistant :", "assistant : [THINK]"), ["[THINK]", "[/THINK]"]
    )
    captioner = local(opener, max_new_tokens=20)
    answering(captioner, monkeypatch, "the sky big under", "the sky big [/THINK] a red cat on the roof")
    first, second = outcomes_of(captioner)
    assert "ends inside" in first.reason and second.dense_text == "a red cat on the roof"


@pytest.mark.parametrize("temperature, calls", [(0.0, [2]), (0.5, [2, 1])])
def test_an_unusable_answer_is_drawn_once_more_where_a_draw_can_differ(llava, monkeypatch, temperature, calls):
    captioner = local(llava, max_new_tokens=20, temperature=temperature, min_words=3)
    made = answering(captioner, monkeypatch, "a red cat", "dog dog dog dog dog")
    first, second = outcomes_of(captioner)
    assert first.dense_text == "a red cat" and made == calls
    assert second.dense_text == "a red cat" if len(calls) > 1 else "only repeats itself" in second.reason


def test_a_picture_that_the_model_fails_on_is_reported_and_a_model_that_always_fails_stops_the_run(llava, monkeypatch):
    captioner = local(llava, max_new_tokens=20)
    answering(captioner, monkeypatch, "a red cat")
    works = captioner.model.generate

    def fails(input_ids, pixel_values, **more):
        if (pixel_values > 1.9).any():  # the white one
            raise RuntimeError("Image features and image tokens do not match")
        return works(input_ids, pixel_values=pixel_values, **more)

    monkeypatch.setattr(captioner.model, "generate", fails)
    white = Image.new("RGB", (24, 16), (255, 255, 255))
    (outcomes,) = captioner.captions([("white", white), ("a", paint(1))])
    assert [type(outcome) for outcome in outcomes] == [Failure, Caption] and "do not match" in outcomes[0].reason

    def broken(**_):
        raise IndexError("index out of range in self")

    captioner = local(llava)
    captioner.load()
    monkeypatch.setattr(captioner, "load", lambda: None)
    monkeypatch.setattr(captioner.model, "generate", broken)
    with pytest.raises(CaptionError, match="fails on a plain picture as well.*index out of range"):
        outcomes_of(captioner)


def test_a_template_that_takes_no_picture_is_one_line(folder, tmp_path, capsys):
    refusing = build_llava(tmp_path / "refusing", "{{ raise_exception('only text') }}")
    assert main(["caption", str(folder), "--model", refusing, "--out", str(tmp_path / "d.parquet")]) == 2
    assert "its chat template refuses a picture with a question" in capsys.readouterr().err.splitlines()[-1]


def test_pictures_are_shrunk_to_the_largest_side_that_is_asked_for(llava):
    captioner, seen = local(llava, max_image_side=20), []
    captioner.load()
    real = captioner.processor
    captioner.processor = lambda images, **more: (
        seen.extend(image.size for (image,) in images) or real(images=images, **more)
    )
    captioner._inputs([("a", Image.new("RGB", (40, 10))), ("b", Image.new("RGB", (12, 18)))])
    assert seen == [(20, 5), (12, 18)]
