"""The Space serves the pictures of its gallery, and nothing beside them."""

import os
import runpy
import subprocess
import sys
import types
from pathlib import Path

import pytest
from PIL import Image

from vsehub.hub_cards import demo as folder

HERE = Path(folder.__path__[0])
GRADIO = """
import runpy, sys
from unittest.mock import MagicMock
gradio = MagicMock()
sys.modules["gradio"] = gradio

runpy.run_path("app.py", run_name="__main__")
print("\\n".join(gradio.Blocks.return_value.__enter__.return_value.launch.call_args.kwargs["allowed_paths"]))
from PIL import Image
import io
try:
    Image.open(io.BytesIO(b"%!PS-Adobe-3.0 EPSF-3.0\\n%%BoundingBox: 0 0 9 9\\n"))
    print("EPS OPENED")
except Image.UnidentifiedImageError:
    print("refused")
"""


def test_only_pictures_of_the_gallery_are_served(tiny_folder, tiny_pictures, tmp_path):
    gallery = tmp_path / "gallery"
    gallery.mkdir()
    tiny_pictures[0].save(gallery / "a.png")
    tiny_pictures[1].save(tmp_path / "private.png")
    (gallery / "link.png").symlink_to(tmp_path / "private.png")
    for name in (".env", "page.html", "drawing.svg", "notes.txt"):
        (gallery / name).write_text("secret")
    environment = os.environ | {"MODEL": str(tiny_folder), "GALLERY": str(gallery), "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", GRADIO], cwd=HERE, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str((gallery / "a.png").resolve()), "refused"]


def test_a_gallery_picture_of_another_format_stops_the_start(tiny_folder, tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    monkeypatch.setenv("MODEL", str(tiny_folder))
    monkeypatch.setenv("GALLERY", str(tmp_path))
    monkeypatch.setitem(sys.modules, "gradio", types.ModuleType("gradio"))
    monkeypatch.syspath_prepend(HERE)
    with pytest.raises(Image.UnidentifiedImageError):
        runpy.run_path(str(HERE / "app.py"))
