"""How long a connection may ask for nothing."""

import socket
import threading

import httpx
import pytest
from served import running

from vsehub.serving import connections


@pytest.fixture
def address(index_folder, monkeypatch):
    """Host and port of a real server that waits for 0.3 s."""
    monkeypatch.setattr(connections, "READING", 0.3)
    with running(index_folder) as address:
        yield "127.0.0.1", int(address.rpartition(":")[2])


@pytest.mark.parametrize(
    "sent", [b"", b"GET /health HT", b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"]
)
def test_a_connection_that_asks_for_nothing_is_closed(address, sent):
    with socket.create_connection(address, 10) as idle:
        idle.sendall(sent)
        try:
            while idle.recv(1000):
                pass
        except ConnectionResetError:
            pass
    assert httpx.get("http://{}:{}/health".format(*address)).status_code == 200


def test_a_connection_whose_request_is_answered_stays(address, monkeypatch):
    from vsehub.serving.service import Service

    about, wait = Service.about, threading.Event()
    monkeypatch.setattr(Service, "about", lambda service: (wait.wait(1.0), about(service))[1])
    with httpx.Client(base_url="http://{}:{}".format(*address)) as client:
        assert client.get("/about").json()["rows"] == 6
