"""A pickle that must never be allowed to run."""

import json
import os
from pathlib import Path


class Hostile:
    """Unpickling it writes a file."""

    def __init__(self, witness):
        self.witness = str(witness)

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)


CLASS = "from transformers import PreTrainedConfig\nclass C(PreTrainedConfig):\n    model_type = 'planted'\n"
ASKS_FOR = {  # file, what is put into it: each names a class that only code in the folder defines
    "model": (
        "config.json",
        {"model_type": "planted", "auto_map": {"AutoConfig": "planted.C", "AutoModel": "planted.C"}},
    ),
    "tokenizer": (
        "tokenizer_config.json",
        {"tokenizer_class": "Planted", "auto_map": {"AutoTokenizer": ["planted.C", "planted.C"]}},
    ),
    "image processor": (
        "processor_config.json",
        {
            "image_processor": {
                "image_processor_type": "Planted",
                "auto_map": {"AutoImageProcessor": "planted.C"},
            }
        },
    ),
    "processor": ("processor_config.json", {"processor_class": "P", "auto_map": {"AutoProcessor": "planted.C"}}),
}


def plant_code(folder: Path, part: str, witness: Path):
    """Make a model's folder want code of its own for `part`; running that code writes `witness`."""
    (folder / "planted.py").write_text(f"open({str(witness)!r}, 'w').write('ran')\n{CLASS}")
    name, settings = ASKS_FOR[part]
    path = folder / name
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | settings))
