"""`vsehub recipes`: every recipe with its machine and figures; `vsehub train NAME`."""

from pathlib import Path

import pytest

from vsehub.commands.recipes import FOLDER, path_of_recipe
from vsehub.commands.train import _recipe_first

NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def test_every_recipe_is_listed_with_what_its_head_says(vsehub, vsehub_json):
    recipes = vsehub_json("recipes")
    assert sorted(recipes) == NAMES
    for name, facts in recipes.items():
        assert facts["about"] and "#" not in facts["about"], name
        if not name.endswith("_demo"):
            assert facts["machine"].startswith("machine: ") and "time:" not in facts["machine"], name
            assert facts["measured"].startswith("measured"), name
    said = vsehub("recipes")
    assert all(f"\n{name}\n" in f"\n{said}" for name in NAMES)


def test_one_recipe_is_printed_whole(vsehub):
    assert vsehub("recipes", "pir_demo").strip() == (FOLDER / "pir_demo.yaml").read_text().strip()
    assert "there are" in vsehub("recipes", "pir_nothing", status=2)


def test_a_name_is_a_recipe_and_a_file_is_itself(tmp_path, monkeypatch):
    assert Path(path_of_recipe("pir_demo")).samefile(FOLDER / "pir_demo.yaml")
    assert path_of_recipe("nowhere.yaml") == "nowhere.yaml"  # the reader says that it is missing
    monkeypatch.chdir(tmp_path)
    Path("pir_demo").write_text("system: pir")
    assert path_of_recipe("pir_demo") == "pir_demo"
    with pytest.raises(FileNotFoundError, match="did you mean pir_rsicd_cpu?"):
        path_of_recipe("pir_rsicd_cpus")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--recipe", "pir_demo", "--seed", "1"], ["RECIPE", "--seed", "1"]),
        (["--seed", "1", "--recipe=pir_demo"], ["RECIPE", "--seed", "1"]),
        (["pir", "--recipe", "pir_demo"], ["pir", "RECIPE"]),
        (["pir", "pir_demo"], ["pir", "RECIPE"]),
        (["pir_demo"], ["RECIPE"]),
        (["d2s", "--data", "x"], ["d2s", "--data", "x"]),
        ([], []),
    ],
)
def test_a_recipe_is_given_by_name_at_any_place(words, wanted):
    recipe = str(FOLDER / "pir_demo.yaml")
    assert _recipe_first(words) == [recipe if word == "RECIPE" else word for word in wanted]
