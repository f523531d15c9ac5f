"""What bfloat16 and int8 cost in recall: one model loaded three ways.

    python benchmarks/number_formats.py runs/demo/hub --data runs/demo/data --split test

int8 quantises the weights of linear layers while loading (`TorchAoConfig`; needs `pip install torchao`).
"""

import argparse

import torch
from transformers import AutoModel, AutoProcessor, TorchAoConfig
from transformers.utils import logging

from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows, row_image
from vsehub.evaluation.ranking import image_text_metrics


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="validation")
    args = parser.parse_args()
    logging.set_verbosity_error()
    rows = prepare_rows(DataArguments(data=args.data), args.split, None, need_dense=False)
    images = [row_image(row) for row in rows]
    owners = [row for row, captions in enumerate(rows["captions"]) for _ in captions]
    texts = [text for captions in rows["captions"] for text in captions]
    processor = AutoProcessor.from_pretrained(args.model)
    print("| weights | rSum | I2T R@1 | T2I R@1 | mean cosine with float32 |\n|---|---|---|---|---|")
    exact = None
    for name, options in formats().items():
        model = AutoModel.from_pretrained(args.model, **options)
        found = model.encode_image(images, processor=processor), model.encode_text(texts, processor=processor)
        exact = exact or found
        metrics = image_text_metrics(*found, owners)
        cosine = torch.cat([(a * b).sum(1) for a, b in zip(exact, found)]).mean()
        cells = [metrics["rsum"], metrics["image_to_text_recall@1"], metrics["text_to_image_recall@1"]]
        cells = " | ".join(f"{cell:.1f}" for cell in cells)
        print(f"| {name} | {cells} | {cosine:.5f} |", flush=True)
    return 0


def formats() -> dict[str, dict]:
    """Name -> arguments of `from_pretrained`."""
    try:
        from torchao.quantization import Int8WeightOnlyConfig
    except ImportError:
        raise ImportError("int8 on load needs torchao: pip install torchao") from None
    int8 = {"dtype": torch.float32, "quantization_config": TorchAoConfig(Int8WeightOnlyConfig())}
    return {"float32": {"dtype": torch.float32}, "bfloat16": {"dtype": torch.bfloat16}, "int8 on load": int8}


if __name__ == "__main__":
    raise SystemExit(main())
