"""B8: captions to embeddings: sorted by length, beside fixed padding and sentence-transformers on the same weights.

    python benchmarks/bench_text.py --text $MINILM --captions $DATA/flickr8k/train-00000-of-00001.parquet

The model is D2S-VSE without decoder around the given text tower. Interleaved, median of `--repeats`; all must give the
same embeddings. Writes runs/bench_text.json and prints a row of docs/benchmarks.md.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from datasets import load_dataset
from transformers import AutoModel, AutoProcessor, ResNetConfig
from transformers.utils import logging

from vsehub import D2SVSEConfig, D2SVSEModel, D2SVSEProcessor
from vsehub.modeling.towers import copy_tower, load_tower
from vsehub.processing.processing_dual_encoder import square_image_processor


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True, help="folder of a text tower and its tokenizer")
    parser.add_argument("--captions", required=True, help="parquet with a column `captions`")
    parser.add_argument("--count", type=int, default=25_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", default="runs/bench_text.json")
    args = parser.parse_args()
    logging.set_verbosity_error()
    rows = load_dataset("parquet", data_files=args.captions, split="train")
    captions = [text for texts in rows["captions"] for text in texts][: args.count]
    with tempfile.TemporaryDirectory() as folder:
        save(folder, args.text)
        ways = contestants(folder, args.batch)
        exact = None
        for name, encode in ways.items():  # warm up, and compare
            found = torch.as_tensor(encode(captions[:512])).float()
            exact = found if exact is None else exact
            assert (found - exact).abs().max() < 1e-4, name
        seconds = {name: [] for name in ways}
        for _ in range(args.repeats):
            for name, encode in ways.items():
                start = time.perf_counter()
                encode(captions)
                seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ours = median["encode_text"]
    ratios = {name: value / ours for name, value in median.items()}
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    report = {"captions": len(captions), "seconds": seconds, "ratios": ratios, "threads": torch.get_num_threads()}
    Path(args.out).write_text(json.dumps(report, indent=2))
    print(
        f"| B8 | {len(captions)} captions to embeddings | {len(captions) / ours:.0f} / s | "
        + " | ".join(f"{name}: {ratio:.2f} x" for name, ratio in ratios.items() if name != "encode_text")
        + " |"
    )
    return 0


def save(folder: str, text: str):
    """A model around the tower, with a vision tower that nobody runs."""
    tower = load_tower(text, "text_config")
    vision = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic")
    config = D2SVSEConfig.from_vision_text_configs(vision, tower.config, image_size=32, use_decoder=False)
    torch.manual_seed(0)
    model = D2SVSEModel(config).eval()
    copy_tower(tower, model.text_model, text)
    model.save_pretrained(folder)
    tokenizer = D2SVSEProcessor.from_vision_text_pretrained(None, text, 32).tokenizer
    D2SVSEProcessor(square_image_processor(32), tokenizer).save_pretrained(folder)


def contestants(folder: str, batch: int) -> dict:
    """Name -> function of captions."""
    from sentence_transformers import SentenceTransformer

    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    sentences = SentenceTransformer(folder, device="cpu")

    @torch.no_grad()
    def padded(texts):
        found = []
        for start in range(0, len(texts), batch):
            tokens = processor.tokenizer(
                texts[start : start + batch], padding="max_length", max_length=77, truncation=True, return_tensors="pt"
            )
            found.append(model(**tokens).text_embeds)
        return torch.cat(found)

    return {
        "encode_text": lambda texts: model.encode_text(texts, batch_size=batch, processor=processor),
        "padding to 77": padded,
        "sentence-transformers": lambda texts: sentences.encode(texts, batch_size=batch),
    }


if __name__ == "__main__":
    raise SystemExit(main())
