"""What `vsehub serve` answers under load: one client, then many at once, while the index changes.

    python benchmarks/bench_serve.py             # 50 clients, 20,000 x 512; about two minutes on a quiet core
    python benchmarks/bench_serve.py --quick     # 2,000 x 512, fewer requests

The model is a CLIP with the text tower of ViT-B/32 (12 layers, 512 wide) and random weights, so nothing is downloaded.
Every request has another text, of about 9 tokens, and is sent over loopback. Each answer is checked; the numbers of
requests and of seconds are bounded. Prints a row of a markdown table and writes JSON.
"""

import argparse
import http.client
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer

from vsehub.search.retriever import Retriever

try:
    from transformers import CLIPImageProcessorPil as CLIPImageProcessor
except ImportError:
    from transformers import CLIPImageProcessor

LETTERS = "abcdefghijklmnopqrstuvwxyz"
LONGEST = 300.0  # seconds of one part


def save_model(folder: Path):
    """A CLIP with a text tower of full size, and a small vision tower that is not used."""
    torch.manual_seed(0)
    tokens = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={token: row for row, token in enumerate(tokens)}, merges=[], model_max_length=77)
    last = len(tokens) - 1
    text = {"vocab_size": len(tokens), "bos_token_id": last - 1, "eos_token_id": last, "pad_token_id": last}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=512))
    model.save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, tokenizer).save_pretrained(folder)


def add_rows(retriever: Retriever, start: int, count: int):
    vectors = np.random.default_rng(start).standard_normal((count, 512)).astype(np.float32)
    retriever.index.add(vectors, [{"id": f"item {n}", "caption": f"item {n}"} for n in range(start, start + count)])


class Clients:
    """Clients that each send one request after another; `seconds` and `errors` of all of them."""

    def __init__(self, port: int, count: int, each: int, seed: int):
        self.port, self.seconds, self.errors, self.rows = port, [], [], set()
        self.threads = [threading.Thread(target=self._ask, args=(each, seed * 1000 + n)) for n in range(count)]

    def run(self) -> float:
        start = time.perf_counter()
        for thread in self.threads:
            thread.start()
        for thread in self.threads:
            thread.join(LONGEST)
        return time.perf_counter() - start

    def _ask(self, each: int, seed: int):
        words, connection = random.Random(seed), http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        end = time.monotonic() + LONGEST
        for _ in range(each):
            text = " ".join("".join(words.choices(LETTERS, k=3)) for _ in range(2))
            start = time.perf_counter()
            try:
                body = json.dumps({"text": text, "k": 10})
                connection.request("POST", "/search", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                content = json.loads(answer.read())
                assert answer.status == 200 and len(content["hits"]) == 10, content
                self.rows.add(content["rows"])
            except Exception as error:
                self.errors.append(repr(error))
            self.seconds.append(time.perf_counter() - start)
            if time.monotonic() > end:
                self.errors.append("the time was up")
                return


def figures(clients: Clients, wall: float, before: dict, after: dict) -> dict:
    cuts = statistics.quantiles(clients.seconds, n=100)
    count = after["count"] - before["count"]
    return {
        "clients": len(clients.threads),
        "requests": len(clients.seconds),
        "errors": len(clients.errors),
        "first_error": clients.errors[:1],
        "per_second": round(len(clients.seconds) / wall, 1),
        "p50_ms": round(1000 * cuts[49], 1),
        "p95_ms": round(1000 * cuts[94], 1),
        "texts_a_batch": round((after["sum"] - before["sum"]) / max(1, count), 1),
        "states_seen": sorted(clients.rows),
    }


def batches(port: int) -> dict:
    """Number of batches of texts, and of texts, that the server counted."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    values = {}
    for name in ("count", "sum"):
        match = re.search(rf'^vsehub_batch_items_{name}{{kind="text"}} (\S+)', text, re.M)
        values[name] = float(match[1]) if match else 0.0
    return values


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--each", type=int, default=20, help="requests of each client")
    parser.add_argument("--json", default="runs/bench_serve.json")
    args = parser.parse_args()
    rows, each = (2_000, 4) if args.quick else (20_000, args.each)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save_model(folder / "model")
        retriever = Retriever.from_pretrained(folder / "model")
        add_rows(retriever, 0, rows)
        retriever.save(folder / "index")
        command = [sys.executable, "-m", "vsehub", "serve", str(folder / "index"), "--port", "0"]
        server = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        try:
            line = next(line for line in server.stderr if line.startswith("http://"))
            port = int(re.match(r"http://127\.0\.0\.1:(\d+)", line)[1])
            threading.Thread(target=server.stderr.read, daemon=True).start()
            Clients(port, 1, 5, 0).run()  # warms up
            parts = {}
            for name, count, number in ("one client", 1, 2 * each), ("many clients", args.clients, each):
                clients, before = Clients(port, count, number, len(parts) + 1), batches(port)
                change = threading.Timer(2.0, add_rows, (retriever, rows, 100))
                if count > 1:
                    change.start()
                wall = clients.run()
                parts[name] = figures(clients, wall, before, batches(port))
                print(f"{name}: {parts[name]}", file=sys.stderr)
        finally:
            server.terminate()
            server.wait(30)
    one, many = parts["one client"], parts["many clients"]
    Path(args.json).parent.mkdir(parents=True, exist_ok=True)
    Path(args.json).write_text(json.dumps({"rows": rows, "load": os.getloadavg(), **parts}, indent=2))
    print("| clients | requests | errors | a second | p50, ms | p95, ms | texts a batch |")
    print("|---|---|---|---|---|---|---|")
    for part in (one, many):
        print(
            "| {clients} | {requests} | {errors} | {per_second} | {p50_ms} | {p95_ms} | {texts_a_batch} |".format(
                **part
            )
        )
    return int(bool(one["errors"] or many["errors"]))


if __name__ == "__main__":
    sys.exit(main())
