from pathlib import Path

import pytest

import vsehub
from vsehub.commands import train
from vsehub.training import run_d2s
from vsehub.training.d2s_stages import STAGES
from vsehub.training.flags.arguments import D2S_ARGUMENTS, PIR_ARGUMENTS
from vsehub.training.flags.recipe import parse_stages, read_recipe
from vsehub.training.pir_stages import STAGES as PIR_STAGES

RECIPES = sorted((Path(vsehub.__file__).parent / "training" / "recipes").glob("*.yaml"))


def parse(tmp_path, text, *flags):
    (tmp_path / "recipe.yaml").write_text(text)
    parsed, wanted = parse_stages([str(tmp_path / "recipe.yaml"), *flags], STAGES, D2S_ARGUMENTS)
    return parsed, wanted


def test_a_stage_overrides_the_recipe_and_a_flag_overrides_both(tmp_path):
    text = "learning_rate: 1.0e-3\nmax_steps: 5\npretrain: {max_steps: 7}\nlr_milestones: [9, 15]\nmargin: 0.3"
    parsed, wanted = parse(tmp_path, text, "--finetune.max_steps", "9", "--margin", "0.1")
    assert wanted == ["pretrain", "finetune"]
    assert [parsed[stage][3].max_steps for stage in STAGES] == [7, 9, 5]
    assert {parsed[stage][3].learning_rate for stage in STAGES} == {1e-3}
    assert parsed["pretrain"][2].margin == 0.1 and parsed["pretrain"][3].lr_milestones == [9.0, 15.0]


def test_a_recipe_and_flags_win_over_what_the_rebalanced_system_sets(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(run_d2s, "check_stages", lambda stages: seen.update(stages) or 1 / 0)
    for text, flags, expected in (
        ("system: rebalanced", [], ("infonce", 2.0)),
        ("system: rebalanced\nstructure_weight: 1\nbaseline: {align: hinge}", [], ("hinge", 1.0)),
        ("system: rebalanced\nstructure_weight: 1", ["--structure_weight", "3"], ("infonce", 3.0)),
    ):
        (tmp_path / "recipe.yaml").write_text(text)
        with pytest.raises(ZeroDivisionError):
            train.main([str(tmp_path / "recipe.yaml"), "--data", "org/pairs", *flags])
        objective = seen["baseline"].objective
        assert (objective.align, objective.structure_weight) == expected


@pytest.mark.parametrize(("system", "script"), [("rebalanced", "d2s"), ("d2s", "rebalanced"), ("pir", "d2s")])
def test_a_recipe_of_another_system_is_refused_and_not_trained_without_its_settings(tmp_path, system, script):
    (tmp_path / "recipe.yaml").write_text(f"system: {system}")
    with pytest.raises(ValueError, match=f"is a recipe of the system {system}, not of {script}: `vsehub train /"):
        train.main([script, str(tmp_path / "recipe.yaml"), "--data", "org/pairs"])


def test_stages_are_chosen_and_checked(tmp_path):
    assert parse(tmp_path, "stages: [baseline]")[1] == ["baseline"]
    assert parse(tmp_path, "margin: 0.2", "--stages", "finetune")[1] == ["finetune"]
    assert parse(tmp_path, "margin: 0.2", "--stages", "finetune", "--stages", "pretrain")[1] == ["pretrain"]
    assert parse(tmp_path, "margin: 0.2", "--stages=finetune")[1] == ["finetune"]
    with pytest.raises(ValueError, match="unknown stages"):
        parse(tmp_path, "margin: 0.2", "--stages", "distil")


@pytest.mark.parametrize("stages", [("finetune", "pretrain"), ("pretrain", "baseline", "finetune"), ("pretrain",) * 2])
def test_stages_run_in_their_order(tmp_path, stages):
    with pytest.raises(ValueError, match="in this order: --stages pretrain"):
        parse(tmp_path, "margin: 0.2", "--stages", *stages)


def test_a_recipe_may_hold_settings_that_are_dictionaries(tmp_path):
    recipe = "lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 0.00001, last: false}"
    training = next(part for part in parse(tmp_path, recipe)[0]["pretrain"] if hasattr(part, "lr_scheduler_kwargs"))
    assert training.lr_scheduler_kwargs == {"min_lr": 1e-5, "last": False}


@pytest.mark.parametrize("number", ["010", "1:30", "-007", "1:30.5"])
def test_a_number_that_old_yaml_reads_as_another_is_refused(tmp_path, number):
    with pytest.raises(ValueError, match=f"{number} may be read as two numbers.*line 1"):
        parse(tmp_path, f"seed: {number}\nlearning_rate: 0.1")
    assert parse(tmp_path, "seed: 0\nlearning_rate: 00.5\nrun_name: '010'")[0]["finetune"][3].run_name == "010"


def test_a_number_with_an_exponent_alone_is_a_number_also_in_a_mapping(tmp_path):
    text = "learning_rate: 2e-4\nlr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 1e-5}"
    training = parse(tmp_path, text)[0]["finetune"][3]
    assert training.learning_rate == 2e-4 and training.lr_scheduler_kwargs == {"min_lr": 1e-5}


def test_a_recipe_that_is_no_utf8_says_how_to_save_it(tmp_path):
    (tmp_path / "recipe.yaml").write_bytes("vision: café".encode("latin-1"))
    with pytest.raises(ValueError, match="save it as UTF-8"):
        read_recipe(tmp_path / "recipe.yaml")


def test_an_unknown_flag_of_the_command_line_is_named_with_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="no flag --learning_rat: did you mean --learning_rate[?]"):
        parse(tmp_path, "seed: 1", "--learning_rat", "3")
    with pytest.raises(ValueError, match="no flag --finetune.learning_rat: did you mean --finetune.learning_rate[?]"):
        parse(tmp_path, "seed: 1", "--finetune.learning_rat", "3")
    with pytest.raises(ValueError, match="--seed takes one value, and '4' follows it"):
        parse(tmp_path, "seed: 1", "--seed", "3", "4")


def test_a_recipe_that_is_no_mapping_is_refused(tmp_path):
    with pytest.raises(ValueError, match="mapping"):
        parse(tmp_path, "- a list")


@pytest.mark.parametrize(
    ("old", "said"),
    [
        ("teacher: online", "teacher: now dense_teacher"),
        ("structure_distance: kl", "structure_distance: removed; relations are compared by their mean absolute diff"),
        ("structure_temperature: 0.1", "set structure_weight"),
        ("structure_mask_same_image: true", "structure_mask_same_image: removed"),
        ("max_dense_length: 9", "every text is cut at max_text_length"),
    ],
)
def test_a_flag_of_an_earlier_version_says_what_became_of_it(tmp_path, old, said):
    with pytest.raises(ValueError, match=said):
        parse(tmp_path, old)


def test_a_relation_that_was_removed_is_refused_with_those_that_are_left(tmp_path):
    with pytest.raises(ValueError, match="structure_relation.*'inter'.*own.*fused"):
        parse(tmp_path, "structure_relation: inter")


def test_variables_come_from_the_environment_or_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", "/data")
    assert parse(tmp_path, "data: $DATA/flickr8k")[0]["pretrain"][1].data == "/data/flickr8k"
    monkeypatch.delenv("DATA")
    with pytest.raises(ValueError, match=r"\$DATA/flickr8k"):
        parse(tmp_path, "data: $DATA/flickr8k")


def test_variables_stand_in_lists_too_and_a_flag_needs_none(tmp_path, monkeypatch):
    monkeypatch.setenv("WIDTH", "8")
    assert parse(tmp_path, "matryoshka: [4, $WIDTH]")[0]["pretrain"][0].matryoshka == [4, 8]
    monkeypatch.delenv("WIDTH")
    with pytest.raises(ValueError, match=r"\$WIDTH names a variable that is not set"):
        parse(tmp_path, "matryoshka: [4, $WIDTH]")
    text = "pretrain: {seed: $SEED}"
    assert parse(tmp_path, text, "--seed", "3")[0]["pretrain"][3].seed == 3
    assert parse(tmp_path, text, "--pretrain.seed", "3")[0]["pretrain"][3].seed == 3


def test_a_key_with_dashes_is_the_flag_with_underscores(tmp_path):
    assert parse(tmp_path, "max-steps: 3\npretrain: {max-steps: 4}")[0]["pretrain"][3].max_steps == 4
    with pytest.raises(ValueError, match="the key 'max_steps' is there twice"):
        parse(tmp_path, "max-steps: 3\nmax_steps: 4")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_parses_and_tells_its_story(path, monkeypatch):
    for name in ("DATA", "BACKBONES", "MINILM"):
        monkeypatch.setenv(name, "/somewhere")
    pir = read_recipe(path).get("system") == "pir"
    stages, kinds = (PIR_STAGES, PIR_ARGUMENTS) if pir else (STAGES, D2S_ARGUMENTS)
    parsed, wanted = parse_stages([str(path), "--use_cpu", "True", "--bf16", "False"], stages, kinds)
    assert set(wanted) <= set(parsed)
    story = path.read_text().lower()
    assert "make demo" in story or all(word in story for word in ("machine", "time", "measured", "expected"))


def test_a_system_that_is_no_name_is_one_error(tmp_path):
    (tmp_path / "r.yaml").write_text("system: [d2s]\n")
    with pytest.raises(ValueError, match="system .* is not one of"):
        train.main([str(tmp_path / "r.yaml")])


def test_an_error_of_transformers_about_the_best_model_names_the_way_out(tmp_path):
    with pytest.raises(ValueError, match="stage pretrain: .*keep the last model .*--load_best_model_at_end False"):
        parse(tmp_path, "eval_strategy: 'no'\nload_best_model_at_end: true")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_steps: 2\nmax_steps: 3", "the key 'max_steps' is there twice: leave one out"),
        ("pretrain: {max_steps: 2}\npretrain: {seed: 3}", "the key 'pretrain' is there twice"),
        ("finetune: {seed: 2, seed: 3}", "the key 'seed' is there twice"),
        ("stages: 3", r"stages are names, as `stages: \[pretrain, finetune\]`, not 3"),
        ("stages: [1]", r"stages are names, .* not \[1\]"),
        ("stages: []", r"stages are names, .* not \[\]"),
        ("eval_strategy: no", "YAML reads `no` as false: write it in quotes, 'no'"),
        ("max_steps: [1, 2]", "max_steps: .1, 2. is a list, and it takes one value"),
        ("pretrain: {align: [hinge, infonce]}", "align: .*hinge.* is a list"),
        ("max_steps: []", "max_steps is an empty list: leave it out"),
        ("lr_milestones: 9, 15", r"9, 15 is one text; write a list, `lr_milestones: \[9, 15\]`"),
        ("baseline: {matryoshka: 4 8}", r"4 8 is one text; write a list, `matryoshka: \[4, 8\]`"),
        ("matryoshka: []", "matryoshka is an empty list: leave it out"),
        ("max_steps: {a: 1}", "max_steps: .* is a mapping, and it takes one value"),
        ("pretrian: {max_steps: 2}", "no flag or stage pretrian: did you mean pretrain[?]"),
        ("learning_rat: 1", "no flag or stage learning_rat: did you mean learning_rate[?]"),
        ("pretrain: {finetune: {seed: 2}}", "finetune is a stage: its section stands beside that of another"),
        ("finetune.seed: 2", "finetune.seed is of a command line; in a recipe it is `finetune: {seed: ...}`"),
        ("pretrain: {finetune.seed: 2}", "finetune.seed is of a command line"),
        ("--seed: 2", "no flag or stage --seed: did you mean seed[?]"),
        ("seed=3: 2", "no flag or stage seed=3"),
        ("help: true", "no flag or stage help$"),
        ("seed: 2\npretrain:\n\tseed: 2", "indent with spaces, not with tabs"),
        ("", "it is empty"),
    ],
)
def test_a_slip_in_a_recipe_is_told_in_one_line_with_the_remedy(tmp_path, text, said):
    with pytest.raises(ValueError, match=said) as caught:
        parse(tmp_path, text)
    assert "\n" not in str(caught.value)
