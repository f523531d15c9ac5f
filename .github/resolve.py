"""Check that every promised Python resolves: pinned, oldest and newest requirements, with wheels for each.

    pip install uv && python .github/resolve.py

Nothing is installed; only the packages' metadata are read. Ends with status 1 if a set does not resolve.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
SETS = {
    "constraints.txt": ["--constraint", "constraints.txt"],
    "oldest": ["--constraint", ".github/lowest.txt"],
    "newest": [],
}
LOST = ("mteb==1.", "mteb==0.")  # what a resolver falls back to, silently, when the rest is pinned too high


def resolve(python: str, options: list[str]) -> list[str]:
    """The requirements of the extra `test` as `NAME==VERSION`, or an error that tells why there are none."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "setup.py", "--extra", "test", *options]
    command += ["--python-version", python, "--python-platform", "linux", "--only-binary", ":all:"]
    command += ["--no-python-downloads", "--no-header", "--no-annotate"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    lines = done.stdout.split()
    if fallen := [line for line in lines if line.startswith(LOST)]:
        raise RuntimeError(f"falls back to {', '.join(fallen)}")
    return lines


def main() -> int:
    """Resolve each set for each Python."""
    failed = 0
    for python in PYTHONS:
        for name, options in SETS.items():
            try:
                print(f"Python {python}, {name}: {len(resolve(python, options))} packages", flush=True)
            except RuntimeError as error:
                failed += 1
                print(f"Python {python}, {name}: {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
