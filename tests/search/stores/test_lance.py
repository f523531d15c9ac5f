"""LanceDB: its own tables, errors, and a missing extra."""

import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from vsehub.search.export import export_index
from vsehub.search.index_store import IndexFolderError
from vsehub.search.stores.copies import kept_in
from vsehub.search.stores.places import check_options, open_index, stamp_of

lancedb = pytest.importorskip("lancedb")


def test_a_table_of_somebody_else_is_refused(tmp_path):
    lancedb.connect(tmp_path / "db").create_table("mine", data=[{"id": "a", "vector": [1.0, 2.0]}])
    lancedb.connect(tmp_path / "db").create_table("other", data=[{"x": 1}])
    for name in "mine", "other":
        with pytest.raises(IndexFolderError, match="is a table that vsehub did not make"):
            open_index(f"lance://{tmp_path}/db/{name}")


def test_looking_for_an_index_makes_no_folder(tmp_path):
    assert stamp_of(f"lance://{tmp_path}/db/images") is None
    with pytest.raises(IndexFolderError, match="holds no index"):
        open_index(f"lance://{tmp_path}/db/images")
    assert not (tmp_path / "db").exists()


def test_a_table_that_is_made_again_is_another(tmp_path, local):
    """A server would go on with the one that is gone, for its versions are counted from the beginning."""
    address, stamps = f"lance://{tmp_path}/db/images", []
    mine = local()
    mine.add(np.eye(3), [{"id": x} for x in "abc"])
    for _ in range(2):
        theirs = kept_in(mine, address)
        theirs.note(cutoff={"text": 0.2})
        assert stamp_of(address) == theirs._stamp == open_index(address)._stamp
        stamps.append((theirs.generation, stamp_of(address)))
        shutil.rmtree(tmp_path / "db")
    assert stamps[0][0] == stamps[1][0] and stamps[0][1] != stamps[1][1]
    kept_in(mine, address)
    with pytest.raises(IndexFolderError, match="was changed since it was opened"):
        theirs.add(np.eye(3), [{"id": x} for x in "def"])


def test_lancedb_itself_reads_the_rows(tmp_path, local):
    mine = local()
    mine.add(np.eye(3), [{"id": x, "size": n} for n, x in enumerate("abc")])
    kept_in(mine, f"lance://{tmp_path}/db/images")
    table = lancedb.connect(tmp_path / "db").open_table("images")
    hits = table.search(np.eye(3)[1]).distance_type("cosine").where("size > 0").limit(2).to_list()
    assert [hit["id"] for hit in hits] == ["b", "c"]


def test_an_export_replaces_a_table_but_no_index(tmp_path, local):
    mine = local()
    mine.add(np.eye(3), [{"id": x} for x in "abc"])
    address = kept_in(mine, f"lance://{tmp_path}/db/images").place
    with pytest.raises(IndexFolderError, match="the table images of .* is an index of vsehub and is not replaced"):
        export_index(address, tmp_path / "db", "lance")
    assert len(open_index(address)) == 3
    for _ in range(2):
        export_index(address, tmp_path / "db", "lance", "plain")


def test_a_file_in_place_of_the_database_is_told_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(IndexFolderError, match="file is a file, and LanceDB needs a folder"):
        stamp_of(f"lance://{tmp_path}/file/images")


def test_many_small_changes_are_merged(tmp_path, local, monkeypatch):
    monkeypatch.setattr("vsehub.search.stores.lance.SCATTERED", 3)
    mine = local()
    mine.add(np.eye(3), [{"id": x} for x in "abc"])
    index = kept_in(mine, f"lance://{tmp_path}/db/images")
    for number in range(8):
        index.add(np.eye(3)[:1], [{"id": f"p{number}"}])
    table = lancedb.connect(tmp_path / "db").open_table("images")
    assert table.stats()["fragment_stats"]["num_fragments"] <= 4
    assert open_index(index.place).column("id") == [*"abc", *(f"p{number}" for number in range(8))]


def test_rows_are_there_though_they_could_not_be_merged(tmp_path, local, monkeypatch):
    def refuse(table, *args, **kwargs):
        raise RuntimeError("lance error: Commit conflict")

    mine = local()
    mine.add(np.eye(3)[:1], [{"id": "a"}])
    index = kept_in(mine, f"lance://{tmp_path}/db/images")
    monkeypatch.setattr("vsehub.search.stores.lance.SCATTERED", 0)
    monkeypatch.setattr(lancedb.table.LanceTable, "optimize", refuse)
    index.add(np.eye(3)[1:], [{"id": "b"}, {"id": "c"}])
    assert len(index) == 3 and index.delete(["a"]) == 1


def test_facts_that_are_no_dictionary_are_not_ours(tmp_path, local):
    mine = local()
    mine.add(np.eye(3), [{"id": x} for x in "abc"])
    index = kept_in(mine, f"lance://{tmp_path}/db/images")
    table = lancedb.connect(tmp_path / "db").open_table("images")
    table.update_field_metadata({"path": "vector", "metadata": {"vsehub": "[1]"}})
    with pytest.raises(IndexFolderError, match="is a table that vsehub did not make"):
        open_index(index.place)


@pytest.mark.parametrize(
    ("said", "told"),
    [("LanceError(IO): Unable to copy (os error 28), /x.rs:1:2", "no space left on device"), ("else", "else")],
)
def test_what_stops_a_table_is_one_line_in_an_export_and_in_an_index(tmp_path, local, monkeypatch, said, told):
    index = local()
    index.add(np.eye(2), [{"id": "a"}, {"id": "b"}])
    index.save(tmp_path / "index")

    def refused(*words, **settings):
        raise RuntimeError(said)

    monkeypatch.setattr(lancedb.db.LanceDBConnection, "create_table", refused)
    for to, out in (("lance", f"{tmp_path}/db"), ("parquet", f"lance://{tmp_path}/db/images")):
        with pytest.raises(IndexFolderError, match=rf"lance://{tmp_path}/db/images: LanceDB refuses \({told}\)"):
            export_index(tmp_path / "index", out, to)


@pytest.mark.parametrize("status, told", [(403, "are wrong, or have no right to it"), (404, "there is no such bucket")])
def test_what_an_object_store_answers_is_told_with_its_meaning(monkeypatch, status, told):
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_PUT = do_POST = do_GET  # noqa: N815

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "secret", "REGION": "x", "ALLOW_HTTP": "1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    try:
        with pytest.raises(IndexFolderError, match=f"lance://s3://bucket/db/images.*{status}: .*{told}"):
            open_index("lance://s3://bucket/db/images")
    finally:
        server.shutdown()
        server.server_close()


def test_an_object_store_that_cannot_be_reached_is_told_in_time(monkeypatch):
    for name, value in {
        "AWS_ENDPOINT": "http://127.0.0.1:9",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "none",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "hidden",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(IndexFolderError, match="lance://s3://bucket/db/images") as error:
        open_index("lance://s3://bucket/db/images")
    assert "127.0.0.1:9" in str(error.value) and "hidden" not in str(error.value) and len(str(error.value)) < 400


WRITER = """
import subprocess
import sys
import time
import numpy as np
from vsehub.search.stores.places import open_index
index = open_index(sys.argv[1])
print("ready", flush=True)
for turn in range(1000):
    index.add(np.eye(50), [{"id": f"p{n}", "size": turn} for n in range(50)])  # they replace each other
"""


@pytest.mark.slow
def test_a_writer_that_is_killed_leaves_one_whole_change(tmp_path, local):
    address = f"lance://{tmp_path}/db/images"
    mine = local()
    mine.add(np.eye(50), [{"id": f"p{n}", "size": -1} for n in range(50)])
    kept_in(mine, address)
    sizes = set()
    for turn in range(5):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, address], stdout=subprocess.PIPE)
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(0.1 + 0.07 * turn)
        writer.kill()
        writer.wait()
        index = open_index(address)
        assert len(index) == 50 and len(set(index.column("size")) - {None}) == 1
        sizes |= set(index.column("size"))
        index.add(np.eye(50), [{"id": f"p{n}", "size": -1} for n in range(50)])
    assert len(sizes - {None, -1}) > 1  # it had written


def test_hnsw_and_a_missing_extra_are_told(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="LanceDB is searched exactly"):
        check_options(f"lance://{tmp_path}/images", "hnsw", None)
    monkeypatch.setitem(sys.modules, "lancedb", None)
    tmp_path.joinpath("db").mkdir()
    with pytest.raises(ImportError, match=r'pip install "vsehub\[lance\]"'):
        open_index(f"lance://{tmp_path}/db/images")
