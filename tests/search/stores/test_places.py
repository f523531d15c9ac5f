"""What an index in a folder and one in a database are asked alike."""

import pytest

from vsehub.search.stores.places import check_options, holds_index


def test_a_folder_may_hold_what_it_likes(tmp_path):
    assert not holds_index(tmp_path / "none")
    check_options(tmp_path, "hnsw", "int8")


def test_what_a_database_cannot_hold_is_refused_before_the_work(address):
    with pytest.raises(ValueError, match="leave out --vectors int8"):
        check_options(address, None, "int8")
    check_options(address, "flat", "float32")
    assert not holds_index(address)
