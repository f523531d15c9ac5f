"""Addresses, and what they refuse."""

import pytest

from vsehub.search.stores.address import is_address, table_at


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("lance://images", "lance://FOLDER/NAME"),
        ("lance://db/", "lance://FOLDER/NAME"),
        ("lance://db/a b", "lance://FOLDER/NAME"),
        ("lance://s3://key:secret@bucket/db/images", "set environment variables"),
        ("lance://s3://bucket/db/images?aws_secret_access_key=secret", "set environment variables"),
        ("qdrant://host:6333", "HOST:6333/NAME"),
        ("qdrant://host:x/images", "HOST:6333/NAME"),
        ("qdrant://host:6333/collections/images", "HOST:6333/NAME"),
        ("qdrant://me:secret@host:6333/images", "set environment variables"),
        ("qdrant+https://host/images?api-key=secret", "set environment variables"),
        ("lance://db://mine/images", "LanceDB Cloud is not supported"),
        ("lance://", "lance://FOLDER/NAME"),
        ("lance:///images", "lance://FOLDER/NAME"),
        ("LANCE://s3://key:secret@bucket/db/images", "set environment variables"),
        ("s3://key:secret@bucket/images", "s3:// is no place for an index: .*lance://s3://BUCKET/FOLDER/NAME"),
        ("milvus://host/images?key=secret", "milvus:// is no place for an index"),
    ],
)
def test_addresses_that_cannot_be_used_are_told_without_their_secrets(address, told):
    assert is_address(address)
    with pytest.raises(ValueError, match=told) as error:
        table_at(address)
    assert "secret" not in str(error.value)


def test_the_same_folder_has_one_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert table_at("lance://db/images").address == table_at(f"lance://{tmp_path}/db/images").address
    assert table_at("lance://s3://bucket/db/images").address == "lance://s3://bucket/db/images"
    assert table_at("QDRANT://Host/images").address == "qdrant://host:6333/images"
    assert table_at("qdrant://host/images").address == "qdrant://host:6333/images"
    assert table_at("qdrant+https://[::1]:7/images").address == "qdrant+https://[::1]:7/images"


def test_folders_are_no_addresses(tmp_path):
    assert not is_address("C://photos") and not is_address("a b://photos")
    assert not is_address("photos.index") and not is_address(tmp_path)
