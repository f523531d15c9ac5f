"""A command line: two spellings, arguments by place or by name, one line for what is wrong."""

import pytest

from vsehub.commands.parser import Parser


def test_help_shows_places_an_example_and_defaults(parser, capsys):
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(["--help"])
    said = capsys.readouterr().out
    assert stopped.value.code == 0 and "usage: vsehub fly MODEL [OUT] [--flag ...]" in said
    assert "example: vsehub fly model.zip --wing_span 3" in said and "--quiet" in said


@pytest.mark.parametrize(
    "words",
    [
        ["m", "o", "--wing_span", "5"],
        ["m", "--wing-span", "5", "o"],
        ["--wing-span=5", "--model", "m", "o"],
        ["--out=o", "m", "--wing_span=5"],
        ["--wing_span", "5", "--", "m", "o"],
    ],
)
def test_places_names_and_dashes_say_the_same(parser, words):
    args = parser.parse_args(words)
    assert (args.model, args.out, args.wing_span) == ("m", "o", 5)


def test_a_value_keeps_its_dashes_and_what_stands_behind_two_dashes_is_no_flag(parser):
    assert parser.parse_args(["a-b", "--out=--c-d"]).out == "--c-d"
    assert parser.parse_args(["--", "--wing-span"]).model == "--wing-span"
    assert parser.parse_args(["-5"]).model == "-5"


@pytest.mark.parametrize(
    "words",
    [
        ["idx", "a", "red", "boat", "--k", "3"],
        ["idx", "a", "--k", "3", "red", "boat"],
        ["--index", "idx", "a", "red", "boat"],
        ["idx", "a red boat"],
        ["idx", "--text", "a red boat"],
    ],
)
def test_a_text_needs_no_quotes(words):
    parser = Parser("look", "Look.", "look IDX a red boat")
    parser.add_place("index", "an index")
    parser.add_place("text", "a text", required=False, joins=True)
    parser.add("--k", type=int)
    args = parser.parse_args(words)
    assert (args.index, args.text) == ("idx", "a red boat")
    with pytest.raises(ValueError, match="the text is given twice"):
        parser.parse_args(["idx", "more", "--text", "a red boat"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "MODEL is missing; usage: vsehub fly MODEL"),
        (["m", "--wing_spam", "3"], "there is no flag --wing_spam; did you mean --wing_span?"),
        (["m", "--zzz"], "there is no flag --zzz; `vsehub fly --help` lists them"),
        (["m", "--wing_span", "0"], "argument --wing_span: must be a whole number of at least 1, not 0"),
        (["m", "--wing_span", "wide"], "must be a whole number of at least 1, not wide"),
        (["m", "--pair", "a"], "argument --pair: expected 2 arguments"),
        (["m", "o", "a", "b"], "too many words, from 'a b' on; quote a text of several words"),
        (["m", "o", "--out", "p"], "the out is given twice"),
    ],
)
def test_what_is_wrong_is_one_error_that_names_flag_and_remedy(parser, words, said):
    with pytest.raises(ValueError, match=".") as failure:
        parser.parse_args(words)
    assert said in str(failure.value)


def test_a_flag_that_would_change_nothing_is_refused_and_a_default_is_not(parser):
    parser.add_need("wing_span", "OUT", lambda args: args.out)
    parser.add_rivals("wing_span", "pair")
    assert parser.parse_args(["m"]).wing_span == 2
    assert parser.parse_args(["m", "o", "--wing_span", "2"]).wing_span == 2
    with pytest.raises(ValueError, match="--wing_span changes nothing without OUT: add that, or leave --wing_span out"):
        parser.parse_args(["m", "--wing-span", "2"])
    with pytest.raises(ValueError, match="--wing_span and --pair contradict each other: leave one of them out"):
        parser.parse_args(["m", "o", "--wing-span", "2", "--pair", "a", "b"])
