"""The text of an answer in every form, and one reason for each answer that has none."""

import json

import pytest

from vsehub.data.captioning.answers import UnusableAnswerError
from vsehub.data.captioning.chat_message import content_of, joined, refused_with_200, text_of
from vsehub.data.captioning.transport import MAX_REASON_CHARACTERS, RefusedError

TEXT = "A red boat lies on a calm lake."
THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        {"type": "text", "text": TEXT},
        {"text": TEXT},
        [{"type": "output_text", "text": TEXT}],
        [THINKING, {"type": "text", "text": TEXT}],
        [{"type": "text", "text": "A red boat"}, "", {"type": "text", "text": "lies on a calm"}, " lake."],
        [{"type": "image_url", "image_url": {"url": "x"}}, TEXT],
        [{"type": "text", "text": TEXT, "refusal": None}],
    ],
    ids=str,
)
@pytest.mark.parametrize("end", ["stop", "length", "content_filter", None])
def test_text_is_returned_whatever_its_form_and_however_it_ended(content, end):
    assert content_of({"content": content, "reasoning_content": "hm", "refusal": None, "tool_calls": []}, end) == TEXT


@pytest.mark.parametrize(
    ("message", "end", "words"),
    [
        ({}, None, r"empty answer \(finish_reason None\)"),
        ({"content": None}, "stop", r"empty answer \(finish_reason 'stop'\)"),
        ({"content": " \n"}, "stop", "empty answer"),
        ({"content": []}, "stop", "empty answer"),
        ({"content": [THINKING]}, "stop", "empty answer"),
        ({"content": ""}, "length", "cut before the first word; raise --max_new_tokens"),
        ({"content": ""}, "MAX_TOKENS", "cut before the first word"),
        ({"content": None, "reasoning_content": "hm"}, "length", "nothing but reasoning; raise --max_new_tokens"),
        ({"content": None, "reasoning": "hm"}, "stop", "nothing but reasoning"),
        ({"content": None, "reasoning_details": [{}]}, "stop", "nothing but reasoning"),
        ({"content": None, "thinking": "hm"}, "stop", "nothing but reasoning"),
        ({"content": None, "tool_calls": [{"id": "1"}]}, "tool_calls", "a call of a tool in place of a caption"),
        ({"content": None, "function_call": {"name": "f"}}, "stop", "a call of a tool"),
    ],
    ids=str,
)
def test_an_answer_without_text_says_what_was_there_in_its_place(message, end, words):
    with pytest.raises(UnusableAnswerError, match=words):
        content_of(message, end)


def test_a_caption_of_parts_may_hold_the_word_refusal():
    assert content_of({"content": ["A sign says refusal", {"type": "text", "text": "of entry"}]}, "stop") == (
        "A sign says refusal of entry"
    )


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "refusal": "No faces."},
        {"content": TEXT, "refusal": "No faces."},
        {"content": {"type": "refusal", "refusal": "No faces."}},
        {"content": [TEXT, {"type": "refusal", "refusal": "No faces."}]},
    ],
    ids=str,
)
def test_a_model_that_declines_is_not_asked_again(message):
    with pytest.raises(RefusedError, match="the model declines: No faces.") as refused:
        content_of(message, "stop")
    assert not refused.value.again and not refused.value.server


def test_the_words_of_a_refusal_are_one_short_line():
    with pytest.raises(RefusedError) as refused:
        content_of({"refusal": "no\n\x1b[2J" + "o" * 9999}, "stop")
    reason = str(refused.value)
    assert reason.startswith(r"the model declines: no \x1b[2Jooo") and len(reason) < MAX_REASON_CHARACTERS + 30


@pytest.mark.parametrize("end", ["content_filter", "SAFETY"])
def test_text_that_a_filter_withheld_is_not_asked_for_again(end):
    with pytest.raises(RefusedError, match=f"withheld the answer .finish_reason '{end}'") as refused:
        content_of({"content": None, "reasoning": "hm"}, end)
    assert not refused.value.again and not refused.value.server


@pytest.mark.parametrize("content", [7, True, 0.5])
def test_content_of_another_type_is_no_answer_of_this_format(content):
    with pytest.raises(TypeError, match=f"content is {type(content).__name__}"):
        content_of({"content": content}, "stop")


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([], ""),
        (["a red", "boat"], "a red boat"),
        (["a red ", "boat"], "a red boat"),
        (["a red", " boat"], "a red boat"),
        (["A boat.", "It lies"], "A boat. It lies"),
        (["a boat", "."], "a boat."),
        (["a boat (", "red", ")", "lies"], "a boat (red) lies"),
        (["a\n", "b"], "a\nb"),
        (["湖上", "红船"], "湖上红船"),  # words that no space parts
    ],
)
def test_parts_are_joined_with_a_space_only_where_two_words_would_meet(parts, expected):
    assert joined(parts) == expected


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("plain", "plain"),
        ({"text": "a"}, "a"),
        ({"type": "text", "text": "a"}, "a"),
        ({"type": "output_text", "text": "a"}, "a"),
        ({"type": "thinking", "text": "a"}, ""),
        ({"type": "reasoning", "text": "a"}, ""),
        ({"type": "text", "text": None}, ""),
        ({"type": "text", "text": {"value": "a"}}, ""),
        ({}, ""),
    ],
    ids=str,
)
def test_only_parts_of_text_have_text(part, expected):
    assert text_of(part) == expected


@pytest.mark.parametrize(
    ("error", "code", "again", "server"),
    [
        ({"message": "upstream failed", "code": 502}, 502, True, True),
        ({"message": "upstream failed", "code": 400}, 400, False, False),
        ({"message": "upstream failed", "code": "rate_limit"}, 500, True, False),
        ({"message": "upstream failed", "code": True}, 500, True, False),
        ({"message": "upstream failed", "code": 200}, 500, True, False),
        ({"message": "upstream failed"}, 500, True, False),
        ("upstream failed", 500, True, False),
    ],
    ids=str,
)
def test_an_error_sent_as_an_answer_is_judged_by_the_code_in_it(error, code, again, server):
    refused = refused_with_200(error, "")
    assert (refused.code, refused.again, refused.server) == (code, again, server)
    assert str(refused) == f"HTTP {code} upstream failed" and json.loads(refused.text) == {"error": error}


def test_an_error_sent_as_an_answer_is_told_without_the_key():
    assert str(refused_with_200({"message": "bad key sk-1234"}, "sk-1234")) == "HTTP 500 bad key [key]"
