"""An index of six pictures in a folder, and a client of a server of it."""

import pytest
from served import client_of

from vsehub.search.retriever import Retriever


@pytest.fixture(scope="session")
def photos(tmp_path_factory, tiny_pictures):
    """A folder with six pictures, two of them in a folder below."""
    folder = tmp_path_factory.mktemp("served") / "photos"
    (folder / "trip").mkdir(parents=True)
    for number, picture in enumerate(tiny_pictures):
        picture.save(folder / ("trip" if number > 3 else "") / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def index_folder(photos, tiny_folder, vsehub_session):
    """Its index; read only."""
    vsehub_session("index", photos, "--model", tiny_folder, "--out", photos.parent / "photos.index")
    return photos.parent / "photos.index"


@pytest.fixture(scope="session")
def vsehub_session():
    """A function that runs a command in this process."""
    from vsehub.__main__ import main

    def run(*words):
        assert main([str(word) for word in words]) == 0

    return run


@pytest.fixture(scope="module")
def client(index_folder):
    """A client of a server of the index."""
    with client_of(index_folder) as client:
        yield client


@pytest.fixture(scope="module")
def retriever(index_folder):
    """The index without a server."""
    return Retriever.open(index_folder)
