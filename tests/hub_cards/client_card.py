"""Run in a process of its own, without vsehub: every Python block of a published card, each in an empty namespace.

Arguments: where to write the report (the blocks that ran), the repository, its revision.
"""

import json
import re
import sys
from pathlib import Path

from client_load import Absent

sys.meta_path.insert(0, Absent())

if __name__ == "__main__":
    from huggingface_hub import ModelCard, hf_hub_download
    from PIL import Image

    target, name, revision = sys.argv[1:]
    for picture in ("picture.jpg", "a.jpg", "b.jpg"):
        Image.effect_noise((40, 30), 50).save(picture)
    card = ModelCard.load(hf_hub_download(name, "README.md", revision=revision))
    blocks = re.findall(r"```python\n(.*?)\n```", card.text, re.DOTALL)
    for block in blocks:
        exec(block, {})
    Path(target).write_text(json.dumps(blocks))
