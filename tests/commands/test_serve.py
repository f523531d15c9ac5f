"""`vsehub serve`: what is refused before the model is loaded, and what the server gets."""

import pytest

from vsehub.__main__ import main
from vsehub.search.retriever import Retriever
from vsehub.serving import server

TOKEN = "a-token-of-many-letters"


@pytest.fixture
def index(tmp_path, tiny_folder):
    """The folder of an index of one text."""
    retriever = Retriever.from_pretrained(tiny_folder)
    retriever.add_texts(["a dog"])
    retriever.save(tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture
def served(monkeypatch):
    """What `serve` is called with; it returns at once."""
    calls = []

    def serve(retriever, own, *more, ready, **others):
        calls.append((retriever, own.getsockname(), *more, others))
        ready(None)
        own.close()

    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.delenv(server.TOKEN, raising=False)
    return calls


def test_the_flags_reach_the_server(index, served, tmp_path, monkeypatch, capsys):
    assert main(["serve", str(index), "--port", "0"]) == 0
    retriever, address, token, images, stamp, limits, others = served[0]
    assert len(retriever.index) == 1 and address[0] == "127.0.0.1" and token is None and stamp
    assert limits.body == 32_000_000 and limits.requests == 64 and images == []
    assert others == {"examples": (), "means": True, "hosts": None, "framed_by": "'none'"}
    said = capsys.readouterr().err
    assert f"http://127.0.0.1:{address[1]}  1 items of {index}; Ctrl+C ends" in said
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    words = ["--token_file", str(tmp_path / "token"), "--max_body", "1", "--max_pixels", "100", "--max_batch", "5"]
    words += ["--max-requests", "7", "--images", str(tmp_path), "--example", "a dog", "--example", "a boat"]
    assert main(["serve", str(index), "--port", "0", "--host", "0.0.0.0", *words]) == 0
    _, address, token, images, _, limits, others = served[1]
    assert (
        address[0] == "0.0.0.0"
        and token == TOKEN
        and images == [str(tmp_path)]
        and others["examples"] == ("a dog", "a boat")
    )
    assert (limits.body, limits.pixels, limits.batch, limits.requests) == (1_000_000, 100, 5, 7)
    monkeypatch.setenv(server.TOKEN, f"{TOKEN}\n")
    assert main(["serve", str(index), "--port", "0"]) == 0 and served[2][2] == TOKEN
    monkeypatch.setenv(server.TOKEN, " \n")
    assert main(["serve", str(index), "--port", "0"]) == 2 and len(served) == 3
    assert "the token must have at least 16 characters" in capsys.readouterr().err


def test_a_folder_that_holds_no_picture_of_the_index_is_told(served, tmp_path, tiny_folder, tiny_pictures, capsys):
    (tmp_path / "photos").mkdir()
    tiny_pictures[0].save(tmp_path / "photos" / "a.png")
    place = str(tmp_path / "photos.index")
    assert main(["index", str(tmp_path / "photos"), "--model", str(tiny_folder), "--out", place]) == 0
    (tmp_path / "photos").rename(tmp_path / "moved")
    (tmp_path / "other").mkdir()
    capsys.readouterr()
    for folder, told in (("moved", False), ("other", True)):
        assert main(["serve", place, "--port", "0", "--images", str(tmp_path / folder)]) == 0
        assert (f"--images {tmp_path / folder}: no picture of {place} was found" in capsys.readouterr().err) is told


def test_a_public_server_needs_no_token_and_may_be_framed(index, served):
    words = ["--host", "0.0.0.0", "--public", "--framed_by", "https://huggingface.co", "--no-means"]
    assert main(["serve", str(index), "--port", "0", *words]) == 0
    *_, token, images, _, _, others = served[0]
    assert token is None and others["hosts"] == "any" and not others["means"]
    assert others["framed_by"] == "https://huggingface.co"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "other machines reach it; set VSEHUB_SERVE_TOKEN, or give --token_file FILE"),
        (["--public", "--token_file", __file__], "--public is for everybody: leave out the token"),
        (["--framed_by", "https://a.b; script-src *"], "is no address of a site"),
        (["--token_file", "absent"], "absent: no such file"),
        (["--port", "70000"], "must be a whole number from 0 to 65535"),
        (["--max_pixels", "178956971"], "must be a whole number from 1 to 178956970"),
        (["--max_requests", "0"], "must be a whole number of at least 1"),
        (["--model", "./nowhere"], "no such folder"),
        (["--trust_remote_code"], "goes with --model"),
    ],
)
def test_what_is_wrong_is_one_line(index, served, capsys, words, said):
    assert main(["serve", str(index), "--port", "0", *words]) == 2
    assert said in capsys.readouterr().err and not served


def test_a_token_file_that_is_no_text_is_named(index, served, capsys, tmp_path):
    (tmp_path / "token").write_bytes(b"\xff\xfe" + TOKEN.encode())
    assert main(["serve", str(index), "--port", "0", "--token_file", str(tmp_path / "token")]) == 2
    assert f"{tmp_path / 'token'}: not a text file in UTF-8" in capsys.readouterr().err and not served


def test_a_missing_index_and_a_missing_extra_are_one_line(index, served, capsys, monkeypatch):
    assert main(["serve", str(index.parent), "--port", "0"]) == 2
    assert "holds no index: make one with `vsehub index`" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    assert main(["serve", str(index), "--port", "0"]) == 2
    assert 'pip install "vsehub[serve]"' in capsys.readouterr().err and not served
