"""An index in an object store: the verbs over `lance://s3://...` beside the local store, against a server of S3.

    python -m venv /tmp/moto && /tmp/moto/bin/pip install "moto[server]"
    python benchmarks/object_store.py --moto /tmp/moto/bin/moto_server

Indexes pictures of random blocks in both with a tiny CLIP of random weights, searches, removes, adds and changes
pictures, updates, exports, and asserts that hits and scores are the same each time. A bucket that is not there must be
told in one line. Prints a line for each check. Needs `vsehub[lance]`; no network but the loopback.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from vsehub.__main__ import main as main_of_vsehub

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
from dual_encoders import save_dual_encoder  # noqa: E402
from photos import paint  # noqa: E402

QUERIES = ("a red circle", "a blue square beside a green star", "two yellow triangles")
PORT = 5557
KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
    "AWS_ENDPOINT": f"http://127.0.0.1:{PORT}",
    "AWS_ALLOW_HTTP": "true",
}


def verb(*words: str, status: int = 0) -> str:
    """Run `vsehub`; what it printed, on stderr where it is expected to fail."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        found = main_of_vsehub([str(word) for word in words])
    assert found == status, f"{words}: {found}\n{err.getvalue()[-2000:]}"
    return err.getvalue() if status else out.getvalue()


def hits(index: str, *words: str) -> list[tuple]:
    """Name and rounded score of each hit of the queries."""
    found = []
    for query in QUERIES:
        answer = json.loads(verb("search", index, query, "--json", "--no_cutoff", *words))
        rows = answer["hits"] if isinstance(answer, dict) else answer
        found += [(Path(row["id"]).name, round(row["score"], 5)) for row in rows]
    return found


def same(what: str, local: str, remote: str, *words: str):
    """Assert that two indexes answer alike."""
    first, second = hits(local, *words), hits(remote, *words)
    assert first and first == second, f"{what}: {first[:3]} and {second[:3]}"
    print(f"{what}: {len(first)} hits, the same in both", flush=True)


def make_bucket(name: str):
    """Create a bucket once the server answers."""
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/{name}", method="PUT")
    for _ in range(60):
        try:
            urllib.request.urlopen(request, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("the server does not answer")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moto", required=True, help="the program moto_server, of an environment of its own")
    args = parser.parse_args()
    os.environ |= KEYS
    server = subprocess.Popen([args.moto, "-p", str(PORT)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        make_bucket("pictures")
        with tempfile.TemporaryDirectory() as folder:
            compare(Path(folder))
    finally:
        server.terminate()
    return 0


def compare(folder: Path):
    """All checks, in a folder of their own."""
    photos, model = folder / "photos", save_dual_encoder("clip", folder / "clip")
    for number in range(200):
        paint(photos / f"{number:03d}.png", number)
    local, remote = str(folder / "local.index"), "lance://s3://pictures/indexes/scenes"
    for index in (local, remote):
        verb("index", photos, "--model", model, "--out", index)
    same("after index", local, remote)
    same("with a condition", local, remote, "--where", "size > 300")
    names = sorted(photos.glob("*.png"))
    names[0].unlink()
    shutil.copy(names[1], photos / "copy.png")
    names[2].write_bytes(names[3].read_bytes())
    for index in (local, remote):
        verb("index", photos, "--out", index, "--update")
    same("after an update", local, remote)
    exported = "lance://s3://pictures/indexes/exported"
    verb("index", "export", local, "--out", exported)
    same("after an export", local, exported)
    said = verb("search", "lance://s3://nothing/indexes/scenes", "a boat", status=2)
    assert "Traceback" not in said and len(said.strip().splitlines()) == 1, said
    print(f"a bucket that is not there: {said.strip()}")


if __name__ == "__main__":
    raise SystemExit(main())
