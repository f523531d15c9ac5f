"""Routes, and errors as one line of JSON."""

import pytest
import torch
from served import base64_of, client_of, message_of

from vsehub.processing.pixels import BadImageError
from vsehub.search.index_store import IndexFolderError


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("get", "/nothing", 404),
        ("get", "/search", 405),
        ("post", "/health", 405),
        ("get", "/page/page.html", 404),
        ("get", "/../serving/app.py", 404),
        ("get", "/pictures/..%2f..%2fetc%2fpasswd", 404),
        ("get", "/pictures/%2fetc%2fpasswd", 404),
    ],
)
def test_what_is_not_there_is_one_line(client, method, path, status):
    answer = getattr(client, method)(path)
    assert answer.status_code == status and message_of(answer)


def test_the_page_its_style_and_its_script_are_files_of_the_package(client):
    for path, kind in [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")]:
        answer = client.get(path)
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ValueError("two\nlines"), 400, "two lines"),
        (BadImageError("/home/me/a.png: broken"), 404, "the server's log says why"),
        (FileNotFoundError(2, "no such file", "/home/me/a.png"), 404, "the server's log says why"),
        (TimeoutError("too slow"), 503, "too slow"),
        (torch.OutOfMemoryError("CUDA out of memory"), 503, "send fewer texts and pictures"),
        (RuntimeError("/home/me secret"), 500, "a fault of the server"),
        (MemoryError(), 500, "a fault of the server"),
    ],
)
def test_errors_tell_the_remedy_and_no_path(index_folder, monkeypatch, error, status, said):
    with client_of(index_folder) as client:

        def fail(body):
            raise error

        monkeypatch.setattr(client.service, "search", fail)
        answer = client.post("/search", json={"text": "a dog"})
        assert answer.status_code == status and said in message_of(answer) and "/home" not in answer.text
        assert answer.json()["error"]["code"] == status


def test_an_index_that_cannot_be_searched_is_told_in_the_log(index_folder, monkeypatch, caplog):
    with client_of(index_folder) as client:

        def fail(body):
            raise IndexFolderError("/home/me/photos.index: a file is missing")

        monkeypatch.setattr(client.service, "search", fail)
        answer = client.post("/search", json={"text": "a dog"})
        assert answer.status_code == 500 and "is in its log" in message_of(answer) and "/home" not in answer.text
        assert "/home/me/photos.index: a file is missing" in caplog.text


def test_pictures_that_are_none_are_told_so(client):
    cases = [
        ("AAAA", 400, "no base64 of a whole picture (cannot identify image file);"),
        ("?", 400, "no base64"),
        ("/etc/passwd", 400, "no base64"),
    ]
    for picture, status, said in cases:
        answer = client.post("/search", json={"image": picture})
        assert answer.status_code == status and said in message_of(answer)


def test_a_picture_of_too_many_pixels_is_413(index_folder):
    from PIL import Image

    from vsehub.serving.questions import Limits

    with client_of(index_folder, limits=Limits(pixels=10_000)) as client:
        answer = client.post("/search", json={"image": base64_of(Image.new("L", (200, 100)))})
        assert answer.status_code == 413 and "at most 10,000 pixels" in message_of(answer)
        answer = client.post("/v1/embeddings", json={"input": [{"image": base64_of(Image.new("L", (100, 60)))}] * 2})
        assert answer.status_code == 413 and "got 12,000" in message_of(answer)
        answer = client.post("/v1/embeddings", json={"input": ["a"] * 65})
        assert answer.status_code == 413 and "at most 64 texts and pictures" in message_of(answer)
