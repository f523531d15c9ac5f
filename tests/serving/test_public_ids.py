"""Ids and names that tell no path of the server."""

import numpy as np

from vsehub.search.retriever import Hit
from vsehub.search.vector_index import VectorIndex
from vsehub.serving.public_ids import PublicIds, shown_name


def made(names, deleted=()):
    index = VectorIndex()
    index.add(np.eye(8, dtype=np.float32)[: len(names)], [{"id": name} for name in names])
    index.delete(deleted)
    return index.snapshot


def test_an_id_leads_back_to_its_row_and_to_no_deleted_one():
    names = [f"/home/me/{n}.jpg" for n in range(8)]
    snapshot = made(names, names[3:4])
    ids = PublicIds(snapshot, "key")
    for row, name in enumerate(names):
        assert len(ids.of(name)) == 16 and "home" not in ids.of(name)
        assert ids.row(ids.of(name)) == (None if row == 3 else row)
    for wrong in ("", "x" * 16, "0" * 16, "00", names[0], "\ud800", "0" * 40):
        assert ids.row(wrong) is None


def test_an_id_outlives_a_change_and_depends_on_the_key():
    first, second = PublicIds(made(["a", "b"]), "key"), PublicIds(made(["b"]), "key")
    assert first.of("b") == second.of("b") and second.row(first.of("b")) == 0
    assert PublicIds(made(["b"]), "other key").of("b") != first.of("b")


def test_an_item_that_was_replaced_leads_to_its_new_row():
    index = VectorIndex()
    index.add(np.eye(4, dtype=np.float32), [{"id": name} for name in "abcd"])
    index.add(np.eye(4, dtype=np.float32)[:1], [{"id": "b"}], merge=False)
    ids = PublicIds(index.snapshot, "key")
    assert ids.row(ids.of("b")) == 4


def test_names_are_below_what_was_indexed():
    roots = ["/srv/photos", "/srv/photos/trip"]
    assert shown_name(Hit("/srv/photos/a.jpg", 1, path="/srv/photos/a.jpg"), roots) == "a.jpg"
    assert shown_name(Hit("x", 1, path="/srv/photos/one/a.jpg"), roots) == "one/a.jpg"
    assert shown_name(Hit("x", 1, path="/srv/photos/trip/a.jpg"), roots) == "a.jpg"
    assert shown_name(Hit("x", 1, path="/srv/photos2/a.jpg"), roots) == "a.jpg"
    assert shown_name(Hit("/srv/rows.parquet:train:7", 1, collection="/srv/rows.parquet:train"), roots) == "7"
    assert shown_name(Hit("/srv/elsewhere/a.jpg", 1), roots) == "a.jpg"
    assert shown_name(Hit("image-3", 1), roots) == "image-3"
