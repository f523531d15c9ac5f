"""`vsehub info`: versions and devices, as an issue report needs them."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from .flags import add_json, tell
from .parser import Parser

PACKAGES = """torch transformers accelerate datasets huggingface-hub evaluate peft Pillow numpy safetensors""".split()
EXTRAS = """rasterio pillow-heif faiss-cpu matplotlib onnx onnxruntime rapidfuzz lancedb qdrant-client
sentence-transformers""".split()


def parser() -> Parser:
    """The flags."""
    parser = Parser("info", "Versions and devices, as an issue report needs them.", "info")
    add_json(parser, "the same")
    return parser


def main(argv: list[str]) -> int:
    """Print a table."""
    args = parser().parse_args(argv)
    import torch

    from .. import __version__

    facts = {
        "vsehub": __version__,
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "GPU": ", ".join(torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())) or "none",
        **{name: installed(name) for name in PACKAGES},
        **{name: installed(name) for name in EXTRAS if installed(name) != "missing"},
    }
    width = max(map(len, facts))
    tell(args, "\n".join(f"{name:{width}}  {value}" for name, value in facts.items()), facts)
    return 0


def installed(package: str) -> str:
    """The version of a package, or `missing`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
