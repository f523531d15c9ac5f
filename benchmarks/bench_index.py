"""What `vsehub index` costs: CPU seconds for 1,000 photographs of 640 x 480, by model.

    python benchmarks/bench_index.py            # 300 photographs, some minutes
    python benchmarks/bench_index.py --quick    # 60

Photographs are those of bench_images.py. The models have the real sizes and random weights, which cost what trained
ones do: a D2S-VSE model on MobileNetV2 1.0, and the CLIP ViT-B/32 of transformers, both at 224 pixels. `--fast` is
measured for the first alone: the processor of CLIP cuts, and is refused. What the command costs with 4 photographs
(loading the model) is subtracted.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import torch
from bench_images import photographs
from transformers import (
    BertConfig,
    BertTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    MobileNetV2Config,
)

from vsehub import D2SVSEConfig, D2SVSEModel, D2SVSEProcessor
from vsehub.__main__ import main as vsehub
from vsehub.processing.processing_dual_encoder import square_image_processor

try:
    from transformers import CLIPImageProcessorPil as CLIPImageProcessor  # the plain name needs torchvision
except ImportError:
    from transformers import CLIPImageProcessor


def save_mobilenet(folder: Path):
    vocabulary = {word: row for row, word in enumerate("[PAD] [UNK] [CLS] [SEP] [MASK] a b c".split())}
    text = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    config = D2SVSEConfig(MobileNetV2Config().to_dict(), text.to_dict(), image_size=224, projection_dim=512)
    D2SVSEModel(config).save_pretrained(folder)
    D2SVSEProcessor(square_image_processor(224), BertTokenizer(vocab=vocabulary)).save_pretrained(folder)


def save_clip(folder: Path):
    CLIPModel(CLIPConfig()).save_pretrained(folder)
    tokens = ["a", "a</w>", "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={token: row for row, token in enumerate(tokens)}, merges=[], model_max_length=77)
    CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(folder)


def cost(*words) -> tuple[float, float]:
    """CPU and wall seconds of one command, in this process."""
    cpu, start = time.process_time(), time.perf_counter()
    assert vsehub(["index", *map(str, words), "--quiet"]) == 0
    return time.process_time() - cpu, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="60 photographs")
    args = parser.parse_args()
    count, report = (60 if args.quick else 300), {}
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for name in ("many", "few", "mobilenet", "clip"):
            (root / name).mkdir()
        photographs(root / "many", count)
        photographs(root / "few", 4)
        for name, save in (("mobilenet", save_mobilenet), ("clip", save_clip)):
            save(root / name)
            for mode, flags in (("exact", ()), ("fast", ("--fast",)))[: 1 if name == "clip" else 2]:
                out = root / f"{name}-{mode}"
                for warm in ("-first", "-few"):
                    few = cost(root / "few", "--model", root / name, "--out", f"{out}{warm}.index", *flags)
                many = cost(root / "many", "--model", root / name, "--out", f"{out}.index", *flags)
                cpu, wall = ((a - b) / (count - 4) * 1000 for a, b in zip(many, few))
                report[f"{name} {mode}"] = {"cpu_seconds_per_1000": cpu, "wall_seconds_per_1000": wall, "start": few[0]}
                print(
                    f"{name:<10} {mode:<6} {cpu:6.1f} CPU s, {wall:6.1f} wall s for 1,000; start {few[0]:.1f} CPU s",
                    flush=True,
                )
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    Path("runs").mkdir(exist_ok=True)
    Path("runs/bench_index.json").write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
