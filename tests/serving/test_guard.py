"""Who is answered, how many at once, and how much is read."""

import asyncio
import threading
import time

import pytest
from served import client_of, message_of

from vsehub.serving import guard as module
from vsehub.serving.guard import LOOPBACK, Guard
from vsehub.serving.metrics import Metrics
from vsehub.serving.questions import Limits

TOKEN = "a-token-of-many-letters"


def test_without_its_token_nothing_of_the_index_is_answered(index_folder):
    with client_of(index_folder, TOKEN, None) as client:
        paths = {"/search": "post", "/v1/embeddings": "post", "/about": "get", "/metrics": "get", "/v1/models": "get"}
        paths |= {"/pictures/" + "0" * 16: "get", "/belief/" + "0" * 16: "get", "/anything": "get"}
        for given in (None, "", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xff"):
            for path, method in paths.items():
                headers = {} if given is None else {"Authorization": given.encode("latin-1")}
                answer = getattr(client, method)(path, headers=headers)
                assert answer.status_code == 401 and "a token is needed" in message_of(answer)
                assert answer.headers["www-authenticate"] == "Bearer"
        for given in (f"bearer {TOKEN}", f"Bearer {TOKEN}"):
            client.headers["Authorization"] = given
            assert client.post("/search", json={"text": "a dog"}).status_code == 200
        client.headers.pop("Authorization")
        assert client.get("/health").json() == {"status": "ok", "index": "current"}


def test_another_name_of_this_machine_is_not_answered_without_a_token(index_folder):
    with client_of(index_folder, hosts=LOOPBACK) as client:
        for host, status in [("evil.example", 400), ("127.0.0.1:8000", 200), ("LOCALHOST", 200), ("[::1]:80", 200)]:
            answer = client.get("/health", headers={"Host": host})
            assert answer.status_code == status, host
        assert "localhost alone" in message_of(client.get("/", headers={"Host": "127.0.0.1.evil.example"}))
    with client_of(index_folder, TOKEN, None) as client:
        assert client.get("/health", headers={"Host": "photos.example"}).status_code == 200


def test_a_body_that_is_too_large_is_refused_whether_it_tells_its_length_or_not(index_folder):
    with client_of(index_folder, limits=Limits(body=1000)) as client:
        json = {"Content-Type": "application/json"}

        def in_pieces(count):
            return (b" " * 100 for _ in range(count))

        for content in (b" " * 1001, b" " * 100_000, in_pieces(11), in_pieces(1000)):
            answer = client.post("/search", content=content, headers=json)
            assert answer.status_code == 413 and "larger than 1,000 bytes" in message_of(answer)
        body = b'{"text": "a dog"}'
        assert client.post("/search", content=body + b" " * (1000 - len(body)), headers=json).status_code == 200


def test_other_types_than_json_are_refused_as_a_form_of_another_site_sends_them(client):
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = client.post("/search", content=b'{"text": "a dog"}', headers={"Content-Type": kind})
        assert answer.status_code == 415 and "Content-Type: application/json" in message_of(answer)


def test_more_requests_than_are_answered_at_once_are_told_to_come_back(index_folder):
    with client_of(index_folder, limits=Limits(requests=3)) as client:
        busy, done = threading.Event(), threading.Event()
        hold = threading.Thread(target=client.service.encoder.call, args=(lambda: busy.set() or done.wait(20),))
        hold.start()
        assert busy.wait(20)
        answers = []

        def ask():
            answers.append(client.post("/search", json={"text": "a dog"}))

        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 20
        while len(answers) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        assert [answer.status_code for answer in answers] == [429, 429]
        assert answers[0].headers["retry-after"] == "1" and "3 requests are being answered" in message_of(answers[0])
        assert client.get("/health").status_code == 200  # whoever looks whether the server lives is answered
        done.set()
        for thread in [*threads, hold]:
            thread.join(20)
        assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 429, 429]
        assert client.post("/search", json={"text": "a dog"}).status_code == 200


def test_large_bodies_together_are_limited(index_folder, monkeypatch):
    monkeypatch.setattr(module, "BODIES", 0.5)
    with client_of(index_folder, limits=Limits(body=1000)) as client:
        answer = client.post("/search", content=b" " * 600, headers={"Content-Type": "application/json"})
        assert answer.status_code == 429 and "too many large requests" in message_of(answer)
        assert client.post("/search", json={"text": "a dog"}).status_code == 200


def test_a_body_counts_until_its_request_is_answered(index_folder, monkeypatch):
    monkeypatch.setattr(module, "BODIES", 1)
    json, body = {"Content-Type": "application/json"}, b'{"text": "a dog"}'.ljust(600)
    with client_of(index_folder, limits=Limits(body=1000)) as client:
        arrived, done = threading.Event(), threading.Event()
        search = client.service.search

        def slow(body):
            arrived.set()
            assert done.wait(20)
            return search(body)

        monkeypatch.setattr(client.service, "search", slow)
        answers = []
        first = threading.Thread(target=lambda: answers.append(client.post("/search", content=body, headers=json)))
        first.start()
        try:
            assert arrived.wait(20)
            monkeypatch.setattr(client.service, "search", search)
            refused = client.post("/search", content=body, headers=json)
            assert refused.status_code == 429 and "too many large requests" in message_of(refused)
            assert client.post("/search", json={"text": "a dog"}).status_code == 200
        finally:
            done.set()
            first.join(20)
        assert answers[0].status_code == 200
        for given in (body, b"no JSON".ljust(600), body):  # an error gives its bytes back, too
            status = client.post("/search", content=given, headers=json).status_code
            assert status == (200 if given == body else 400)


def test_a_body_that_does_not_arrive_is_given_up(index_folder, monkeypatch):
    monkeypatch.setattr(module, "READING", 0.2)

    async def slow():
        import anyio

        await anyio.sleep(5)

    import anyio
    from starlette.exceptions import HTTPException
    from starlette.requests import Request

    guard = module.Guard(None, Limits(), None, None)
    headers = [(b"content-type", b"application/json")]
    request = Request({"type": "http", "headers": headers, "vsehub guard": guard}, slow)
    with pytest.raises(HTTPException) as error:
        anyio.run(module.body_of, request)
    assert error.value.status_code == 408 and guard.held == 0


def test_a_request_that_is_given_up_as_the_server_ends_is_told_in_one_line():
    async def forever(scope, receive, send):
        await asyncio.sleep(60)

    async def asked():
        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/about", "headers": [(b"host", b"localhost")]}
        metrics = Metrics()
        request = asyncio.create_task(Guard(forever, Limits(), metrics, None)(scope, None, send))
        await asyncio.sleep(0.01)
        request.cancel()  # as uvicorn does
        await request
        return sent, metrics

    (start, body), metrics = asyncio.run(asked())
    assert start["status"] == 503 and b"the server ends: send it again later" in body["body"]
    assert metrics.registry.get_sample_value("vsehub_requests_total", {"route": "none", "status": "503"}) == 1


def test_every_answer_says_that_nothing_else_is_loaded(client):
    for path in ("/", "/page.js", "/page.css", "/health", "/nothing", "/pictures/x"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"], path
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin" and "server" not in headers
