"""Pictures of an evaluation through a tower: opened by other threads while it runs, or by the thread that runs it.

    GOMP_SPINCOUNT=1000 python benchmarks/bench_ahead.py --vision $BACKBONES/mobilenet_v2   # as `vsehub` sets it

JPEGs of 640 x 480 are opened, resized to 224 px and run, 32 at once, as `evaluate`, the caches of frozen towers and
`teachers` do it (`run_batches`). The ways take turns; wall seconds, since threads share the work: nothing else
should run. The outputs are equal.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from bench_images import photographs
from side_by_side import ratio, take_turns, timed
from transformers import AutoModel

from vsehub.files.memory import reuse_memory
from vsehub.processing.batching import batches_of, decoding_threads, run_batches
from vsehub.processing.pixels import open_image
from vsehub.processing.processing_dual_encoder import square_image_processor


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vision", required=True, help="folder of a convolutional tower")
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    reuse_memory()
    tower = AutoModel.from_pretrained(args.vision).eval()
    prepare = square_image_processor(224)
    with tempfile.TemporaryDirectory() as folder:
        compare(tower, prepare, photographs(Path(folder), args.pictures), args.repeats)
    return 0


def compare(tower, prepare, sources: list[str], repeats: int):
    """Run both ways in turn and print what they gave."""

    def embed(workers: int) -> torch.Tensor:
        parts = run_batches(
            batches_of(sources, 32),
            lambda batch: prepare([open_image(source) for source in batch], return_tensors="pt"),
            lambda inputs: tower(**inputs).last_hidden_state.mean((2, 3)),
            "cpu",
            workers,
        )
        return torch.cat([part for _, part in parts])

    ways = {"in turn": 0, "ahead": decoding_threads()}
    assert torch.equal(*(embed(workers) for workers in ways.values()))
    contenders = {name: lambda workers=workers: timed(lambda: embed(workers)) for name, workers in ways.items()}
    found = take_turns(contenders, dict.fromkeys(ways, repeats))
    for name, workers in ways.items():
        seconds = found[name]["wall"]["median"]
        print(f"{name}: {len(sources) / seconds:.0f} pictures a second, {workers} threads that open pictures")
    print(f"ahead: {ratio(found, 'in turn', 'ahead', 'wall'):.2f} x as fast, outputs equal")


if __name__ == "__main__":
    raise SystemExit(main())
