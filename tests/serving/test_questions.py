"""What a request may ask, and the one line for what it may not."""

import json

import pytest

from vsehub.hub_cards.handler import TooMuchError
from vsehub.serving import questions
from vsehub.serving.questions import Limits, read_embedding, read_question

LIMITS = Limits(hits=50, batch=3)


def asked(**content):
    return read_question(json.dumps(content).encode(), LIMITS)


def embedding(**content):
    return read_embedding(json.dumps(content).encode(), LIMITS, 16, ("tiny", "default"))


def test_a_question_is_read_with_its_parts():
    question = asked(text="a dog", image="AAAA", weight=0.25, k=3, cutoff=None, plus="snow", minus=[{"image": "BBBB"}])
    assert (question.text, question.weight, question.k, question.cutoff) == ("a dog", 0.25, 3, None)
    assert question.plus == [({"text": "snow"}, 1.0)] and question.images == ["AAAA", "BBBB"]
    assert asked(like="0" * 16).cutoff == "auto" and asked(text="a", like=None, k=None).k == 10
    assert asked(plus=[{"text": "a", "weight": 0.5}]).plus == [({"text": "a"}, 0.5)]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"text": "a", "cutoff": NaN}', "no JSON"),
        (b'{"k": ' + b"9" * 5000 + b"}", "no JSON"),
        (b'["a"]', "must be a JSON object"),
        (b"{}", "nothing to look for"),
        (b'{"txet": "a"}', "did you mean 'text'"),
        (b'{"text": ""}', "must be a string with words"),
        (b'{"text": 3}', "text must be a string"),
        (b'{"text": ["a"]}', "text must be a string"),
        (b'{"image": {"path": "a.jpg"}}', "image must be a string"),
        (b'{"text": "a", "weight": 2}', "weight must be a number from 0 to 1"),
        (b'{"text": "a", "weight": true}', "weight must be a number"),
        (b'{"text": "a", "cutoff": "none"}', "cutoff must be a number"),
        (b'{"text": "a", "cutoff": 1e999}', "cutoff must be a number"),
        (b'{"text": "a", "k": 0}', "k must be a whole number"),
        (b'{"text": "a", "k": 1.5}', "k must be a whole number"),
        (b'{"text": "a", "k": 3.0}', "k must be a whole number"),
        (b'{"text": "a", "k": true}', "k must be a whole number"),
        (b'{"text": "a", "k": "3"}', "k must be a whole number"),
        (b'{"text": "a", "cutoff": false}', "cutoff must be a number"),
        (b'{"text": "a", "plus": {"text": "b", "weight": null}}', "the weight in plus must be a number"),
        (b'{"text": "a", "like": "b"}', "a query of its own"),
        (b'{"text": "a", "plus": [3]}', "plus takes texts"),
        (b'{"text": "a", "minus": {"path": "a.jpg"}}', "minus takes texts"),
        (b'{"text": "a", "plus": {"text": "b", "weight": 0}}', "the weight in plus must be a number"),
        (b'{"text": "a", "plus": {"image": ["b"]}}', "is a string"),
    ],
)  # fmt: skip
def test_what_is_no_question_is_one_line(body, said):
    with pytest.raises(ValueError, match=said) as error:
        read_question(body, LIMITS)
    assert not isinstance(error.value, TooMuchError) and "\n" not in str(error.value)


@pytest.mark.parametrize("more", [{"k": 51}, {"k": 10**4000}, {"plus": ["a"] * 9}, {"text": "a" * 10_001}])
def test_what_asks_for_too_much_says_how_much_there_is(more):
    with pytest.raises(TooMuchError, match="at most") as error:
        asked(**{"text": "a", **more})
    assert len(str(error.value)) < 200


def test_what_is_refused_is_refused_before_it_is_worked_on(monkeypatch):
    def never(*args, **options):
        raise AssertionError("worked on")

    with monkeypatch.context() as patched:
        patched.setattr(questions, "_part", never)
        for more in ({"plus": ["a"] * 9}, {"plus": ["a"] * 5, "minus": ["a"] * 4}, {"minus": [3] * 9}):
            with pytest.raises(TooMuchError, match="at most 8 parts"):
                asked(text="a", **more)
    seen = []
    monkeypatch.setattr(questions.difflib, "get_close_matches", lambda word, *rest: seen.append(word) or [])
    with pytest.raises(ValueError, match="there is no field 'bbb") as error:
        asked(**{"b" * 100_000: 1})
    assert seen == ["b" * 40] and len(str(error.value)) < 200


def test_embeddings_are_read_in_order():
    assert embedding(input="a dog").items == [("text", "a dog")]
    read = embedding(input=["a", {"image": "AAAA"}, {"text": "b"}], model="tiny", encoding_format="base64", user="me")
    assert read.items == [("text", "a"), ("image", "AAAA"), ("text", "b")] and read.packed
    assert not embedding(input=["a"], model="default", dimensions=16).packed
    assert not embedding(input=["a"], model=None, dimensions=None, encoding_format=None, user=None).packed


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "input"),
        ({"input": []}, "input must be a text"),
        ({"input": [1, 2]}, "tokens are not read"),
        ({"input": [[1, 2]]}, "tokens are not read"),
        ({"input": ["a", ""]}, "with words"),
        ({"input": {"url": "http://a"}}, "input takes texts"),
        ({"input": "a", "model": "gpt"}, "there is one model here, 'tiny'"),
        ({"input": "a", "dimensions": 8}, "have 16 dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "float or base64"),
        *(({"input": "a", "encoding_format": wrong}, "float or base64") for wrong in (0, "", [], {}, False)),
        *(({"input": "a", "dimensions": wrong}, "have 16 dimensions") for wrong in (16.0, "16", [16], True)),
        ({"input": "a", "model": ["tiny"]}, "there is one model here"),
        ({"input": "a", "user": 3}, "user must be a string"),
        ({"input": [None]}, "input takes texts"),
        ({"input": "a", "stream": True}, "no field 'stream'"),
        ({"input": ["a"] * 4}, "at most 3 texts and pictures"),
    ],
)
def test_what_is_no_request_for_embeddings_is_one_line(content, said):
    with pytest.raises(ValueError, match=said):
        embedding(**content)
