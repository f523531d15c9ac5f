"""Where a server listens, and who needs a token."""

import socket
import sys

import httpx
import pytest
from served import running

from vsehub.search.retriever import Retriever
from vsehub.serving.server import bound, check_extra, check_token, is_loopback, listen, serve

LONG = "0123456789abcdef"


def test_only_this_machine_is_loopback():
    assert all(map(is_loopback, ["127.0.0.1", "127.1.2.3", "::1", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "192.168.1.2", "localhost.example", "example.org", ""]))


def test_other_machines_need_a_token_that_nobody_guesses():
    check_token("127.0.0.1", None)
    check_token("0.0.0.0", LONG)
    with pytest.raises(ValueError, match="other machines reach it; set VSEHUB_SERVE_TOKEN"):
        check_token("0.0.0.0", None)
    for short in ("", "secret", "ä" * 16, "a\nb" * 8):
        with pytest.raises(ValueError, match="at least 16 characters"):
            check_token("127.0.0.1", short)


def test_a_port_that_is_taken_and_an_address_of_elsewhere_are_one_line():
    with bound("127.0.0.1", 0) as own:
        own.listen()
        port = own.getsockname()[1]
        with pytest.raises(ValueError, match=f"127.0.0.1:{port} cannot be listened at .*: give another --port"):
            bound("127.0.0.1", port)
    for host in ("203.0.113.1", "nosuchhost.invalid"):
        with pytest.raises(ValueError, match=f"{host}:0 cannot be listened at .*: give another --host"):
            bound(host, 0)
    assert isinstance(own, socket.socket)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the second cannot be bound")
def test_of_two_servers_that_start_at_once_one_is_told():
    with bound("127.0.0.1", 0) as first, bound("127.0.0.1", first.getsockname()[1]) as second:
        listen(first, 1)
        with pytest.raises(ValueError, match="cannot be listened at .*: give another --port"):
            listen(second, 1)


def test_clients_can_connect_as_soon_as_the_address_is_told(index_folder):
    own, told = bound("127.0.0.1", 0), []

    def ready(server):
        with socket.create_connection(own.getsockname(), 5):
            told.append(True)
        server.should_exit = True

    serve(Retriever.open(index_folder), own, ready=ready)
    assert told == [True]


def test_a_missing_package_names_the_extra(monkeypatch):
    check_extra()
    for name in ("starlette", "uvicorn", "prometheus_client"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(ImportError, match=rf'{name}: pip install "vsehub\[serve\]"'):
                check_extra()


def test_a_real_server_answers_and_ends(index_folder):
    with running(index_folder, examples=("a dog",)) as address, httpx.Client(base_url=address, timeout=20) as client:
        assert client.get("/health").json()["status"] == "ok"
        assert client.get("/about").json()["examples"] == ["a dog"]
        answer = client.post("/search", json={"text": "a dog"})
        assert len(answer.json()["hits"]) == 6 and "server" not in answer.headers
        large = client.post("/search", content=b" " * 40_000_000, headers={"Content-Type": "application/json"})
        assert large.status_code == 413  # the sender reads this answer, because its body was read to its end
        assert client.get("/health", headers={"Host": "evil.example"}).status_code == 400
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 1)
