"""Time and memory from the command to the first training step: `python benchmarks/bench_start.py --rows 50000 1000000`.

Rows of a picture (8 x 8 PNG, or `--kind jpeg`: 224 x 224) and five captions, in parquet files of 50,000 rows, train a
tiny D2S-VSE. Each count is started twice with a cache of `datasets` of its own: at first, and again. Memory is that of
the process without mapped files (`RssAnon` of Linux): the most until the first step has been taken, and what it
holds after it. On a machine that others use, CPU time says more than seconds.

`--tree FOLDER` measures another checkout of vsehub (the folder that holds `vsehub/`). Prints a table.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

PER_FILE = 50_000
FLAGS = """--stages baseline --image_size 32 --projection_dim 16 --num_mask_tokens 4 --decoder_layers 1
--decoder_heads 2 --per_device_train_batch_size 16 --max_steps 1 --use_cpu True --text_augmentation 0 --eval_strategy no
--save_strategy no --load_best_model_at_end False --report_to none --imagenet_normalisation True""".split()


def picture(number: int, kind: str) -> bytes:
    """A picture that no other number has."""
    from PIL import Image

    rng = np.random.default_rng(number)
    buffer = io.BytesIO()
    if kind == "png":
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(buffer, "PNG", compress_level=1)
    else:
        small = Image.fromarray(rng.integers(0, 256, (28, 28, 3), np.uint8))
        small.resize((224, 224), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_rows(folder: Path, rows: int, kind: str):
    """Write parquet files of pictures and captions: `rows` to train, 16 to evaluate."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    parts = -(-rows // PER_FILE)
    for split, start, stop, name in [
        *(("train", k * PER_FILE, min(rows, (k + 1) * PER_FILE), f"{k:05}-of-{parts:05}") for k in range(parts)),
        ("validation", rows, rows + 16, "00000-of-00001"),
    ]:
        numbers = range(start, stop)
        table = {
            "image": [{"bytes": picture(number, kind), "path": None} for number in numbers],
            "captions": [[f"picture {number} in words, caption {k}" for k in range(5)] for number in numbers],
            "image_id": [f"picture-{number}" for number in numbers],
        }
        pq.write_table(pa.table(table), folder / f"{split}-{name}.parquet", row_group_size=1000)


def anonymous() -> int:
    """Bytes of this process that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def child(words: list[str]):
    """Train until the first step is taken; print seconds and bytes."""
    start, most = float(os.environ["BENCH_START"]), [0]

    def watch():
        while True:
            most[0] = max(most[0], anonymous())
            time.sleep(0.02)

    threading.Thread(target=watch, daemon=True).start()
    import torch

    torch.set_num_threads(1)
    from vsehub.training import run_d2s
    from vsehub.training.trainer import RetrievalTrainer

    step = RetrievalTrainer.training_step

    def first_step(self, *args, **kwargs):
        step(self, *args, **kwargs)
        now = anonymous()
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        cpu = sum(each.ru_utime + each.ru_stime for each in used)
        got = {"seconds": time.time() - start, "cpu": cpu, "most": max(most[0], now), "after": now}
        print(json.dumps(got), flush=True)
        os._exit(0)

    RetrievalTrainer.training_step = first_step
    run_d2s.main(words)


def start(tree: str, data: Path, towers: tuple[str, str], cache: Path, extra: list[str]) -> dict:
    """Start a run in a process of its own."""
    flags = ["--data", str(data), "--vision", towers[0], "--text", towers[1], *FLAGS, *extra]
    env = {**os.environ, "PYTHONPATH": tree, "HF_DATASETS_CACHE": str(cache), "BENCH_START": str(time.time())}
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, __file__, "--child", *flags, "--output_dir", out]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"seconds"')]
    if not lines:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(lines[-1])


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 1_000_000])
    parser.add_argument("--kind", choices=["png", "jpeg"], default="png")
    parser.add_argument("--tree", default=str(Path(__file__).resolve().parents[2]), help="folder that holds vsehub/")
    parser.add_argument("--work", default=None, help="where data and caches lie; kept, and used again")
    parser.add_argument("--once", action="store_true", help="only the first start")
    args, extra = parser.parse_known_args()
    from vsehub.demos.generated_scenes import write_towers

    with tempfile.TemporaryDirectory() as folder:
        work = Path(args.work or folder)
        towers = write_towers(Path(folder) / "towers")
        print("| rows | start | seconds to the first step | of CPU time | most anonymous memory | after the step |")
        print("|---|---|---|---|---|---|")
        for rows in args.rows:
            data = work / f"{args.kind}-{rows}"
            if not data.exists():
                write_rows(data, rows, args.kind)
            with tempfile.TemporaryDirectory(dir=work) as cache:
                for name in ("first",) if args.once else ("first", "again"):
                    got = start(args.tree, data, towers, Path(cache), extra)
                    memory = f"{got['most'] / 2**20:.0f} MiB | {got['after'] / 2**20:.0f} MiB"
                    print(f"| {rows:,} | {name} | {got['seconds']:.1f} | {got['cpu']:.1f} | {memory} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
