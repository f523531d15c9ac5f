"""Fill the disk while a run overwrites an older one, and see that nothing is lost: `python benchmarks/full_disk.py`.

Needs Linux and the right to mount. An older run of D2S-VSE lies on a small tmpfs, and a run of another architecture
goes over it (without `--resume_from_checkpoint`) with more and more bytes left, from none on: each time, another write
meets a full disk. After each fault:

- `best` and `hub` load, and have configuration and weights of one run, either the older or the newer, to the bit;
- a whole checkpoint is there;
- the run has ended with one line, without a traceback.

Prints a line for docs/reliability.md and writes runs/full_disk.json; the exit status is 1 if anything was lost.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import torch
from transformers import AutoModel

from vsehub.__main__ import main as vsehub
from vsehub.demos.generated_scenes import write_dataset, write_towers
from vsehub.training.saving import checkpoints

FLAGS = """--stages baseline --image_size 32 --num_mask_tokens 4 --decoder_layers 1 --decoder_heads 2
--per_device_train_batch_size 8 --max_steps 1 --logging_steps 1 --eval_strategy steps --save_strategy steps
--eval_steps 1 --save_steps 1 --freeze_vision True --freeze_text True --use_cpu True --report_to none""".split()
PAGE = 4096  # bytes, of which a tmpfs has a whole number
ARTEFACTS = ("baseline/best", "hub")


def train(words: list[str], out: Path, width: int, log: Path) -> int:
    """Train in a forked process, as `vsehub train` does; its exit status."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        tell_to(log)
        status = 1
        try:
            status = vsehub(["train", "d2s", *words, *FLAGS, "--projection_dim", str(width), "--output_dir", str(out)])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def tell_to(log: Path):
    """Send what this process prints to a file."""
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def used(folder: Path) -> int:
    """Bytes that a tmpfs needs for a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in files)


def digests(out: Path) -> dict[str, str]:
    """Of the names of the files, the configuration and the weights of each artefact."""
    found = {}
    for name in ARTEFACTS:
        digest = hashlib.sha256(repr(sorted(path.name for path in (out / name).rglob("*"))).encode())
        for path in (out / name / "config.json", out / name / "model.safetensors"):
            digest.update(path.read_bytes() if path.exists() else b"none")
        found[name] = digest.hexdigest()
    return found


def check_loads(out: Path):
    """See that the artefacts of a whole run load; later ones are compared with them to the bit."""
    for name in ARTEFACTS:
        _, info = AutoModel.from_pretrained(out / name, output_loading_info=True)
        if info["missing_keys"] or info["unexpected_keys"] or info["mismatched_keys"]:
            raise RuntimeError(f"{out / name} does not load: {info}")


def problems(out: Path, known: list[dict[str, str]], text: str, status: int) -> list[str]:
    """What a fault broke."""
    wrong = []
    if "Traceback" in text:
        wrong.append("traceback")
    elif status and "vsehub train: " not in text.strip().splitlines()[-1]:
        wrong.append("no line")
    wrong += [
        f"{name} is of neither run" for name, digest in digests(out).items() if digest not in [k[name] for k in known]
    ]
    if checkpoints.newest_whole(out / "baseline") is None:
        wrong.append("no whole checkpoint")
    return wrong


class Campaign:
    """Runs from the first save on, each in a process of its own and on a disk of its own size.

    Args:
        root: a folder for logs and disks.
        known: digests of the older and of the newer run.
        step: bytes by which the disks grow.
        faults: wanted.
    """

    def __init__(self, root: Path, known: list[dict[str, str]], step: int, faults: int):
        self.root, self.known, self.step, self.faults = root, known, step, faults
        self.runs = self.tried = 0
        self.lost: list[dict] = []

    def install(self):
        """Begin where training would save its first checkpoint."""
        save = checkpoints.SealedCheckpoints._save_checkpoint

        def first(trainer, model, trial):
            checkpoints.SealedCheckpoints._save_checkpoint = save
            shutil.copytree(self.root / "disk" / "run", self.root / "before")
            while self.tried < self.faults and self.runs < 2 * self.faults:
                if self.one():  # the process that goes on
                    return save(trainer, model, trial)
            done = {"faults": self.tried, "runs": self.runs, "lost": self.lost}
            (self.root / "done.json").write_text(json.dumps(done))
            os._exit(0)

        checkpoints.SealedCheckpoints._save_checkpoint = first

    def one(self) -> bool:
        """Fork a run on the next disk: True in the process that goes on with it, False where it has ended."""
        disk, log, left = self.root / "disk", self.root / "faulty.log", self.runs * self.step
        size = used(self.root / "before") + 16 * PAGE + left
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=True)
        shutil.copytree(self.root / "before", disk / "run")
        child = os.fork()
        if child == 0:
            tell_to(log)
            return True
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        self.runs += 1
        self.tried += status != 0
        text = log.read_text()
        broken = problems(disk / "run", self.known, text, status)
        subprocess.run(["umount", disk], check=True)
        if broken:
            self.lost.append({"left": left, "broken": broken})
        if broken or self.runs % 20 == 1:
            said = text.strip().splitlines()[-1:]
            print(f"{self.runs}: {left:,} bytes left, exit {status}, {broken}: {said}", flush=True)
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--out", default="runs/full_disk.json")
    parser.add_argument("--log", type=Path, default=Path("full_disk.log"), help="one line for each 20 runs")
    args = parser.parse_args()
    cpu = os.times()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_dataset(root / "data", train=16, validation=8, test=8)
        vision, text = write_towers(root / "towers")
        words = ["--data", str(root / "data"), "--vision", vision, "--text", text, "--imagenet_normalisation", "True"]
        out = root / "disk" / "run"  # the same folder for all: its name is in the card
        for name, width in (("older", 16), ("newer", 24)):
            if train(words, out, width, root / "log"):
                raise RuntimeError((root / "log").read_text()[-2000:])
            check_loads(out)
            shutil.copytree(out, root / name)
            shutil.rmtree(out)
        shutil.copytree(root / "older", out)
        known = [digests(root / name) for name in ("older", "newer")]
        Campaign(root, known, 2 * used(root / "newer") // 5 // args.faults, args.faults).install()
        train(words, out, 24, args.log)
        results = json.loads((root / "done.json").read_text())
    now = os.times()
    results["cpu_seconds"] = round(sum(now[:4]) - sum(cpu[:4]))
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    Path(args.out).write_text(json.dumps(results, indent=2))
    print(f"full disk: {results['faults']} faults in {results['runs']} runs, {len(results['lost'])} lost something")
    return 1 if results["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
