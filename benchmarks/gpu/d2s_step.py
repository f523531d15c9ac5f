"""A D2S-VSE stage-2 step on one GPU: milliseconds, pairs per second and peak memory, float32 and bf16.

    python benchmarks/gpu/d2s_step.py --image-size 224 384 --batch 128 --json out.json

ViT-B/16 + BERT-base with random weights (speed does not depend on them), 20-token captions, cached teacher. Needs
torch and transformers only. Not yet measured.
"""

import argparse
import json
import statistics
import time

import torch
from transformers import BertConfig, ViTConfig

from vsehub import D2SVSEConfig, D2SVSEModel
from vsehub.losses.objectives import D2SObjective, PairEmbeddings


def measure(image_size: int, batch: int, dtype: torch.dtype, steps: int = 20, warmup: int = 5) -> dict:
    torch.manual_seed(0)
    torch.cuda.reset_peak_memory_stats()
    config = D2SVSEConfig.from_vision_text_configs(ViTConfig(), BertConfig(), image_size=image_size)
    model = D2SVSEModel(config).cuda().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    objective = D2SObjective().cuda()
    inputs = {
        "pixel_values": torch.randn(batch, 3, image_size, image_size, device="cuda"),
        "input_ids": torch.randint(1000, 20000, (batch, 20), device="cuda"),
        "attention_mask": torch.ones(batch, 20, dtype=torch.long, device="cuda"),
    }
    ids, dense = torch.arange(batch, device="cuda"), torch.randn(batch, config.projection_dim, device="cuda")
    times, losses = [], []
    for step in range(warmup + steps):
        torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            output = model(**inputs)
        vectors = output.text_model_output.pooler_output
        pairs = PairEmbeddings(output.image_embeds, output.text_embeds, vectors, ids, dense)
        loss, _ = objective(pairs, epoch=2.0)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        optimizer.zero_grad()
        torch.cuda.synchronize()
        if step >= warmup:
            times.append(time.perf_counter() - start)
        losses.append(loss.item())
    assert all(map(torch.isfinite, map(torch.tensor, losses))), "the loss is not finite"
    median = statistics.median(times)
    return {
        "image_size": image_size,
        "batch": batch,
        "dtype": str(dtype).removeprefix("torch."),
        "ms_per_step": round(1000 * median, 1),
        "pairs_per_second": round(batch / median),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
        "first_loss": round(losses[0], 3),
        "last_loss": round(losses[-1], 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, nargs="+", default=[224, 384])
    parser.add_argument("--batch", type=int, nargs="+", default=[128])
    parser.add_argument("--json")
    args = parser.parse_args()
    rows = []
    for size in args.image_size:
        for batch in args.batch:
            for dtype in (torch.float32, torch.bfloat16):
                rows.append(measure(size, batch, dtype))
                print(json.dumps(rows[-1]), flush=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"device": torch.cuda.get_device_name(), "rows": rows}, file, indent=2)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
