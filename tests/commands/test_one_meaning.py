"""One name, one meaning: a flag that several verbs have takes the same kind of value in all of them."""

import importlib
from dataclasses import fields
from pathlib import Path

import pytest

from vsehub import commands
from vsehub.commands import flags
from vsehub.commands.parser import STDOUT, Parser
from vsehub.training.flags.own_arguments import OURS

VERBS = sorted(path.stem for path in Path(commands.__file__).parent.glob("*.py"))
OTHERWISE = {  # (verb, flag): why it differs
    ("analyse", "model"): "several models side by side",
    ("teachers", "split"): "features for several splits at once",
    ("explain", "text"): "several texts are compared with one picture",
    ("teachers", "image"): "the former spelling of --vision",
    ("teachers", "text"): "a tower, as for training",
}
SUBJECT = {"data", "index"}  # what a verb is about may be given by place, and always by name


@pytest.fixture(scope="module")
def parsers():
    """The parser of every verb, by the name of its file."""

    class StoppedError(Exception):
        pass

    def stop(parser, *args, **kwargs):
        made.append(parser)
        raise StoppedError

    by_verb = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parser, "parse_args", stop)
        for verb in VERBS:
            made, module = [], importlib.import_module(f"vsehub.commands.{verb}")
            if hasattr(module, "main") and verb not in ("train", "convert"):
                with pytest.raises(StoppedError):
                    module.main(["x"])
                by_verb[verb] = made[0]
    assert len(by_verb) > 15
    return by_verb


def actions_of(parser) -> dict:
    return {name[2:]: action for name, action in parser._option_string_actions.items() if name.startswith("--")}


def test_a_name_has_one_kind_of_value(parsers):
    kinds = {}
    for verb, parser in parsers.items():
        for name, action in actions_of(parser).items():
            if (verb, name) not in OTHERWISE:
                kind = (type(action).__name__, action.nargs, action.type)
                kinds.setdefault(name, {}).setdefault(kind, []).append(verb)
    mixed = {name: uses for name, uses in kinds.items() if len(uses) > 1}
    assert set(mixed) <= {"seed", "temperature", "k", "top"}, mixed
    assert {"json", "quiet", "data", "device", "split", "model", "out", "image_root"} <= set(kinds)


def test_exceptions_are_still_there(parsers):
    for verb, name in OTHERWISE:
        assert name in actions_of(parsers[verb]), (verb, name)


def test_choices_of_a_name_are_parts_of_one_list(parsers):
    lists = {}
    for parser in parsers.values():
        for name, action in actions_of(parser).items():
            if action.choices:
                lists.setdefault(name, []).append(set(action.choices))
    for name, all_choices in lists.items():
        if name != "to":  # formats of a model, formats of an index
            assert all(choices <= max(all_choices, key=len) for choices in all_choices), name


def test_what_all_verbs_share(parsers):
    for verb, parser in parsers.items():
        actions = actions_of(parser)
        assert "quiet" in actions, verb
        assert ("k" in actions) == ("top" in actions), verb
        if "json" in actions:
            assert (actions["json"].nargs, actions["json"].const) == ("?", STDOUT), verb
        if "dtype" in actions:
            assert actions["dtype"].type is flags.dtype_name, verb
        if "device" in actions:
            assert actions["device"].type is flags.device_name, verb


def test_the_subject_of_a_verb_is_given_by_place_or_by_name(parsers):
    for verb, parser in parsers.items():
        places = {name for name, _ in parser.places}
        required = {action.dest for action in actions_of(parser).values() if action.required}
        assert not required & SUBJECT, f"{verb}: {required & SUBJECT} could be given by place"
        assert all(name in actions_of(parser) for name in places), verb


def test_training_reads_rows_by_the_names_of_the_verbs(parsers):
    ours = {item.name for kind in OURS["d2s"][:2] for item in fields(kind)}
    shared = {"data", "image_root", "data_config", "image_column", "captions_column", "id_column", "on_bad_sample"}
    assert shared <= ours and shared <= set(actions_of(parsers["evaluate"]))
    assert {"vision", "text"} <= ours & set(actions_of(parsers["teachers"]))
