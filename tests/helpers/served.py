"""A server of an index in this process, and requests to it."""

import base64
import io
import threading
from contextlib import contextmanager

from starlette.testclient import TestClient

from vsehub.search.retriever import Retriever
from vsehub.search.stores.places import stamp_of
from vsehub.serving import server
from vsehub.serving.app import make_app
from vsehub.serving.guard import LOOPBACK
from vsehub.serving.metrics import Metrics
from vsehub.serving.questions import Limits
from vsehub.serving.service import Service


def service_of(folder, limits=None, images=(), examples=(), metrics=None) -> Service:
    """The service of an index in a folder."""
    stamp, retriever = stamp_of(folder), Retriever.open(folder)
    return server.service_of(retriever, metrics or Metrics(), limits or Limits(), images, stamp, examples)


@contextmanager
def client_of(folder, token=None, hosts=(*LOOPBACK, "testserver"), **options):
    """A client of a server; `client.service` is what answers."""
    metrics = Metrics()
    service = service_of(folder, metrics=metrics, **options)
    with TestClient(make_app(service, metrics, token, hosts), raise_server_exceptions=False) as client:
        client.service = service
        yield client
    service.encoder.close()


@contextmanager
def running(folder, **options):
    """The address of a real server of an index, in a thread of this process; `options` are those of `serve`."""
    servers, ready, own = [], threading.Event(), server.bound("127.0.0.1", 0)
    address = "http://{}:{}".format(*own.getsockname())
    stamp, retriever = stamp_of(folder), Retriever.open(folder)
    options |= {"stamp": stamp, "ready": lambda one: (servers.append(one), ready.set())}
    thread = threading.Thread(target=server.serve, args=(retriever, own), kwargs=options)
    thread.start()
    try:
        assert ready.wait(30)
        yield address
    finally:
        servers[0].should_exit = True
        thread.join(30)
    assert not thread.is_alive()


def base64_of(image, form="PNG") -> str:
    """A PIL image as base64."""
    buffer = io.BytesIO()
    image.save(buffer, form)
    return base64.b64encode(buffer.getvalue()).decode()


def message_of(response) -> str:
    """The one line of an error."""
    message = response.json()["error"]["message"]
    assert "\n" not in message and len(message) < 300
    return message
