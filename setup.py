"""The repository root is the import package: `modeling/` is installed as `vsehub.modeling`, never as `modeling`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

NAME = "vsehub"
HERE = Path(__file__).resolve().parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "__init__.py").read_text(encoding="utf-8"), re.M)
OUTSIDE = ["tests", "tests.*", "benchmarks", "benchmarks.*", "docs", "runs", "runs.*", "local", "local.*"]

setup(
    name=NAME,
    version=VERSION[1],  # read, not imported: the package needs what is about to be installed
    description="Visual-semantic embeddings for the Hugging Face Hub: D2S-VSE, PIR and structure-aware distillation",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    script_name="setup.py",  # so that build_py leaves this very file out of the wheel
    package_dir={NAME: "."},
    packages=[NAME, *(f"{NAME}.{folder}" for folder in find_packages(exclude=OUTSIDE))],
    package_data={
        NAME: ["py.typed"],
        f"{NAME}.training": ["recipes/*.yaml"],
        f"{NAME}.hub_cards": ["templates/*", "metric/*", "demo/*"],
        f"{NAME}.serving": ["page/*"],
    },
    entry_points={"console_scripts": [f"{NAME} = {NAME}.__main__:main"]},
    install_requires=[
        "torch>=2.6",
        "transformers>=5.0",
        "accelerate",
        "datasets>=4",
        "huggingface-hub",
        "evaluate",
        "peft",
        "Pillow",
        "numpy",
        "safetensors",
    ],
    extras_require={
        "plot": ["matplotlib"],
        "geo": ["rasterio"],
        "heif": ["pillow-heif"],
        "graded": ["rapidfuzz"],
        "onnx": ["onnx", "onnxscript", "onnxruntime"],
        "index": ["faiss-cpu"],
        "lance": ["lancedb"],
        "qdrant": ["qdrant-client"],
        "eccv": ["eccv_caption"],
        "serve": ["starlette", "uvicorn", "prometheus-client"],
        "sentence-transformers": ["sentence-transformers>=6"],
        "siglip": ["sentencepiece", "protobuf"],
        "torchao": ["torchao"],
        "docs": ["mkdocs-material", "mkdocstrings-python"],
        "test": [
            "pytest",
            "pytest-xdist",
            "hypothesis",
            "ruff",
            "mypy",
            "matplotlib",
            "sentence-transformers>=6",
            "sentencepiece",
            "protobuf",
            "rasterio",
            "pillow-heif",
            "rapidfuzz",
            "onnx",
            "onnxscript",
            "onnxruntime",
            "mteb",
            "parameterized",
            "faiss-cpu",
            "lancedb",
            "qdrant-client",
            "starlette",
            "uvicorn",
            "prometheus-client",
        ],
    },
)
