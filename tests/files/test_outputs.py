"""Results are refused a place before the work, not after it."""

import os

import pytest

from vsehub.files.outputs import output_file, output_folder


def test_a_file_gets_its_folder_and_is_refused_where_it_cannot_be(tmp_path):
    assert output_file(tmp_path / "new" / "a.json").parent.is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(IsADirectoryError, match="is a folder: name a file"):
        output_file(tmp_path)
    for path in ("file/a", "file/b/c"):
        with pytest.raises(NotADirectoryError, match="is a file, not a folder"):
            output_file(tmp_path / path)


def test_a_place_where_nothing_may_be_written_is_told_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    for ask in (lambda: output_file(tmp_path / "a.json"), lambda: output_folder(tmp_path / "new" / "deep")):
        with pytest.raises(PermissionError, match="may not write: name another place"):
            ask()
    assert output_folder(tmp_path / "there") and output_file(tmp_path / "there" / "a.json")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert str(output_file("/dev/stdout")) == "/dev/stdout"  # nothing is made in its folder


def test_a_folder_may_be_new_but_not_a_file(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert not output_folder(tmp_path / "a" / "b").exists()
    with pytest.raises(NotADirectoryError, match="name another place"):
        output_folder(tmp_path / "file")
    monkeypatch.chdir(tmp_path)
    assert str(output_folder("relative")) == "relative"
