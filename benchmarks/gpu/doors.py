"""A saved model on a GPU: `device_map`, bfloat16, each attention implementation, `torch.compile`; all beside the CPU.

    python benchmarks/gpu/doors.py runs/demo/hub

Prints, for each way of loading, the largest difference from float32 on the CPU, images a second and peak memory.
"""

import argparse
import time

import numpy as np
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

WAYS = {
    "float32, eager": {"attn_implementation": "eager"},
    "float32, sdpa": {"attn_implementation": "sdpa"},
    "bfloat16, sdpa": {"attn_implementation": "sdpa", "dtype": torch.bfloat16},
    "bfloat16, flash_attention_2": {"attn_implementation": "flash_attention_2", "dtype": torch.bfloat16},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=256)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no GPU here")
    processor = AutoProcessor.from_pretrained(args.model, trust_remote_code=True)
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(args.count)]
    inputs = processor(images=images, text=["two boats at a pier"] * args.count, return_tensors="pt")
    exact = AutoModel.from_pretrained(args.model, trust_remote_code=True)
    with torch.no_grad():
        expected = exact(**inputs).image_embeds
    inputs = inputs.to("cuda")
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    print("| way | largest difference | pairs / s | peak MB |\n|---|---|---|---|")
    for name, options in WAYS.items():
        for compiled in (False, True):
            try:
                print(row(f"{name}{', compiled' * compiled}", args.model, options, compiled, inputs, expected))
            except (ImportError, ValueError, RuntimeError) as error:
                problem = f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"
                print(f"| {name}{', compiled' * compiled} | {problem} | | |")
    return 0


@torch.no_grad()
def row(name, source, options, compiled, inputs, expected) -> str:
    """Load one way, check it, and time it (median of 7)."""
    model = AutoModel.from_pretrained(source, trust_remote_code=True, device_map="cuda", **options).eval()
    model = torch.compile(model, fullgraph=True) if compiled else model
    torch.cuda.reset_peak_memory_stats()
    found = model(**inputs).image_embeds.float().cpu()
    seconds = []
    for _ in range(7):
        torch.cuda.synchronize()
        start = time.perf_counter()
        model(**inputs)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    rate, memory = len(expected) / sorted(seconds)[3], torch.cuda.max_memory_allocated() / 1e6
    return f"| {name} | {(found - expected).abs().max():.1e} | {rate:.0f} | {memory:.0f} |"


if __name__ == "__main__":
    raise SystemExit(main())
