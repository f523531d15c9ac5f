"""B6, B11: losses in linear memory, beside their plain forms, a loop over rows, and the losses of open_clip.

    python benchmarks/bench_losses.py --sizes 1024 4096 --repeats 7

Forward and backward of unit vectors (N, 512), in turn, median CPU seconds of `--repeats`. Bytes are those that
autograd keeps for the backward pass. Values and gradients must agree (the summed hinge in float64: float32 flips
at its kink). Plain forms are run up to `--plain` rows. open_clip's file of losses is taken out of its wheel, which pip
downloads; nothing of it is installed. Writes runs/bench_losses.json and prints rows of docs/benchmarks.md.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
import weakref
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

from vsehub.losses import AffiliationLoss, ContrastiveLoss, HingeLoss, RepresentationLoss, StructureDistillationLoss

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
import plain_losses  # noqa: E402

DIM, CLASSES, CAPTIONS, TAU = 512, 30, 5, 0.07
MIB = 1 << 20


def vectors(rows: int, seed: int, dim: int = DIM) -> torch.Tensor:
    """Unit vectors."""
    return F.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=-1)


def contestants(size: int, peers: dict[str, Callable], plain: bool) -> dict[str, dict[str, Callable]]:
    """Loss -> way -> function of images and texts."""
    draw = torch.Generator().manual_seed(9)
    ids = torch.arange(size) // CAPTIONS
    alone = torch.arange(size)
    labels = torch.randint(0, CLASSES, (size,), generator=draw)
    of_images, of_texts = vectors(size, 5, 768), vectors(size, 6, 384)
    infonce, hinge, affiliation = ContrastiveLoss(TAU, learn_temperature=False), HingeLoss(), AffiliationLoss(TAU)
    structure, representation = StructureDistillationLoss(), RepresentationLoss(768, DIM)
    ways = {
        "InfoNCE, one caption an image": {"ours": lambda v, t: infonce(v, t, alone), **peers},
        "InfoNCE, five captions an image": {"ours": lambda v, t: infonce(v, t, ids)},
        "hinge, all negatives": {"ours": lambda v, t: hinge(v, t, ids, hardest=False)},
        "hinge, hardest": {"ours": lambda v, t: hinge(v, t, ids)},
        "affiliation, 30 classes": {"ours": lambda v, t: affiliation(v, t, labels)},
        "structure": {"ours": lambda v, t: structure(v, t, of_images, of_texts)[0]},
        "representation": {"ours": lambda v, t: representation(v, of_images, ids)},
    }
    if plain:
        ways["InfoNCE, one caption an image"]["plain"] = lambda v, t: plain_losses.contrast(v, t, alone, TAU)
        ways["InfoNCE, five captions an image"]["plain"] = lambda v, t: plain_losses.contrast(v, t, ids, TAU)
        ways["hinge, all negatives"]["plain"] = lambda v, t: plain_losses.hinge(v, t, ids, False)
        ways["hinge, hardest"]["plain"] = lambda v, t: plain_losses.hinge(v, t, ids, True)
        ways["affiliation, 30 classes"]["plain"] = lambda v, t: plain_losses.affiliation(v, t, labels, TAU)
        ways["structure"]["plain"] = lambda v, t: plain_losses.structure(v, t, of_images, of_texts)
        if size <= 1024:
            ways["affiliation, 30 classes"]["loop over rows"] = lambda v, t: looped_affiliation(v, t, labels)
    return ways


def looped_affiliation(images, texts, labels, tau=TAU) -> torch.Tensor:
    """The affiliation as the official code computes it: a centre for each row, one row after the other."""
    image_centres, text_centres, targets = [], [], []
    for label in labels:
        same = labels == label
        image_centres.append(images[same].mean(0))
        text_centres.append(texts[same].mean(0))
        targets.append(same.float() / same.sum())
    target = torch.stack(targets)
    of_images = F.cross_entropy(images @ torch.stack(text_centres).t() / tau, target)
    return (of_images + F.cross_entropy(torch.stack(image_centres) @ texts.t() / tau, target)) / 2


def open_clip_losses(version: str) -> dict[str, Callable]:
    """ClipLoss and the chunked SigLipLoss of open_clip, from the file `loss.py` of its wheel."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        subprocess.run([*pip, f"open_clip_torch{version}"], check=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            wheel.extract("open_clip/loss.py", folder)
        spec = importlib.util.spec_from_file_location("open_clip_loss", Path(folder) / "open_clip" / "loss.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    clip, siglip = module.ClipLoss(), module.SigLipLoss()
    scale, bias = torch.tensor(1 / TAU), torch.tensor(-10.0)
    return {
        "open_clip ClipLoss": lambda v, t: clip(v, t, scale),
        "open_clip SigLipLoss": lambda v, t: siglip(v, t, scale, bias),
    }


class Packed:
    """A tensor that autograd keeps; it dies with its graph."""

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor


def step(way: Callable, images: torch.Tensor, texts: torch.Tensor) -> tuple[float, list, int, float]:
    """Value, gradients, bytes kept for the backward pass, seconds."""
    sides = [images.clone().requires_grad_(), texts.clone().requires_grad_()]
    kept: weakref.WeakSet = weakref.WeakSet()

    def keep(tensor):
        kept.add(packed := Packed(tensor))
        return packed

    start = time.process_time()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda packed: packed.tensor):
        loss = way(*sides)
    storages = {packed.tensor.untyped_storage().data_ptr(): packed.tensor.untyped_storage().nbytes() for packed in kept}
    loss.backward()
    seconds = time.process_time() - start
    return loss.item(), [side.grad for side in sides], sum(storages.values()), seconds


def compare(name: str, ways: dict[str, Callable], size: int, repeats: int) -> dict:
    """Check the plain forms against ours, and measure all in turn."""
    images, texts = vectors(size, 1), F.normalize(vectors(size, 1) + 2 * vectors(size, 2), dim=-1)
    exact = (images.double(), texts.double()) if "all negatives" in name else (images, texts)
    results = {way: step(function, *exact)[:2] for way, function in ways.items()}
    for way in ("plain", "loop over rows"):
        if way in results:
            assert abs(results[way][0] - results["ours"][0]) <= 1e-5 * max(1, abs(results["ours"][0])), (name, way)
            for theirs, ours in zip(results[way][1], results["ours"][1]):
                distance = 0 if theirs is None else (theirs - ours).abs().max().item()
                assert distance <= 1e-6 * max(1, ours.abs().max().item()), (name, way, distance)
    seconds, kept = {way: [] for way in ways}, {}
    for _ in range(repeats):
        for way, function in ways.items():
            *_, kept[way], spent = step(function, images, texts)
            seconds[way].append(spent)
    medians = {way: statistics.median(values) for way, values in seconds.items()}
    return {
        "loss": name,
        "size": size,
        "MiB": {way: value / MIB for way, value in kept.items()},
        "seconds": medians,
        "ratios": {way: medians["ours"] / value for way, value in medians.items() if way != "ours"},
    }


def table_row(row: dict) -> str:
    """A row of docs/benchmarks.md."""
    others = [
        f"{way} {row['MiB'][way]:.1f} MiB, ours in {ratio:.2f} x its time" for way, ratio in row["ratios"].items()
    ]
    ours = f"{row['MiB']['ours']:.1f} MiB, {row['seconds']['ours']:.3f} s"
    return f"| B6 | {row['loss']}, {row['size']} | {'; '.join(others) or '-'} | {ours} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 4096, 32_768])
    parser.add_argument("--plain", type=int, default=4096, help="largest batch of the plain forms")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--open_clip", default="==3.3.0", help="version of open_clip, as pip writes it; '' for none")
    parser.add_argument("--out", default="runs/bench_losses.json")
    args = parser.parse_args()
    peers = open_clip_losses(args.open_clip) if args.open_clip else {}
    rows = []
    for size in args.sizes:
        plain = size <= args.plain
        for name, ways in contestants(size, peers if plain else {}, plain).items():
            rows.append(compare(name, ways, size, args.repeats if plain else 1))
            print(table_row(rows[-1]))
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    Path(args.out).write_text(json.dumps({"threads": torch.get_num_threads(), "rows": rows}, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
