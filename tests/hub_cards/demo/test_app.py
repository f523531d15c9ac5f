"""The Space's script without Gradio: what it indexes and answers (`make test-space` clicks through the page)."""

import runpy
import sys
from pathlib import Path
from unittest.mock import MagicMock

import torch
from PIL import Image
from transformers import AutoModel

from vsehub.hub_cards import demo as folder
from vsehub.plots import belief_map

HERE = Path(folder.__path__[0])


def test_the_gallery_is_embedded_as_the_model_embeds_it(pir_folder, tiny_pictures, tmp_path, monkeypatch):
    hidden = tiny_pictures[0].convert("RGBA")
    hidden.putalpha(0)  # white to the model, whatever colours lie below
    pictures = [hidden, tiny_pictures[1]]
    for row, picture in enumerate(pictures):
        picture.save(tmp_path / f"{row}.png")
    monkeypatch.setenv("MODEL", str(pir_folder))
    monkeypatch.setenv("GALLERY", str(tmp_path))
    monkeypatch.setitem(sys.modules, "gradio", MagicMock())
    monkeypatch.syspath_prepend(HERE)  # as for a script
    app = runpy.run_path(str(HERE / "app.py"))
    expected = AutoModel.from_pretrained(pir_folder).encode_image(pictures)
    torch.testing.assert_close(app["index"], expected, atol=1e-5, rtol=0)
    hits = app["search"]("", pictures[1], 1)
    assert [Path(path).name for path, _ in hits] == ["1.png"]
    assert isinstance(app["believe"](pictures[1]), Image.Image)


def test_the_space_draws_belief_as_everything_else_does():
    copy, source = HERE / "belief_map.py", Path(belief_map.__file__)
    assert copy.read_bytes() == source.read_bytes(), f"copy {source.name} to {copy.parent}: the Space stands alone"
