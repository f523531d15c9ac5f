"""A pickle that must never be allowed to run."""

import json
import os
import pickle
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


def npy(header: str, body: bytes = b"") -> bytes:
    """The bytes of a `.npy` file with any text as its header."""
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


HEADER = "{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}"
NPY = {  # functions of a witness: arrays that are no matrix of float32
    "pickle": lambda witness: npy(HEADER.format("|O", (4, 4)), pickle.dumps(Hostile(witness))),
    "4 TB": lambda witness: npy(HEADER.format("<f4", (10**6, 10**6)), b"\0" * 64),
    "more than 2^64": lambda witness: npy(HEADER.format("<f4", (2**40, 2**40)), b"\0" * 64),
    "negative": lambda witness: npy(HEADER.format("<f4", (-4, 4)), b"\0" * 64),
    "a call": lambda witness: npy(f"__import__('os').system('touch {witness}')", b"\0" * 64),
    "deep": lambda witness: npy("(" * 100, b"\0" * 64),
    "text": lambda witness: b"text",
    "empty": lambda witness: b"",
    "one axis": lambda witness: npy(HEADER.format("<f4", (16,)), b"\0" * 64),
    "letters": lambda witness: npy(HEADER.format("<U4", (4, 4)), b"\0" * 256),
    "no version": lambda witness: b"\x93NUMPY\x09\x09" + b"\0" * 64,
    "long header": lambda witness: b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 64,
}
