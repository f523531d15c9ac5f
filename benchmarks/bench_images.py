"""JPEG files to embeddings: ours, exact and fast, against `SentenceTransformer.encode` on the same weights.

    python benchmarks/bench_images.py            # 384 photographs of 640 x 480, about two minutes
    python benchmarks/bench_images.py --quick    # 64, seconds
    python benchmarks/bench_images.py --images photos/   # your own JPEGs

Photographs are generated, grain included, and the model is small with random weights, so that decoding weighs as it
does beside a GPU. Sides run in turn; medians of the repeats. Equality is part of the result: exact mode has cosine 1.0
with sentence-transformers for every picture, fast mode at least 0.999 in the median (the least is printed, too).
Preprocessing alone is timed in one thread.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertTokenizer, ViTConfig

from vsehub import D2SVSEConfig, D2SVSEModel, D2SVSEProcessor
from vsehub.processing.pixels import open_image
from vsehub.processing.processing_dual_encoder import square_image_processor
from vsehub.search.embedding_stream import embed_stream
from vsehub.search.fast_resize import FastResize
from vsehub.search.retriever import Retriever

EXACT, FAST = 1 - 1e-5, 0.999


def photographs(folder: Path, count: int) -> list[str]:
    rng, paths = np.random.default_rng(0), []
    for number in range(count):
        layers = [
            np.asarray(Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize((640, 480), 3), float)
            for n in (4, 12, 60, 160)
        ]
        values = 0.5 * layers[0] + 0.25 * layers[1] + 0.15 * layers[2] + 0.1 * layers[3]
        values += rng.normal(0, 4, values.shape)
        paths.append(str(folder / f"{number:05d}.jpg"))
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=95)
    return paths


def small_model(folder: Path) -> str:
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "boat"]
    vision = ViTConfig(
        image_size=224,
        patch_size=32,
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=3,
        intermediate_size=768,
    )
    text = BertConfig(
        vocab_size=len(words), hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    config = D2SVSEConfig.from_vision_text_configs(
        vision, text, projection_dim=256, image_size=224, decoder_layers=1, decoder_heads=2, pooling_dim=32
    )
    D2SVSEModel(config).save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={word: row for row, word in enumerate(words)}, model_max_length=64)
    D2SVSEProcessor(square_image_processor(224), tokenizer).save_pretrained(folder)
    return str(folder)


def interleaved(repeats: int, sides: dict) -> tuple[dict, dict]:
    """(median and quartile range of wall and of CPU seconds per side, what each returned last)."""
    times, returned = {name: [] for name in sides}, {}
    for repeat in range(repeats + 1):
        for name, run in sides.items():
            start, busy = time.perf_counter(), time.process_time()
            returned[name] = run()
            spent = time.perf_counter() - start, time.process_time() - busy
            times[name] += [spent] if repeat else []  # the first warms up
    table = {}
    for name, several in times.items():
        wall, cpu = (statistics.quantiles(column, n=4) for column in zip(*several))
        table[name] = {"wall_s": round(wall[1], 3), "iqr_s": round(wall[2] - wall[0], 3), "cpu_s": round(cpu[1], 3)}
    return table, returned


def cosines_of(a, b) -> tuple[float, float]:
    """Least and median cosine of the rows of two matrices."""
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    found = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return float(found.min()), float(np.median(found))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--count", type=int)
    parser.add_argument("--images", help="folder of JPEGs instead of generated ones")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--workers", type=int, default=min(8, os.cpu_count() or 1))
    parser.add_argument("--json", default="runs/bench_images.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    count = args.count or (64 if args.quick else 384)
    with tempfile.TemporaryDirectory() as folder:
        if args.images:
            paths = sorted(map(str, Path(args.images).rglob("*.jpg")))[:count]
            count = len(paths)
        else:
            paths = photographs(Path(folder), count)
        source = small_model(Path(folder) / "model")
        retriever, other = Retriever.from_pretrained(source), SentenceTransformer(source, device="cpu")
        encoder, processor = retriever.encoder, retriever.processor
        resize = FastResize(processor)

        def ours(fast):
            entries = (({"id": path}, path) for path in paths)
            stream = embed_stream(encoder, entries, 32, args.workers, fast)
            return np.concatenate([vectors for _, vectors, _ in stream])

        def prepare(fast):
            for start in range(0, count, 32):
                images = [open_image(path, least_side=fast and 224 or None) for path in paths[start : start + 32]]
                if fast:
                    resize.finish(resize.prepare(images))
                else:
                    processor(images=images, return_tensors="pt")

        whole, vectors = interleaved(
            args.repeats,
            {
                "sentence-transformers": lambda: other.encode([Image.open(path) for path in paths], batch_size=32),
                "exact": lambda: ours(False),
                "fast": lambda: ours(True),
            },
        )
        alone, _ = interleaved(args.repeats, {"exact": lambda: prepare(False), "fast": lambda: prepare(True)})
    cosines = {name: cosines_of(vectors[name], vectors["sentence-transformers"]) for name in ("exact", "fast")}
    found = {"images": count, "workers": args.workers, "end_to_end": whole, "preprocessing": alone, "cosine": cosines}
    rate = {name: count / row["wall_s"] for name, row in whole.items()}
    ratio = alone["exact"]["wall_s"] / alone["fast"]["wall_s"]
    print(
        "| images | sentence-transformers | exact (least cosine) | fast (least, median) | preprocessing, fast / exact |"
    )
    print("|---|---|---|---|---|")
    print(
        f"| {count} | {rate['sentence-transformers']:.0f} /s | {rate['exact']:.0f} /s ({cosines['exact'][0]:.6f}) | "
        f"{rate['fast']:.0f} /s ({cosines['fast'][0]:.4f}, {cosines['fast'][1]:.4f}) | {ratio:.2f} |"
    )
    Path(args.json).parent.mkdir(parents=True, exist_ok=True)
    Path(args.json).write_text(json.dumps(found, indent=1))
    assert cosines["exact"][0] >= EXACT and cosines["fast"][1] >= FAST, "not the same embeddings"
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
