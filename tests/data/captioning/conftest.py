"""A server on the loopback for the tests of captions."""

import threading

import pytest
from chat_server import Server

from vsehub.data.captioning import server_captioner


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(server_captioner, "BACKOFF_S", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Server() as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield running
        running.done.set()
        running.shutdown()
