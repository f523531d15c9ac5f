"""An OpenAI-compatible server that misbehaves as it is told."""

import base64
import io
import json
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from caption_folder import picture
from PIL import Image

from vsehub.__main__ import main

CAPTION = "A red boat lies on a calm lake."


def image_of(body):
    """Return the picture that a request holds."""
    url = body["messages"][0]["content"][0]["image_url"]["url"]
    return Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))


class Server(ThreadingHTTPServer):
    """An OpenAI-compatible server on the loopback.

    `plan(index, attempt)` says how it answers: the name of a method of `Handler`, or a function of handler and request.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan = lambda index, attempt: "good"
        self.bodies, self.headers, self.times, self.attempts = [], [], [], Counter()
        self.base = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self.guard, self.done = threading.Lock(), threading.Event()

    def index_of(self, body):
        """Return the number of the picture that a request holds."""
        return picture(image_of(body))

    def handle_error(self, request, client_address):
        pass  # clients are killed on purpose


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        index = server.index_of(body)
        with server.guard:
            attempt = server.attempts[index]
            server.attempts[index] += 1
            server.bodies.append(body)
            server.headers.append(dict(self.headers))
            server.times.append((index, time.monotonic()))
        plan = server.plan(index, attempt)
        plan(self, body) if callable(plan) else getattr(self, plan)(index)

    def send(self, code, body, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def answer(self, text, reason="stop", **more):
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
        self.send(200, {"model": "served-1", "choices": [choice], "usage": {"completion_tokens": 7}, **more})

    def good(self, index):
        self.answer(f"this is picture {index}")

    def cut(self, index):
        self.answer(f"this is picture {index}", "length")

    def surrogate(self, index):
        self.answer(f"this is picture \ud800{index}", model="served \udfff", usage={"completion_tokens": 2**70})

    def empty(self, index):
        self.answer("  ")

    def none(self, index):
        self.answer(None)

    def no_choices(self, index):
        self.send(200, {"choices": []})

    def malformed(self, index):
        self.send(200, b'{"choices": [{"mess')

    def wrong_shape(self, index):
        self.send(200, [1, 2])

    def nested(self, index):
        self.send(200, b"[" * 200_000)

    def busy(self, index):
        self.send(429, b"slow down", Retry_After="1")

    def busy_oddly(self, index):
        self.send(429, b"slow down", Retry_After="soonish")

    def broken(self, index):
        self.send(500, b"CUDA error")

    def away(self, index):
        self.send(503, b"loading")

    def too_large(self, index):
        self.send(400, {"error": {"message": "image too large"}})

    def forbidden(self, index):
        self.send(401, {"error": {"message": "wrong key"}})

    def moved(self, index):
        self.send(302, b"", Location=f"{self.server.base}/elsewhere")

    def slow(self, index):
        self.server.done.wait(3)
        self.good(index)

    def dripping(self, index):
        self.send_response(200)
        self.end_headers()
        while not self.server.done.wait(0.1):
            self.wfile.write(b" ")

    def reset(self, index):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def short(self, index):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{")
        self.close_connection = True


def ask(server, folder, out, *options):
    """Run the command against the server; return its exit code."""
    return main(
        ["caption", str(folder), "--model", "vlm", "--api_base", server.base, "--out", str(out), *map(str, options)]
    )


def message(end="stop", **fields):
    """An answer whose message has these fields."""

    def answer(handler, body):
        choice = {"index": 0, "message": {"role": "assistant", **fields}, "finish_reason": end}
        handler.send(200, {"model": "served-1", "choices": [choice]})

    return answer


def one_picture(tmp_path, size=(24, 16)):
    """Return a folder that holds one picture."""
    root = tmp_path / "images"
    root.mkdir()
    Image.new("RGB", size, (0, 0, 200)).save(root / "a.png")
    return root


def last_error(capsys):
    """Return the one line that the command ended with."""
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("vsehub caption: ") and not any("Traceback" in line for line in lines)
    return lines[-1]
