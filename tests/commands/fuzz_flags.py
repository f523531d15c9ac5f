"""Command lines at random, over all verbs and training systems, in one process: no work is ever begun.

    python tests/commands/fuzz_flags.py 5000

Reading a dataset and loading a model are replaced by a sentinel. Whatever else ends a command line must be one line.
"""

import contextlib
import importlib
import io
import os
import random
import shlex
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoProcessor, AutoTokenizer

from vsehub.__main__ import main
from vsehub.training.flags.arguments import D2S_ARGUMENTS, PIR_ARGUMENTS
from vsehub.training.flags.recipe import _Parser

SECONDS = 30  # for one command line; more is a runaway
LOADERS = (AutoConfig, AutoImageProcessor, AutoModel, AutoProcessor, AutoTokenizer)
NUMBERS = """0 1 -1 2 3 7 0.5 1.5 -0.5 1e-30 1e20 1e400 -1e400 nan inf -inf 99999999999999999999 2147483648 4294967296
1_000 0x10 1e3 ٣ ½ 1,5 --""".split()
WORDS = [
    "true", "False", "None", "null", "[1,2]", "{}", '{"a": 1}', "{", "a b", " ", "é", "a\nb", "a\tb", "a\0b",
    "\x1b[31m", "\ud800", "-", "--", "=", "../..", "/", "/dev/null/x", "nowhere.json", "nowhere.yaml", "no/such",
    "x" * 300, "9" * 5000, "steps", "epoch", "auto", "test",
    "train", "cuda:99", "meta", "*", "%s", "%(default)s", "{split}",
    "$HOME", "~nobody/x",
]  # fmt: skip
VERBS = {
    "analyse": "no/model --data no/data",
    "caption": "no/data --model no/model --out dense.parquet",
    "check-leakage": "no/data",
    "compare": "a.json b.json",
    "convert d2s-vse": "a.pth out",
    "convert pir": "a.pth out",
    "demo": "",
    "demo-pir": "",
    "evaluate": "no/model --data no/data",
    "explain": "no/model a.png",
    "export": "no/model out",
    "index": "no/data --model no/model --out an.index",
    "index calibrate": "an.index --data no/data",
    "index remove": "an.index no/data",
    "index export": "an.index --out a.parquet",
    "plot": "no/run",
    "push": "folder org/name",
    "recipes": "",
    "search": "an.index text",
    "teachers": "no/data --image no/model --text no/model --out pairs",
}
SYSTEMS = {"d2s": D2S_ARGUMENTS, "pir": PIR_ARGUMENTS, "rebalanced": D2S_ARGUMENTS}
STAGES = {"d2s": ("pretrain", "finetune", "baseline"), "pir": ("prior", "retrieval"), "rebalanced": ("baseline",)}


ENDS = Counter()


class WorkBegins(BaseException):
    """The command line was accepted."""


class RunawayError(BaseException):
    """A command line took too long."""


@dataclass
class Fault:
    """A command line that did not end as it should."""

    words: list[str]
    kind: str
    what: str

    def __str__(self):
        return f"{self.kind}: vsehub {shlex.join(word[:80] for word in self.words)!r}\n    {self.what}"


def begin(*args, **kwargs):
    """Stand in for work."""
    raise WorkBegins


@contextlib.contextmanager
def without_work(monkeypatch):
    """Replace what reads datasets and loads models, in an empty working directory."""
    for loader in LOADERS:
        monkeypatch.setattr(loader, "from_pretrained", begin)
    for name in ("data.loading.load_dataset_builder", "data.loading.get_dataset_config_names", "demos.demo.demo"):
        monkeypatch.setattr(f"vsehub.{name}", begin)
    for name in ("demos.demo.compare", "demos.demo_pir.demo"):
        monkeypatch.setattr(f"vsehub.{name}", begin)
    with tempfile.TemporaryDirectory() as folder, monkeypatch.context() as here:
        here.chdir(folder)
        yield


def flags_of(verb: str) -> list:
    """The actions of a verb's parser."""
    module = importlib.import_module(f"vsehub.commands.{verb.replace(' ', '_').replace('-', '_')}")
    return [action for action in module.parser()._actions if action.dest != "help"]


def command_lines(seed: int, count: int):
    """Yield `count` command lines, the same for the same seed."""
    draw = random.Random(seed)
    verbs = {verb: flags_of(verb) for verb in VERBS}
    systems = {system: _Parser(kinds, allow_abbrev=False)._actions for system, kinds in SYSTEMS.items()}
    systems = {name: [action for action in actions if action.dest != "help"] for name, actions in systems.items()}
    for _ in range(count):
        if draw.random() < 0.4:
            system = draw.choice(sorted(systems))
            words = ["train", system, "--data", "no/data", "--vision", "no/model", "--text", "no/model"]
            yield words + _flags(draw, systems[system], STAGES[system])
        else:
            verb = draw.choice(sorted(verbs))
            base = VERBS[verb].split()
            if base and draw.random() < 0.2:
                base[draw.randrange(len(base))] = draw.choice(NUMBERS + WORDS)
            yield verb.split() + base + _flags(draw, verbs[verb])


def _flags(draw: random.Random, actions: list, stages: tuple[str, ...] = ()) -> list[str]:
    words = []
    for action in draw.choices(actions, k=draw.randint(1, 4)):
        flag = draw.choice(action.option_strings)
        if stages and draw.random() < 0.2:
            flag = f"--{draw.choice(stages)}.{flag[2:]}"
        if draw.random() < 0.02:
            flag += draw.choice(["x", "-", "=", "=="])
        words.append(flag)
        for _ in range(draw.choice([0, 1, 1, 1, 1, 1, 3])):
            sane = [str(choice) for choice in action.choices or ()] + [str(action.default)]
            words.append(draw.choice(draw.choice([NUMBERS, NUMBERS, WORDS, sane])))
    return words


def fault_of(words: list[str]) -> Fault | None:
    """Run a command line; say what is wrong with how it ended, or None."""
    out, err = io.StringIO(), io.StringIO()
    environment = dict(os.environ)
    signal.signal(signal.SIGALRM, _run_away)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is deprecated in a library; no error
            status = main(list(words))
    except WorkBegins:
        ENDS["work begins"] += 1
        return None
    except RunawayError:
        return Fault(words, "runaway", f"more than {SECONDS} s")
    except SystemExit as stop:
        return None if not stop.code else Fault(words, "exit", f"status {stop.code}: {err.getvalue()[-300:]}")
    except BaseException:
        return Fault(words, "traceback", traceback.format_exc()[-700:])
    finally:
        signal.alarm(0)
        os.environ.clear()
        os.environ.update(environment)
    ENDS["refused" if status == 2 else "done"] += 1
    lines = err.getvalue().splitlines()
    if status == 2 and (len(lines) != 1 or len(lines[0]) > 2000 or "Traceback" in lines[0]):
        return Fault(words, "not one line", "\n    ".join(line[:500] for line in lines))
    return None if status in (0, 2) else Fault(words, f"status {status}", err.getvalue()[-300:])


def _run_away(*args):
    raise RunawayError


def faults(seed: int, count: int, monkeypatch) -> list[Fault]:
    """The faults of `count` command lines; `ENDS` counts how they ended."""
    ENDS.clear()
    with without_work(monkeypatch):
        return [fault for words in command_lines(seed, count) if (fault := fault_of(words))]


if __name__ == "__main__":
    import pytest

    sys.path.insert(0, str(Path(__file__).parent))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("VSEHUB_TRACEBACK", raising=False)
        wrong = faults(int((sys.argv[2:] or ["0"])[0]), int((sys.argv[1:] or ["5000"])[0]), patch)
    print("\n".join(map(str, wrong)))
    print(f"{len(wrong)} faults; {dict(ENDS)}")
    sys.exit(bool(wrong))
