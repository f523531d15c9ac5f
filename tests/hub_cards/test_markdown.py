"""Text of others in Markdown: it shows as it is, on one line or in a block that it cannot close."""

import pytest

from vsehub.hub_cards.markdown import fenced, one_line, plain, public_name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n\tb  c", "a b c"),
        ("a\u202eb\u200bc", "a b c"),  # direction, no width
        ("a\ud800b\u2028c", "a b c"),  # half a character, another kind of line end
        ("  ", ""),
        (None, "None"),
        (3.5, "3.5"),
    ],
)
def test_any_value_is_one_line_of_visible_characters(text, shown):
    assert one_line(text) == shown


@pytest.mark.parametrize("mark", "\\`*_[]<>|~#$&")
def test_every_mark_of_markdown_is_escaped(mark):
    assert plain(f"a{mark}b") == f"a\\{mark}b"


def test_a_cell_stays_a_cell():
    assert plain("a | b\n| c <img src=x>") == r"a \| b \| c \<img src=x\>"


@pytest.mark.parametrize("text", ["a", "```", "````\nx\n`````", "a\n```yaml\nb: 1\n```"])
def test_nothing_closes_a_block_but_its_own_fence(text):
    first, *inside, last = fenced(text, "yaml").split("\n")
    fence = first.removesuffix("yaml")
    assert set(fence) == {"`"} and len(fence) >= 3 and last == fence
    assert "\n".join(inside) == text and not any(line.startswith(fence) for line in inside)


def test_a_block_keeps_its_lines_and_shows_no_control_characters():
    assert fenced("a\x1b[31m\r\nb\u202ec") == "```\na [31m\nb c\n```"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("org/name", "org/name"),
        ("/home/someone/secret/model", "model"),
        ("./runs/mine/hub/", "hub"),
        ("~/models/a", "a"),
        ("../up", "up"),
        ("here", "here"),
    ],
)
def test_a_source_is_named_without_where_it_lies(source, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert public_name(source) == name


def test_a_relative_path_that_exists_is_a_path(tmp_path, monkeypatch):
    (tmp_path / "private" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert public_name("private/model") == "model" and public_name("public/model") == "public/model"
