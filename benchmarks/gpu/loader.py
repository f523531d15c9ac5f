"""Does a data loader feed the card? Pairs a second of the loader alone and of a whole run, by size and workers.

    python benchmarks/gpu/loader.py                (D2S-VSE of ViT-B/16 and BERT-base, 224 and 384 px; some minutes)
    python benchmarks/gpu/loader.py --tiny         (tiny towers on a CPU, to try this script)

Trains short captions by `vsehub train` on generated JPEGs of 640 x 480 with random crops, bfloat16, fused AdamW, all
weights. Where the run is as fast as the loader alone, the loader is what bounds it; the rates of steps without a loader
are those of steps.py. A run is a process of its own; the first steps do not count.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

WARM, COUNTED = 5, 20  # steps
CAPTIONS = 6  # of a picture, each of which is a pair
FLAGS = """--stages baseline --freeze_vision False --image_augmentation crop --text_augmentation 0 --align infonce
--ramp_epochs 0 --eval_strategy no --save_strategy no --load_best_model_at_end False --report_to none
--imagenet_normalisation True --logging_steps 1000 --captions_column text""".split()


def write_data(folder: Path, count: int):
    """Photographs with captions of about 20 tokens, and eight to evaluate."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from bench_images import photographs

    for split, size in (("train", count), ("validation", 8)):
        (folder / split).mkdir(parents=True)
        names = photographs(folder / split, size)
        rows = [{"file_name": Path(name).name, "text": [" ".join(["a red circle"] * 6)] * CAPTIONS} for name in names]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / split / "metadata.jsonl").write_text(lines, encoding="utf-8")


def write_towers(folder: Path, tiny: bool) -> tuple[str, str]:
    """Random weights of the paper's towers, or small ones."""
    from transformers import BertConfig, BertModel, BertTokenizer, ViTConfig, ViTModel

    from vsehub.demos.generated_scenes import write_towers as write_small

    vision, text = write_small(folder)
    if not tiny:
        vision = str(folder / "vit")
        ViTModel(ViTConfig()).save_pretrained(vision)
        BertModel(BertConfig(vocab_size=len(BertTokenizer.from_pretrained(text)))).save_pretrained(text)
    return vision, text


def child(words: list[str]):
    """Time the loader alone, then the run; print both in pairs a second."""
    from vsehub.training import run_d2s
    from vsehub.training.trainer import RetrievalTrainer

    train, step, ends = RetrievalTrainer.train, RetrievalTrainer.training_step, []

    def timed(self, *args, **kwargs):
        pairs = self.args.per_device_train_batch_size
        loader = iter(self.get_train_dataloader())
        starts = [(next(loader), time.perf_counter())[1] for _ in range(WARM + COUNTED)]
        self.loader_alone = COUNTED * pairs / (starts[-1] - starts[WARM - 1])
        return train(self, *args, **kwargs)

    def counted(self, *args, **kwargs):
        loss = step(self, *args, **kwargs)
        if len(ends) in (WARM - 1, WARM + COUNTED - 1) and torch.cuda.is_available():
            torch.cuda.synchronize()
        ends.append(time.perf_counter())
        if len(ends) == WARM + COUNTED:
            rate = COUNTED * self.args.per_device_train_batch_size / (ends[-1] - ends[WARM - 1])
            print(json.dumps({"loader": self.loader_alone, "run": rate}), flush=True)
        return loss

    RetrievalTrainer.train, RetrievalTrainer.training_step = timed, counted
    run_d2s.main(words)


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 384], help="pixels of a side")
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 8, 14])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    if args.tiny:
        args.sizes, args.workers, args.batch = [32], [0, 1], 8
    elif not torch.cuda.is_available():
        raise SystemExit("no GPU here: --tiny tries the script")
    device = ["--use_cpu", "True"] if args.tiny else ["--bf16", "True"]
    print("| px | workers | loader alone, pairs/s | whole run, pairs/s |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder) / "data", -(-(WARM + COUNTED) * args.batch // CAPTIONS))
        vision, text = write_towers(Path(folder), args.tiny)
        for size in args.sizes:
            for workers in args.workers:
                words = [*FLAGS, *device, "--data", f"{folder}/data", "--vision", vision, "--text", text]
                words += ["--image_size", str(size), "--dataloader_num_workers", str(workers)]
                words += ["--per_device_train_batch_size", str(args.batch), "--max_steps", str(WARM + COUNTED)]
                got = measured([*words, "--output_dir", f"{folder}/run-{size}-{workers}"])
                print(f"| {size} | {workers} | {got['loader']:.0f} | {got['run']:.0f} |", flush=True)
    return 0


def measured(words: list[str]) -> dict[str, float]:
    """The rates of one run."""
    done = subprocess.run([sys.executable, __file__, "--child", *words], env=os.environ, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"loader"')]
    if not lines:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(lines[-1])


if __name__ == "__main__":
    raise SystemExit(main())
