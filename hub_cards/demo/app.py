"""A Space: the page and the API of `vsehub serve`, over the index in `photos.index/` or the pictures in `gallery/`.

Variables: `MODEL` (Hub id or folder), `REVISION` (its tag or commit), `EXAMPLES` (queries, one a line), `INDEX` and
`GALLERY` (other folders), `HOST`, `PORT`; the secret `VSEHUB_SERVE_TOKEN` keeps the Space for those who have the token.
"""

import os
import sys
import tempfile
from pathlib import Path

from vsehub.__main__ import main

HERE = Path(__file__).resolve().parent
SITE = "https://huggingface.co"  # shows a Space in a frame


def model_flags() -> list[str]:
    """The flags that name the model."""
    named = {"--model": os.environ.get("MODEL"), "--revision": os.environ.get("REVISION")}
    return [word for flag, value in named.items() if value for word in (flag, value)]


def index_of(gallery: Path) -> Path:
    """The index beside this file; without one, an index of the gallery, made now.

    Raises:
        SystemExit: there is neither an index nor a gallery, or no model for it.
    """
    index = Path(os.environ.get("INDEX", HERE / "photos.index"))
    if index.is_dir():
        return index
    if not gallery.is_dir() or not os.environ.get("MODEL"):
        raise SystemExit(f"put an index into {index}, or pictures into {gallery} and the model's Hub id into MODEL")
    made = Path(tempfile.mkdtemp()) / "photos.index"
    if main(["index", str(gallery), *model_flags(), "--out", str(made)]):
        raise SystemExit(f"{gallery} could not be indexed")
    return made


def serve() -> int:
    """Serve until the Space ends."""
    gallery, host = Path(os.environ.get("GALLERY", HERE / "gallery")), os.environ.get("HOST", "127.0.0.1")
    words = [*model_flags(), "--images", str(gallery), "--host", host, "--port", os.environ.get("PORT", "7860")]
    alone = host == "127.0.0.1" or "VSEHUB_SERVE_TOKEN" in os.environ
    words += [] if alone else ["--public"]
    words += ["--framed_by", SITE, "--max_body", "20"]
    examples = filter(None, map(str.strip, os.environ.get("EXAMPLES", "").splitlines()))
    words += [word for text in examples for word in ("--example", text)]
    return main(["serve", str(index_of(gallery)), *words])


if __name__ == "__main__":
    sys.exit(serve())
