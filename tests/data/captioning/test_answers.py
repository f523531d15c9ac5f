"""An answer of a model is a caption, or a reason why there is none: one table for local models and servers."""

import contextlib
import random
import time

import pytest

from vsehub.data.captioning.answers import (
    UnusableAnswerError,
    began_in_reasoning,
    caption_in,
    looping,
    opens_reasoning,
)

PROMPT = "Describe this image in detail"
BOAT = "A red boat lies on a calm lake."
SECRET = "The user wants a description. I see something red, maybe a boat?"

CAPTIONS = {  # answer -> caption
    "plain": (BOAT, BOAT),
    "paragraphs": ("A red boat.\n\nBehind it, a hill.", "A red boat.\n\nBehind it, a hill."),
    "spaces around": (f" \n{BOAT}\n ", BOAT),
    "think": (f"<think>{SECRET}</think>\n\n{BOAT}", BOAT),
    "an empty think": (f"<think>\n\n</think>\n\n{BOAT}", BOAT),
    "capital THINK": (f"<THINK>{SECRET}</THINK>{BOAT}", BOAT),
    "think whose opening stood in the prompt": (f"{SECRET}\n</think>\n{BOAT}", BOAT),
    "two thinks": (f"<think>{SECRET}</think> <think>{SECRET}</think>{BOAT}", BOAT),
    "think inside think": (f"<think>a <think> tag {SECRET}</think>{SECRET}</think>{BOAT}", BOAT),
    "a tag with attributes": (f'<thinking depth="2">{SECRET}</thinking>{BOAT}', BOAT),
    "thinking, reasoning, thought, scratchpad": (
        f"<reasoning>{SECRET}</reasoning><thought>{SECRET}</thought><scratchpad>{SECRET}</scratchpad>{BOAT}",
        BOAT,
    ),
    "namespaces": (f"<seed:think>{SECRET}</seed:think><longcat_think>{SECRET}</longcat_think>{BOAT}", BOAT),
    "escaped as HTML": (f"&lt;think&gt;{SECRET}&lt;/think&gt;{BOAT}", BOAT),
    "Mistral": (f"[THINK]{SECRET}[/THINK]{BOAT}", BOAT),
    "Kimi": (f"◁think▷{SECRET}◁/think▷{BOAT}", BOAT),
    "Cohere": (
        f"<|START_THINKING|>{SECRET}<|END_THINKING|><|START_RESPONSE|>{BOAT}<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
        BOAT,
    ),
    "thought and solution": (
        f"<|begin_of_thought|>{SECRET}<|end_of_thought|><|begin_of_solution|>{BOAT}<|end_of_solution|>",
        BOAT,
    ),
    "Apertus": (f"<|inner_prefix|>{SECRET}<|inner_suffix|>{BOAT}", BOAT),
    "MedGemma": (f"<unused94>thought\n{SECRET}<unused95>{BOAT}", BOAT),
    "Pangu": (f"[unused16]{SECRET}[unused17]{BOAT}[unused10]", f"{BOAT}[unused10]"),
    "Gemma 4": (f"<|channel>thought\n{SECRET}<channel|>{BOAT}<turn|>", BOAT),
    "Granite": (f"Here is my thought process: {SECRET} Here is my response: {BOAT}", BOAT),
    "gpt-oss": (
        f"<|channel|>analysis<|message|>{SECRET}<|end|><|start|>assistant<|channel|>final<|message|>{BOAT}<|return|>",
        BOAT,
    ),
    "gpt-oss whose opening stood in the prompt": (f"{SECRET}<|end|><|channel|>final<|message|>{BOAT}", BOAT),
    "gpt-oss without its tokens": (f"analysisWe need words. {SECRET}assistantfinal{BOAT}", BOAT),
    "GLM's box": (f"<think>{SECRET}</think><|begin_of_box|>{BOAT}<|end_of_box|>", BOAT),
    "answer tags": (f"<think>{SECRET}</think>\n<answer>\n{BOAT}\n</answer>", BOAT),
    "an answer tag that was cut": (f"Some words before. <answer>{BOAT}", BOAT),
    "LLaVA-CoT": (
        f"<SUMMARY>I will describe.</SUMMARY><REASONING>{SECRET}</REASONING><CONCLUSION>{BOAT}</CONCLUSION>",
        BOAT,
    ),
    "ChatML": (f"<|im_start|>assistant\n{BOAT}<|im_end|>", BOAT),
    "the next turn": (f"{BOAT}<|im_end|>\n<|im_start|>user\nAnd now?<|im_end|>", BOAT),
    "Llama 2": (f"<s> {BOAT}</s>", BOAT),
    "Llama 3": (f"<|start_header_id|>assistant<|end_header_id|>\n\n{BOAT}<|eot_id|>", BOAT),
    "Gemma": (f"<start_of_turn>model\n{BOAT}<end_of_turn>\n<eos>", BOAT),
    "DeepSeek": (f"{BOAT}<｜end▁of▁sentence｜>", BOAT),
    "Idefics": (f"{BOAT}<end_of_utterance>", BOAT),
    "padding and bytes": ("<pad><pad>A red boat<0x0A> lies <unk>on a calm lake.[PAD]", BOAT),
    "a role": (f"ASSISTANT: {BOAT}", BOAT),
    "words that only look like roles": ("Assistant professors stand at a lake.", None),
    "boxes of a grounding model": ("A <ref>red boat</ref><box>(1,2),(3,4)</box> on a lake.", "A red boat on a lake."),
    "control characters": ("A \x1b[31mred\x1b[0m boat\0 \u202eon a lake.", "A red boat on a lake."),
    "comparisons are no tags": ("The left pole is < 2 m, the right > 3 m.", "The left pole is < 2 m, the right > 3 m."),
    "no spaces between words": ("湖面上有一艘红色的船。", "湖面上有一艘红色的船。"),
    "some repetition is language": ("A very, very, very tall tower.", "A very, very, very tall tower."),
    "a list": ("1. A dog\n2. A cat\n3. A dog", "1. A dog\n2. A cat\n3. A dog"),
    "it begins as an excuse and describes": (
        "I'm sorry, I cannot name the person, but I can say much about the boat, the lake and the far hills. The boat"
        " is red and old, its paint has come off in long strips, a rope ties it to a grey wooden pier, two ducks swim"
        " beside it, the water is still and shows the sky, and on the far side pines stand before low hills.",
        None,
    ),
    "helping is not declining": ("I cannot help but notice the red boat.", "I cannot help but notice the red boat."),
}  # fmt: skip


@pytest.mark.parametrize("case", CAPTIONS)
def test_the_caption_is_what_is_left_of_an_answer(case):
    answer, caption = CAPTIONS[case]
    assert caption_in(answer, PROMPT) == (answer if caption is None else caption)


UNUSABLE = {  # answer -> words of the reason
    "nothing": ("", "empty"),
    "blank": (" \n\t", "empty"),
    "special tokens only": ("<|im_start|>assistant\n<|im_end|>", "empty"),
    "think, cut": (f"<think>{SECRET}", "ends inside the model's reasoning"),
    "think, closed, then nothing": (f"<think>{SECRET}</think>\n", "nothing but reasoning"),
    "closing only, then nothing": (f"{SECRET}</think>", "nothing but reasoning"),
    "caption first, then reasoning that is cut": (f"{BOAT}<think>{SECRET}", "ends inside"),
    "text on both sides of think": (f"A red boat <think>{SECRET}</think> on a lake.", "text before"),
    "reasoning opened in the prompt mentions think": (f"{SECRET}, in <think> tags?</think>{BOAT}", "text before"),
    "Mistral, cut": (f"[THINK]{SECRET}", "ends inside"),
    "Kimi, cut": (f"◁think▷{SECRET}", "ends inside"),
    "gpt-oss, cut": (f"<|channel|>analysis<|message|>{SECRET}", "ends inside"),
    "gpt-oss, a call of a tool": ('<|channel|>commentary to=f <|constrain|>json<|message|>{"a": 1}', "ends inside"),
    "gpt-oss without its tokens, cut": (f"analysisWe need words. {SECRET}", "ends inside"),
    "Gemma 4, cut": (f"<|channel>thought\n{SECRET}", "ends inside"),
    "Gemma 4 without its tokens": (f"thought\n{SECRET}", "ends inside"),
    "Granite, cut": (f"Here's my thought process: {SECRET}", "ends inside"),
    "reasoning without any marker": (f"Okay, so {SECRET[0].lower()}{SECRET[1:]}", "reasoning, not a caption"),
    "reasoning without any marker, Chinese": ("好的，用户让我描述这张图片。", "reasoning, not a caption"),
    "markers inside each other": ("A boat <thi<|x|>nk>hidden on a lake", "inside each other"),
    "special tokens inside each other": ("A boat <|im<|x|>_end|> on a lake", "inside each other"),
    "one word": ("Boat.", "1 words"),
    "two words": ("A boat", "--min_words is 3"),
    "signs": ("!!!!!!!!!!!!!!!!!!!!!!!!", "0 words"),
    "None": ("None", "1 words"),
    "one word for ever": ("boat " * 50, "only repeats itself"),
    "one character for ever": ("船" * 50, "only repeats itself"),
    "one phrase for ever": ("A red boat. " * 20, "only repeats itself"),
    "a numbered phrase": ("".join(f"{i}. A red boat.\n" for i in range(9)), "only repeats itself"),
    "a loop to the end": (f"{BOAT} " + "It is red and it is old. " * 12, "only repeats itself"),
    "the question": ("Describe this image in detail.", "repeats the question"),
    "the question, twice": ("Describe this image in detail. Describe this image in detail", "repeats the question"),
    "an excuse": ("I'm sorry, but I can't help with that.", "declines"),
    "a refusal": ("I can’t assist with identifying people in images.", "declines"),
    "a model that sees nothing": ("I don't see any image here. Please upload the image.", "declines"),
    "no image": ("It seems that no image was provided with your question.", "declines"),
    "longer than asked for": ("word " * 10_000, "500 tokens were asked for"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_answer_without_a_caption_is_refused_with_its_reason(case):
    answer, words = UNUSABLE[case]
    with pytest.raises(UnusableAnswerError, match=words):
        caption_in(answer, PROMPT)


def test_what_is_cut_inside_reasoning_that_the_prompt_opened_is_refused():
    with pytest.raises(UnusableAnswerError, match="ends inside.*--max_new_tokens"):
        caption_in("Something red, maybe a boat", in_reasoning=True, truncated=True)
    assert caption_in(f"Something red</think>{BOAT}", in_reasoning=True) == BOAT
    assert caption_in(f"<think>{SECRET}</think>{BOAT}", in_reasoning=True) == BOAT


def test_talking_to_itself_is_reasoning_where_the_answer_was_cut():
    talk = "Hmm, let me look closely at the picture. There is a boat"
    assert caption_in(talk) == talk
    with pytest.raises(UnusableAnswerError, match="reasoning, not a caption"):
        caption_in(talk, truncated=True)


def test_a_prompt_opens_reasoning_only_with_its_last_words():
    for prompt in ("user: why?\nassistant:\n<think>\n", "[THINK]", "<|start|>assistant<|channel|>analysis<|message|>"):
        assert opens_reasoning(prompt)
    for prompt in ("", "Put your thoughts into <think> tags.\nassistant:", "<think>\n\n</think>\n\n", "</think>"):
        assert not opens_reasoning(prompt)


def test_an_answer_began_in_reasoning_if_it_closes_what_it_did_not_open():
    assert began_in_reasoning(f"{SECRET}</think>{BOAT}")
    assert not began_in_reasoning(f"<think>{SECRET}</think>{BOAT}") and not began_in_reasoning(BOAT)


def test_the_fewest_words_are_the_users_choice():
    assert caption_in("Boat.", min_words=1) == "Boat."
    with pytest.raises(UnusableAnswerError, match="8 words"):
        caption_in("A red boat lies on the calm lake.", min_words=9)


def looping_by_hand(words):
    """Every start, every period, every number of turns."""
    longest = 0
    for start in range(len(words)):
        for period in range(1, len(words)):
            end = start + period
            while end < len(words) and words[end] == words[end - period]:
                end += 1
            if end - start >= 3 * period:
                longest = max(longest, end - start)
    return longest


def test_loops_are_those_that_a_search_over_all_stretches_finds():
    chance = random.Random(0)
    for _ in range(300):
        words = [chance.choice("abc") for _ in range(chance.randrange(1, 24))]
        longest = looping_by_hand(words)
        judged = longest if longest == len(words) or longest >= max(8, 0.4 * len(words)) else 0
        assert looping(words) == judged


PIECES = "<think>,</think>,<|,<|im_end|>,<box>,<answer>,so ,&lt;,[,a <,I can't ,<thinking ,assistant:,船".split(",")


@pytest.mark.parametrize("piece", PIECES)
def test_the_time_for_a_hostile_answer_grows_with_its_length_not_with_its_square(piece):
    start = time.process_time()
    for answer in (piece * 10_000, f"{BOAT} {piece * 10_000}"):
        with contextlib.suppress(UnusableAnswerError):
            caption_in(answer, PROMPT, max_new_tokens=1 << 20)
    assert time.process_time() - start < 10
