"""What is printed obeys nobody: no control character reaches the terminal, no forged line, no secret."""

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

import vsehub
from vsehub.__main__ import main
from vsehub.commands.convert_d2s_vse import summary
from vsehub.commands.flags import remark, tell
from vsehub.data.sources import read_source
from vsehub.evaluation.compare import comparison_table
from vsehub.evaluation.significance import Comparison
from vsehub.files.text import CONTROLS, printable_lines, without_secrets
from vsehub.hub_cards.model_card import write_model_card
from vsehub.search.pages import geojson
from vsehub.search.retriever import Hit

EVIL = "a\x1b]0;title\x07\x1b[2J\x9b31mb\u202ec\r\nvsehub: all is well\x00"
FORGED = "\nvsehub: all is well"
TOKEN = "hf_" + "Ab0" * 11


def harmless(text: str):
    assert not CONTROLS.search(text.replace("\n", "")), ascii(text)
    assert FORGED not in text


def arguments(**more):
    return argparse.Namespace(json=None, quiet=False, **more)


def test_lines_keep_their_form_and_lose_their_power():
    assert printable_lines("  1.  0.5\n\ta\x1b[31m\r") == "  1.  0.5\n\ta\\x1b[31m\\r"


def test_tell_and_remark_obey_nobody(capsys):
    tell(arguments(), f"  first\n  {EVIL}", {})
    remark(arguments(), EVIL)
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert not CONTROLS.search(text.replace("\n", ""))
    assert said.out.startswith("  first\n  a")


def test_json_is_escaped(capsys):
    tell(argparse.Namespace(json="-", quiet=False), "", {"id": EVIL})
    out = capsys.readouterr().out
    harmless(out)
    assert json.loads(out)["id"] == EVIL


def test_fields_of_received_files_forge_no_line():
    harmless(comparison_table({EVIL: Comparison(1.0, 2.0, 1.0, 0.5, 1.5, 0.01)}))
    facts = {"source": "c.pth", "sha256": "0" * 64, "part": "model", "tensors": 1, "parameters": 1, "image_size": 8}
    facts |= {"image_size_from": "x", "dropped": {EVIL: 1}, "written": [], "processor": False}
    harmless(summary(facts))


def test_names_of_files_forge_no_line(tmp_path, tiny_pictures, caplog):
    (tmp_path / "photos").mkdir()
    tiny_pictures[0].save(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "b\x1b[2J\nvsehub: all is well.dng").write_bytes(b"II*\0")
    (tmp_path / "photos" / "c.\x1b[31mz").write_bytes(b"text")
    with caplog.at_level(logging.WARNING):
        read_source(str(tmp_path / "photos"), "train")
        geojson([Hit("a", 1.0, path=str(tmp_path / "photos" / "b\x1b[2J\nvsehub: all is well.dng"))], [str(tmp_path)])
    assert len(caplog.messages) >= 2
    for message in caplog.messages:
        harmless(message)


@pytest.mark.parametrize("words", [[EVIL], ["search", "no\x1b[2J"], ["explain", "./m\x1b[2J", "a"], ["index", "x\x9b"]])
def test_errors_obey_nobody(words, capsys):
    assert main([word.replace("\0", "") for word in words]) == 2
    harmless(capsys.readouterr().err)


# --- secrets -----------------------------------------------------------------------------------------------------

TEXTS = {
    "a token": f"401: invalid token {TOKEN} of user",
    "in a header": f"Authorization: Bearer {TOKEN}",
    "another bearer": "authorization: bearer eyJhbGciOi.J9abc-_secretsecret",
    "user and password": "https://user:secretsecret@host/path cannot be reached",
    "a token for a user": "https://secretsecret@github.com/a",
    "in a query that follows": "proxy http://me:secretsecret@proxy:80 refused https://huggingface.co",
    "percent": "s3://key:se%40cretsecret@bucket/x",
}


@pytest.mark.parametrize("kind", TEXTS)
def test_a_secret_is_replaced(kind):
    cleaned = without_secrets(TEXTS[kind])
    assert "secretsecret" not in cleaned and "cretsecret" not in cleaned and TOKEN not in cleaned
    assert "[secret]" in cleaned


@pytest.mark.parametrize("text", ["https://host/a@b", "me@example.org", "a: b@c", "hf_hub", "bearer of bad news"])
def test_plain_text_stays(text):
    assert without_secrets(text) == text


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "AWS_SECRET", "db_password"])
def test_keys_of_the_environment_are_replaced(name, monkeypatch):
    monkeypatch.setenv(name, "correct horse battery")
    assert without_secrets("server said: correct horse battery!") == "server said: [secret]!"
    monkeypatch.setenv(name, "short")
    assert without_secrets("a short text") == "a short text"


def test_an_error_of_a_verb_names_no_password(capsys):
    assert main(["index", "https://me:secretsecret@host/x.parquet", "--model", "m", "--out", "o"]) == 2
    said = capsys.readouterr().err
    assert "secretsecret" not in said and "[secret]@host" in said


def test_a_hub_that_echoes_the_token(tiny_folder, tiny_model, tmp_path):
    class Echo(BaseHTTPRequestHandler):
        def do_POST(self):
            said = f"who are you, {self.headers.get('Authorization')}?"
            body = json.dumps({"error": said}).encode()
            self.send_response(403)
            self.send_header("X-Error-Message", said)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815  # as the base class calls it

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    shutil.copytree(tiny_folder, tmp_path / "m")
    write_model_card(tmp_path / "m", model=tiny_model, name="a/b", results=[], training={})
    settings = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path)}
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"} | settings
    environment["PYTHONPATH"] = str(Path(vsehub.__file__).parents[1])
    words = [sys.executable, "-m", "vsehub", "push", str(tmp_path / "m"), "a/b"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=240)
    server.shutdown()
    server.server_close()
    assert done.returncode == 2 and "who are you" in done.stderr, done.stderr
    assert TOKEN not in done.stdout + done.stderr and "[secret]" in done.stderr
