"""Counts what a process asks the network for: requests to a loopback server, and every attempt to reach a host."""

import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Watch:
    """What was seen: `requests` to the server at `address`, `hosts` that Python's sockets were asked for."""

    def __init__(self):
        self.requests, self.hosts, self.address = [], [], ""

    @property
    def seen(self) -> list:
        return self.requests + self.hosts


@contextmanager
def watched_network(monkeypatch):
    """Yield a `Watch`; the libraries' offline switches are off meanwhile, or nothing would be asked anyway."""
    watch = Watch()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            watch.requests.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET  # noqa: N815  # as the base class calls it

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    watch.address = f"127.0.0.1:{server.server_port}"
    real, connect = socket.getaddrinfo, socket.socket.connect

    def look_up(host, *rest, **options):
        watch.hosts.append(host)
        if host in ("127.0.0.1", "localhost"):
            return real(host, *rest, **options)
        raise socket.gaierror(socket.EAI_NONAME, "no such host in a test")

    def reach(self, address):
        watch.hosts.append(address)
        return connect(self, address)

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", look_up)
        patch.setattr(socket.socket, "connect", reach)
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        patch.setattr("datasets.config.HF_HUB_OFFLINE", False)
        patch.setattr("datasets.load.increase_load_count", lambda *_, **__: None)  # a counter of its own
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        yield watch
    server.shutdown()
    thread.join()
    server.server_close()
