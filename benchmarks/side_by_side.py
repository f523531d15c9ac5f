"""What the benchmarks share: contenders that take turns, peers in a virtual environment of their own, and the report.

A peer is a function of the benchmark's own file, run by the peer's interpreter: it reads arrays, times itself and
writes what it found. It sees the host's torch and numpy, so that both sides use the same libraries for the same work.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import numpy as np

RUNS = Path("runs")


def timed(work) -> dict:
    """Run once: wall and CPU seconds, and what came out."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "result": result}


def take_turns(contenders: dict, repeats: dict[str, int]) -> dict[str, dict]:
    """Run A, B, A, B, ...; a contender drops out after its own number of repeats.

    Args:
        contenders: name -> a function without arguments that returns what `timed` does.
        repeats: of each.

    Returns:
        Per name median and quartiles of wall and CPU seconds, their number, and the last `result`.
    """
    runs = {name: [] for name in contenders}
    for turn in range(max(repeats.values())):
        for name, run in contenders.items():
            if turn < repeats[name]:
                runs[name].append(run())
    found = {}
    for name, several in runs.items():
        found[name] = {"repeats": len(several), "result": several[-1]["result"]}
        for clock in ("wall", "cpu"):
            seconds = [run[clock] for run in several]
            low, high = np.quantile(seconds, [0.25, 0.75])
            found[name][clock] = {"median": statistics.median(seconds), "quartiles": [float(low), float(high)]}
    return found


def forget_peak() -> float:
    """Start measuring the process's largest size anew (Linux); its size now, in GB."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_memory()


def peak_memory() -> float:
    """The process's largest size since `forget_peak`, in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e9


def ratio(found: dict, slow: str, fast: str, clock: str = "cpu") -> float:
    """How many times slower; CPU seconds, because the machine may be shared."""
    return found[slow][clock]["median"] / found[fast][clock]["median"]


def peer_python(name: str, packages: list[str]) -> str:
    """The interpreter of a virtual environment with these packages, made on first use in `runs/peers/NAME`."""
    folder = RUNS / "peers" / name
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", *packages], check=True)
        site = subprocess.run(
            [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        (Path(site) / "host.pth").write_text(sysconfig.get_path("purelib") + "\n")
        (folder / "ready").write_text(" ".join(packages) + "\n")
    return str(python.absolute())


def peer_run(python: str, script: str, what: str, inputs: Path) -> dict:
    """Let a peer do `what` of a script; what it reports as `timed` would."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        subprocess.run([python, script, "--as-peer", what, str(inputs), str(out)], check=True, env=environment)
        return json.loads(out.read_text())


def answer_as_peer(peers: dict) -> bool:
    """In a peer's process: do what is asked, `--as-peer WHAT INPUTS OUT`, and tell that this is all."""
    if "--as-peer" not in sys.argv:
        return False
    what, inputs, out = sys.argv[sys.argv.index("--as-peer") + 1 :][:3]
    with np.load(inputs, allow_pickle=False) as arrays:
        work = peers[what]({name: arrays[name] for name in arrays.files})
    Path(out).write_text(json.dumps(timed(work)))
    return True


def saved_inputs(name: str, **arrays) -> Path:
    """Arrays for peers."""
    path = RUNS / "peers" / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def report(name: str, rows: list[dict], found: dict):
    """Write `runs/NAME.json` and print the rows of docs/benchmarks.md: what, against whom, ratio, target, equality."""
    import torch

    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    RUNS.mkdir(exist_ok=True)
    content = {"command": " ".join(sys.argv), "machine": machine, "rows": rows, "measured": found}
    (RUNS / f"{name}.json").write_text(json.dumps(content, indent=2, default=str))
    for row in rows:
        print(f"| {row['id']} | {row['what']} | {row['peer']} | {row['ratio']} | {row['target']} | {row['equality']} |")


__all__ = [
    "answer_as_peer",
    "forget_peak",
    "peak_memory",
    "peer_python",
    "peer_run",
    "ratio",
    "report",
    "saved_inputs",
    "take_turns",
    "timed",
]
