"""One request: a deadline that covers everything, no redirect, a bounded answer, and a key that comes back nowhere."""

import http.client
import io
import json
import socket
import threading
import time
import urllib.error
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from caption_folder import assert_whole, rows_of
from chat_server import CAPTION, ask, last_error, message, one_picture

from vsehub.data.captioning import transport
from vsehub.data.captioning.transport import RefusedError, post, reason_in, refusal, secretless, silence_of, without_key


@pytest.fixture
def plain():
    """A server that answers as `plain.answer(handler)` says; `plain.requests` are (path, headers, body)."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.requests.append((self.path, dict(self.headers), body))
            self.server.answer(self)

        def do_GET(self):  # what a redirect may become
            self.server.requests.append((self.path, dict(self.headers), b""))
            reply(200, b"followed")(self)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads, running.requests = True, []
        running.handle_error = lambda *_: None  # the client hangs up on purpose
        running.url = f"http://127.0.0.1:{running.server_address[1]}/v1"
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield running
        running.shutdown()


def reply(code, body, length=None, **headers):
    def answer(handler):
        handler.send_response(code)
        for name, value in {**headers, "Content-Length": len(body) if length is None else length}.items():
            handler.send_header(name, str(value))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


# --- One request -----------------------------------------------------------------------------------------------------


def test_a_body_is_sent_as_json_with_the_key_as_bearer_and_the_answer_comes_back_whole(plain):
    content = bytes(range(256)) * 1000
    plain.answer = reply(200, content)
    assert post(f"{plain.url}/x", b'{"a": 1}', "sk-1", 5) == content
    post(plain.url, b"{}", "", 5)
    (path, headers, body), (_, without, _) = plain.requests
    assert (path, body, headers["Content-Type"]) == ("/v1/x", b'{"a": 1}', "application/json")
    assert headers["Authorization"] == "Bearer sk-1" and "Authorization" not in without


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_not_followed(plain, code):
    plain.answer = reply(code, b"", Location=f"{plain.url}/elsewhere")
    with pytest.raises(RefusedError, match=f"HTTP {code}") as refused:
        post(plain.url, b"{}", "sk-1", 5)
    assert len(plain.requests) == 1 and not refused.value.again and refused.value.server


def test_an_answer_above_the_limit_is_not_read_to_its_end(plain, monkeypatch):
    monkeypatch.setattr(transport, "MAX_ANSWER_BYTES", 1 << 20)
    plain.answer = reply(200, b"x" * (1 << 20))
    assert len(post(plain.url, b"{}", "", 5)) == 1 << 20
    plain.answer = reply(200, b"x" * (1 << 20) + b"x", length=1 << 40)  # it would go on for long
    with pytest.raises(RefusedError, match="an answer of more than 1 MB"):
        post(plain.url, b"{}", "", 5)


def test_an_answer_shorter_than_it_says_is_a_reason_to_ask_again(plain):
    plain.answer = reply(200, b'{"choices": [', length=999)
    with pytest.raises(RefusedError, match="986 more expected") as refused:
        post(plain.url, b"{}", "", 5)
    assert refused.value.again and not refused.value.server


def test_only_the_beginning_of_a_long_error_is_read(plain, monkeypatch):
    monkeypatch.setattr(transport, "MAX_REASON_BYTES", 100)
    plain.answer = reply(400, b"y" * 5000)
    with pytest.raises(RefusedError) as refused:
        post(plain.url, b"{}", "sk-12345", 5)
    assert refused.value.text == "y" * (100 - len("sk-12345"))  # the rest may be the beginning of the key


def test_retry_after_is_honoured(server, folder, tmp_path):
    server.plan = lambda index, attempt: "busy" if attempt == 0 and index == 5 else "good"
    assert ask(server, folder, tmp_path / "d.parquet") == 0
    first, second = (moment for index, moment in server.times if index == 5)
    assert second - first >= 1.0


def test_a_date_in_retry_after_is_understood_and_bounded():
    def pause(value):
        error = urllib.error.HTTPError("u", 429, "busy", {"Retry-After": value}, io.BytesIO(b""))
        return transport.refusal_of(error).pause

    assert pause("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert pause("Wed, 21 Oct 2093 07:28:00 GMT") == pause("99999999") == transport.MAX_RETRY_AFTER_S
    assert pause("-3") == pause("nan") == pause("1e999") == pause("²") == 0 and pause("2") == 2


@pytest.mark.parametrize("trouble", ["slow", "dripping"])
def test_a_request_that_takes_too_long_is_given_up_and_repeated(server, folder, tmp_path, trouble):
    server.plan = lambda index, attempt: trouble if attempt == 0 and index == 3 else "good"
    start = time.monotonic()
    assert ask(server, folder, tmp_path / "d.parquet", "--timeout", 0.5) == 0
    assert time.monotonic() - start < 2.5
    assert_whole(tmp_path / "d.parquet", folder)


def drip_headers(handler, body):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not handler.server.done.wait(0.05):
        handler.wfile.write(b"X")


def drip_status(handler, body):
    for _ in range(200):
        if handler.server.done.wait(0.05):
            break
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def drip_error(handler, body):
    handler.send_response(500)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while not handler.server.done.wait(0.05):
        handler.wfile.write(b"x")


@pytest.mark.parametrize("drip", [drip_headers, drip_status, drip_error], ids=lambda drip: drip.__name__)
def test_the_deadline_covers_headers_and_bodies_of_errors(server, tmp_path, capsys, drip):
    server.plan = lambda index, attempt: drip
    start = time.monotonic()
    assert ask(server, one_picture(tmp_path), tmp_path / "d.parquet", "--timeout", 0.4, "--tries", 2) == 2
    assert time.monotonic() - start < 3
    assert "no whole answer within 0.4 s (--timeout)" in last_error(capsys)


def test_a_connection_that_is_given_up_is_closed_while_its_server_still_writes(server, tmp_path):
    closed = threading.Event()

    def drip(handler, body):
        try:
            drip_headers(handler, body)
        except OSError:
            closed.set()

    server.plan = lambda index, attempt: drip
    assert ask(server, one_picture(tmp_path), tmp_path / "d.parquet", "--timeout", 0.3, "--tries", 1) == 2
    assert closed.wait(2)


def test_the_deadline_covers_the_look_up_of_the_name(tmp_path, capsys, monkeypatch):
    from vsehub.data.captioning import transport

    def look_up(*_, **__):
        time.sleep(2)
        raise OSError("no such host")

    monkeypatch.setattr(transport.socket, "getaddrinfo", look_up)
    start = time.monotonic()
    with pytest.raises(transport.RefusedError, match="no whole answer within 0.3 s"):
        transport.post("http://somewhere.example/v1", b"{}", "", 0.3)
    assert time.monotonic() - start < 1.5


# --- Whose fault, and why --------------------------------------------------------------------------------------------

CODES = (302, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 425, 429, 500, 501, 502, 503, 504, 529)
LATER = {408, 409, 425, 429, 500, 501, 502, 503, 504, 529}
THE_PICTURES = {400, 408, 409, 413, 415, 422, 425, 500, 501, 529}


@pytest.mark.parametrize("code", CODES)
def test_a_status_says_whether_to_ask_again_and_whether_the_server_is_at_fault(code):
    refused = refusal(code, "why", "all of it")
    assert (refused.code, refused.text, str(refused)) == (code, "all of it", f"HTTP {code} why")
    assert refused.again == (code in LATER) and refused.server == (code not in THE_PICTURES)


def test_a_reason_is_one_short_line_without_the_key_and_a_pause_is_bounded():
    refused = refusal(400, f"a\nb\x1b[2J sk-secret {'c' * 999}", "", "sk-secret", -5.0)
    assert str(refused).startswith(r"HTTP 400 a b\x1b[2J [key] ccc")
    assert len(str(refused)) == transport.MAX_REASON_CHARACTERS and refused.pause == 0
    assert refusal(429, "", "", pause=1e9).pause == transport.MAX_RETRY_AFTER_S


@pytest.mark.parametrize(
    ("error", "server"),
    [
        (urllib.error.URLError(ConnectionRefusedError(111, "Connection refused")), True),
        (urllib.error.URLError(socket.gaierror(-2, "Name or service not known")), True),
        (ConnectionResetError(104, "Connection reset by peer"), False),
        (urllib.error.URLError(TimeoutError("timed out")), False),
        (http.client.IncompleteRead(b"", 5), False),
        (http.client.BadStatusLine("sk-secret"), False),
    ],
    ids=repr,
)
def test_a_connection_never_made_is_the_servers_fault_and_one_that_broke_may_be_the_pictures(error, server):
    refused = silence_of(error, "sk-secret")
    assert refused.server == server and refused.again and refused.code is None
    assert type(getattr(error, "reason", error)).__name__ in str(refused) and "sk-secret" not in str(refused)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"error": {"message": "no such model", "code": 404}}', "no such model"),
        ('{"error": "no such model"}', "no such model"),
        ('{"detail": "Not Found"}', "Not Found"),
        ('{"detail": [{"loc": ["body"], "msg": "café"}]}', '[{"loc": ["body"], "msg": "café"}]'),
        ('{"message": "slow down"}', "slow down"),
        ('{"error": null, "detail": "why"}', "why"),
        ('{"code": 7}', '{"code": 7}'),
        ('"a string"', "a string"),
        ("<html>502</html>", "<html>502</html>"),
        ("", ""),
        ("[" * 100_000, "[" * 100_000),
    ],
    ids=lambda text: text[:30],
)
def test_the_message_is_found_in_every_form_of_error(text, expected):
    assert reason_in(text) == expected


# --- The key ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "echo",
    [
        "sk-Ab/1+2=",
        "SK-AB/1+2=",
        r"sk-Ab\/1+2=",
        r"sk\u002dAb\u002f1\u002B2=",
        r"sk\\u002dAb/1+2=",
        r"sk\x2dAb/1+2=",
        "sk-Ab%2F1%2b2%3D",
        "sk-Ab&#47;1&#x2B;2=",
    ],
)
def test_a_key_is_seen_however_it_is_escaped(echo):
    assert without_key(f"wrong key '{echo}', again {echo}.", "sk-Ab/1+2=") == "wrong key '[key]', again [key]."


def test_a_text_without_the_key_and_keys_too_short_to_be_any_change_nothing():
    assert without_key("sk-Ab/1+3= sk-Ab", "sk-Ab/1+2=") == "sk-Ab/1+3= sk-Ab"
    assert without_key("a cat", "") == without_key("a cat", "cat") == "a cat"


@pytest.mark.parametrize(
    ("key", "secret"), [("EMPTY", False), ("abcdefghijk", False), ("abcdefghijkl", True), ("a1b2", True)]
)
def test_a_plain_word_is_no_secret_and_all_else_is(key, secret):
    assert secretless(f"an {key} street", key) == ("an [key] street" if secret else f"an {key} street")


def test_the_key_is_sent_and_never_printed(server, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", " sk-secret\n")
    server.plan = lambda index, attempt: "forbidden"
    assert ask(server, folder, tmp_path / "d.parquet") == 2
    assert server.headers[0]["Authorization"] == "Bearer sk-secret"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret\nX: y")
    assert ask(server, folder, tmp_path / "d.parquet") == 2
    assert "sk-secret" not in "".join(capsys.readouterr())


KEY = "sk-Abc/12+34="


def echo(handler, body):
    handler.send(400, {"error": {"message": f"bad key {KEY}, {KEY.lower()}, {json.dumps(KEY)}", "key": KEY}})


def status_line(handler, text, whole=True):
    handler.wfile.write(
        f"HTTP/1.1 {text}\r\nContent-Length: 0\r\n\r\n".encode() if whole else f"{text}\r\n\r\n".encode()
    )
    handler.close_connection = True


ECHOES = {
    "an error": (lambda handler, body: handler.send(401, f"wrong key: {KEY}".encode()), 2),
    "an error in JSON": (echo, 2),
    "an error, escaped": (lambda handler, body: handler.send(401, rb"key sk\u002dAbc\/12%2B34&#61;"), 2),
    "the reason of a status": (lambda handler, body: status_line(handler, f"401 no {KEY}"), 2),
    "a broken status line": (lambda handler, body: status_line(handler, KEY, whole=False), 2),
    "after much white space": (lambda handler, body: handler.send(401, b" " * 65_530 + f"{KEY}!!".encode()), 2),
    "a caption": (message(content=f"A sign with {KEY} on it. {KEY}"), 0),
    "a caption, split by tokens": (message(content=f"A sign with {KEY[:5]}<|x|>{KEY[5:]} on it."), 0),
    "a caption, split by NUL": (message(content=f"A sign with {KEY[:5]}\0{KEY[5:]} on it."), 0),
    "a short answer": (message(content=f"{'x' * 75}{KEY}"), 2),
    "the model's name": (
        lambda handler, body: handler.answer(CAPTION, model=f"served {KEY} x"),
        0,
    ),
    "a refusal": (message(content=None, refusal=f"{'no ' * 97}{KEY}"), 2),
    "a finish reason": (message(KEY, content=None), 2),
}


@pytest.mark.parametrize("case", ECHOES)
def test_a_key_that_the_server_echoes_is_neither_printed_nor_stored(server, tmp_path, monkeypatch, capfd, case):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    answer, expected = ECHOES[case]
    server.plan = lambda index, attempt: answer
    root, out = one_picture(tmp_path), tmp_path / "d.parquet"
    for options in ((), ("--on_bad_sample", "quarantine")):
        assert ask(server, root, out, "--tries", 2, *options) == expected
    printed = "".join(capfd.readouterr())
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    for part in (KEY, KEY.lower(), KEY[:9], "Abc", "abc"):
        assert part not in printed and part.encode() not in written
    if expected == 0 and "caption" in case:
        assert "[key]" in rows_of(out)[0]["dense_text"]


def test_a_report_of_bad_samples_holds_no_key(server, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.plan = lambda index, attempt: echo if index == 4 else "good"
    assert ask(server, folder, tmp_path / "d.parquet", "--on_bad_sample", "quarantine", "--concurrency", 1) == 0
    assert "[key]" in (tmp_path / "bad_samples.jsonl").read_text()
    for path in (tmp_path / "d.parquet", tmp_path / "bad_samples.jsonl"):
        assert KEY.encode() not in path.read_bytes()


def test_a_word_for_a_key_is_no_secret_in_a_caption(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    server.plan = lambda index, attempt: message(content="An empty street at night.")
    assert ask(server, one_picture(tmp_path), tmp_path / "d.parquet") == 0
    assert rows_of(tmp_path / "d.parquet")[0]["dense_text"] == "An empty street at night."
