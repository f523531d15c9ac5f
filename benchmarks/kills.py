"""Kill training at random, fill the disk at every write, and see that nothing is lost: `python benchmarks/kills.py`.

D2S-VSE's two stages on generated scenes, with accumulation, dropout, augmentation and averaged weights:

- kills: SIGKILL at random steps and at random calls of the system inside saves; the run is then started again with
  `--resume_from_checkpoint true`. Losses and published weights must be bitwise those of the unbroken run.
- faults: every call of the system inside a save of `best`, of `hub` and of a checkpoint fails once with ENOSPC; the
  artefact that was there before must load, whole.

Prints two lines for docs/reliability.md and writes runs/kills.json; the exit status is 1 if anything was lost.
"""

import argparse
import contextlib
import errno
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file

from vsehub.demos.generated_scenes import write_dataset, write_towers
from vsehub.training import run_d2s, stages
from vsehub.training.saving import checkpoints
from vsehub.training.trainer import RetrievalTrainer

CALLS = ("fsync", "rename", "replace", "mkdir", "open", "unlink", "rmdir")
FLAGS = """--image_size 32 --projection_dim 16 --num_mask_tokens 4 --decoder_layers 1 --decoder_heads 2
--size_augmentation 0.2 --text_dropout 0.2 --text_augmentation 0.2 --image_augmentation crop
--per_device_train_batch_size 8 --gradient_accumulation_steps 2 --max_steps 4 --logging_steps 1 --eval_strategy steps
--save_strategy steps --eval_steps 2 --save_steps 2 --use_cpu True --dense_teacher online --average_weights 0.9
--report_to none""".split()
# What writes: the end of a checkpoint, and `best` and `hub`, which go through `whole_folder`.
SAVES = ((checkpoints.SealedCheckpoints, "_save_checkpoint"), (stages, "save"), (run_d2s, "publish_run"))


class Counter:
    """Counts calls of the system inside saves, and steps, and acts at one of them."""

    def __init__(self, at: tuple[str, int] | None, act: Callable[[], None]):
        self.at, self.act, self.inside = at, act, 0
        self.counts = {"call": 0, "step": 0}

    def count(self, kind: str):
        self.counts[kind] += 1
        if self.at == (kind, self.counts[kind]):
            self.act()

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Count inside."""
        kept = []

        def put(owner, name, new):
            kept.append((owner, name, getattr(owner, name)))
            setattr(owner, name, new)

        for name in CALLS:
            put(os, name, self._call(getattr(os, name)))
        for owner, name in SAVES:
            put(owner, name, self._save(getattr(owner, name)))
        put(RetrievalTrainer, "training_step", self._step(RetrievalTrainer.training_step))
        try:
            yield
        finally:
            for owner, name, old in reversed(kept):
                setattr(owner, name, old)

    def _call(self, real):
        def call(*args, **kwargs):
            if self.inside:
                self.count("call")
            return real(*args, **kwargs)

        return call

    def _save(self, real):
        def save(*args, **kwargs):
            self.inside += 1
            try:
                return real(*args, **kwargs)
            finally:
                self.inside -= 1

        return save

    def _step(self, real):
        def step(*args, **kwargs):
            self.count("step")
            return real(*args, **kwargs)

        return step


def run(words: list[str], out: Path, at: tuple[str, int] | None = None, resume: bool = False) -> int | dict[str, int]:
    """Train in a forked process: the number of the signal that ended it, or what it counted.

    Raises:
        RuntimeError: it ended in an error.
    """
    report = out.parent / f"{out.name}.json"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            with contextlib.redirect_stdout(io.StringIO()), open(f"{report}.err", "w") as err, \
                    contextlib.redirect_stderr(err):  # fmt: skip
                counter = Counter(at, lambda: os.kill(os.getpid(), signal.SIGKILL))
                with counter.installed():
                    extra = ["--resume_from_checkpoint", "true"] if resume else []
                    run_d2s.main([*words, *FLAGS, "--output_dir", str(out), *extra])
                report.write_text(json.dumps(counter.counts))
                status = 0
        except BaseException:
            Path(f"{report}.err").write_text(traceback.format_exc())
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    if os.WEXITSTATUS(status):
        raise RuntimeError(Path(f"{report}.err").read_text()[-2000:])
    return json.loads(report.read_text())


def losses(out: Path) -> dict[str, list]:
    """Every loss that the stages logged, from their last checkpoints."""
    logged = {}
    for stage in ("pretrain", "finetune"):
        newest = checkpoints.checkpoints_of(out / stage)[-1]
        history = json.loads((newest / checkpoints.STATE).read_text())["log_history"]
        logged[stage] = [
            {key: value for key, value in entry.items() if key.startswith("loss") or key == "step"}
            for entry in history
            if "loss" in entry
        ]
    return logged


def same(first: Path, second: Path) -> bool:
    """Whether two runs logged the same losses and published the same weights, to the bit."""
    weights = [load_file(out / "hub" / "model.safetensors") for out in (first, second)]
    equal = weights[0].keys() == weights[1].keys() and all(
        torch.equal(weights[0][k], weights[1][k]) for k in weights[0]
    )
    return equal and losses(first) == losses(second)


def kill_all(words: list[str], root: Path, count: int, seed: int) -> dict:
    """Kill `count` runs, half of them inside saves, and go on."""
    totals = run(words, root / "whole")
    draw = random.Random(seed)
    points = [("step", draw.randint(1, totals["step"])) for _ in range(count // 2)]
    points += [("call", draw.randint(1, totals["call"])) for _ in range(count - count // 2)]
    lost = []
    for number, point in enumerate(points):
        out = root / f"killed-{number}"
        ended = run(words, out, at=point)
        try:
            run(words, out, resume=True)
            fine = ended == signal.SIGKILL and same(root / "whole", out)
        except RuntimeError as error:
            fine = False
            print(error, file=sys.stderr)
        if not fine:
            lost.append(point)
        print(f"{number + 1} of {count}: killed at {point[0]} {point[1]}: {'the same' if fine else 'LOST'}", flush=True)
        shutil.rmtree(out, ignore_errors=True)
    return {"kills": count, "of": totals, "lost": lost}


def fail_all(words: list[str], root: Path) -> dict:
    """Let every call inside the saves of one run fail once, over artefacts of an older run."""
    run(words, root / "older")
    whole = run(words, root / "twice")
    tried, lost = 0, []
    for number in range(1, whole["call"] + 1):
        out = root / "faulty"
        shutil.copytree(root / "older", out)
        tried += fault(words, out, number)
        broken = broken_artefacts(out)
        if broken:
            lost.append((number, broken))
            print(f"call {number}: LOST {broken}", flush=True)
        shutil.rmtree(out)
    if tried < whole["call"] // 2:
        raise RuntimeError(f"only {tried} of {whole['call']} faults were reached: the runs ended before them")
    return {"faults": tried, "lost": lost}


def fault(words: list[str], out: Path, number: int) -> bool:
    """One run over an older one, whose `number`-th call inside a save finds the disk full; whether it came so far."""
    reached = []

    def full():
        reached.append(number)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        with contextlib.suppress(BaseException), open(os.devnull, "w") as nothing, \
                contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing), \
                Counter(("call", number), full).installed():  # fmt: skip
            run_d2s.main([*words, *FLAGS, "--output_dir", str(out), "--projection_dim", "24"])
        os._exit(int(bool(reached)))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def broken_artefacts(out: Path) -> list[str]:
    """Which of `best`, `hub` and the newest checkpoints do not load as what their configuration says."""
    from transformers import AutoModel

    broken = []
    for folder in (out / "pretrain" / "best", out / "finetune" / "best", out / "hub"):
        try:
            _, info = AutoModel.from_pretrained(folder, output_loading_info=True)
            assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
        except Exception as error:
            broken.append(f"{folder.relative_to(out)}: {error}")
    for stage in ("pretrain", "finetune"):
        try:
            assert checkpoints.newest_whole(out / stage) is not None
        except Exception as error:
            broken.append(f"{stage}: {error}")
    return broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--no_faults", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs/kills.json")
    args = parser.parse_args()
    start, results = time.time(), {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_dataset(root / "data", train=32, validation=8, test=8)
        vision, text = write_towers(root / "towers")
        words = ["--data", str(root / "data"), "--vision", vision, "--text", text, "--imagenet_normalisation", "True"]
        results |= kill_all(words, root, args.kills, args.seed)
        if not args.no_faults:
            results["disk"] = fail_all(words, root)
    results["seconds"] = time.time() - start
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    Path(args.out).write_text(json.dumps(results, indent=2))
    print(f"kills: {args.kills - len(results['lost'])} of {args.kills} go on bitwise the same")
    if "disk" in results:
        disk = results["disk"]
        print(f"full disk: {disk['faults'] - len(disk['lost'])} of {disk['faults']} leave whole artefacts")
    return 1 if results["lost"] or results.get("disk", {}).get("lost") else 0


if __name__ == "__main__":
    sys.exit(main())
