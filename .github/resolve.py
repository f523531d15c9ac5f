"""Check that every promised Python resolves: pinned, oldest and newest requirements, with wheels for each.

    pip install uv && python .github/resolve.py

Nothing is installed; only the packages' metadata are read. Ends with status 1 if a set does not resolve.
"""

import ast
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
FALLEN = ("mteb==1.", "mteb==0.")  # what a resolver falls back to, silently, when the rest is pinned too high


def requirements() -> list[str]:
    """What setup.py asks for, with the extras `test` and `docs`; read from its text, so that nothing is built."""
    calls = [node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(node, ast.Call)]
    call = next(call for call in calls if getattr(call.func, "id", "") == "setup")
    values = {word.arg: word.value for word in call.keywords}
    extras = ast.literal_eval(values["extras_require"])
    return ast.literal_eval(values["install_requires"]) + extras["test"] + extras["docs"]


def resolve(python: str, options: list[str]) -> list[str]:
    """The resolved requirements as `NAME==VERSION`, or an error that tells why there are none."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "-", *options, "--no-header", "--no-annotate"]
    command += ["--python-version", python, "--python-platform", "linux", "--only-binary", ":all:"]
    asked = "\n".join(requirements())
    done = subprocess.run(
        [*command, "--no-python-downloads"], cwd=ROOT, input=asked, capture_output=True, text=True, encoding="utf-8"
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    lines = done.stdout.split()
    if fallen := [line for line in lines if line.startswith(FALLEN)]:
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
