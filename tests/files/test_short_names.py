"""Names of several places: short, and told apart."""

from vsehub.files.short_names import names_of


def test_names_are_as_short_as_they_can_be_told_apart():
    assert names_of(["org/model"]) == ["org/model"]
    assert names_of(["runs/a/hub", "runs/b/hub"]) == ["a/hub", "b/hub"]
    assert names_of(["x/a/hub", "y/a/hub", "tiny"]) == ["x/a/hub", "y/a/hub", "tiny"]
