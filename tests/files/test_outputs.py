"""Results are refused a place before the work, not after it."""

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


def test_a_folder_may_be_new_but_not_a_file(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert not output_folder(tmp_path / "a" / "b").exists()
    with pytest.raises(NotADirectoryError, match="name another place"):
        output_folder(tmp_path / "file")
    monkeypatch.chdir(tmp_path)
    assert str(output_folder("relative")) == "relative"
