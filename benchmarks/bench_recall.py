"""B1 and B2: recall@1, 5, 10 both ways, against sorting every query's scores, torchmetrics, and the product alone.

    python benchmarks/bench_recall.py            # COCO-5K shapes; torchmetrics at Flickr30K's 1,000 x 5,000
    python benchmarks/bench_recall.py --full     # also all of Flickr30K, 31,783 x 158,915: time and memory
    python benchmarks/bench_recall.py --quick    # small, to see that it runs

torchmetrics ranks texts to images only (ours does both ways) and fewer times, because it is slow.
"""

import argparse

import numpy as np
from side_by_side import (
    answer_as_peer,
    forget_peak,
    peak_memory,
    peer_python,
    peer_run,
    ratio,
    report,
    saved_inputs,
    take_turns,
    timed,
)

KS = (1, 5, 10)
PACKAGES = ["torchmetrics==1.9.0", "lightning-utilities"]


def made_up(images: int, per_image: int, width: int, seed: int = 0):
    """Unit vectors (N, D) and (T, D), texts near their images, and their owners."""
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((images, width), np.float32)
    owners = np.repeat(np.arange(images), per_image)
    text = rng.standard_normal((len(owners), width), np.float32)
    text += 0.25 * image[owners]
    for vectors in (image, text):
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return image, text, owners


def sorted_recalls(images, texts, owners) -> dict[str, float]:
    """The usual loops: the whole matrix, every query's items in order, and each of its positives looked up there."""
    scores, found = (images @ texts.t()).numpy(), {}
    texts_of = [np.flatnonzero(owners == image) for image in range(len(images))]
    for way, table, positives in (
        ("image_to_text", scores, texts_of),
        ("text_to_image", scores.T, owners[:, None]),
    ):
        ranks = np.empty(len(table), np.int64)
        for query, row in enumerate(table):
            order = np.argsort(row)[::-1]
            ranks[query] = min(np.where(order == item)[0][0] for item in positives[query])
        found |= {f"{way}_recall@{k}": 100 * float((ranks < k).mean()) for k in KS}
    return found


def torchmetrics_recalls(arrays):
    """In the peer's process: texts to images, one entry per pair."""
    import torch
    from torchmetrics.retrieval import RetrievalRecall

    torch.set_num_threads(int(arrays["threads"]))
    images, texts = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["texts"])
    owners = torch.from_numpy(arrays["owners"])

    def work():
        scores = texts @ images.t()
        right = torch.arange(len(images))[None] == owners[:, None]
        queries = torch.arange(len(texts)).repeat_interleave(len(images))
        found = {}
        for k in KS:
            metric = RetrievalRecall(top_k=k)
            metric.update(scores.flatten(), right.flatten(), indexes=queries)
            found[f"text_to_image_recall@{k}"] = 100 * float(metric.compute())
        return found

    return work


def agrees(ours: dict, theirs: dict, tolerance: float = 1e-9) -> str:
    for name, value in theirs.items():
        assert abs(ours[name] - value) <= tolerance, f"{name}: {ours[name]} here, {value} there"
    return f"recalls equal to {tolerance:g}"


def b1(args) -> tuple[list[dict], dict]:
    import torch

    from vsehub.evaluation.ranking import image_text_metrics

    images, texts, owners = made_up(500 if args.quick else 5000, 5, args.width)
    image, text = torch.from_numpy(images), torch.from_numpy(texts)
    found = take_turns(
        {
            "vsehub": lambda: timed(lambda: image_text_metrics(image, text, owners)),
            "sorting": lambda: timed(lambda: sorted_recalls(image, text, owners)),
            "product alone": lambda: timed(lambda: (image @ text.t()).shape[0]),
        },
        dict.fromkeys(("vsehub", "sorting", "product alone"), args.repeats),
    )
    equality = agrees(found["vsehub"]["result"], found["sorting"]["result"])
    what = f"R@1, 5, 10 both ways, {len(images):,} x {len(texts):,}, D {args.width}"
    rows = [
        {
            "peer": "sorting every query",
            "ratio": f"{ratio(found, 'sorting', 'vsehub', args.clock):.1f}x faster",
            "target": ">= 4x",
        },
        {
            "peer": "the product alone",
            "ratio": f"{ratio(found, 'vsehub', 'product alone', args.clock):.2f}x its time",
            "target": "<= 1.2x",
        },
    ]
    return [{"id": "B1", "what": what, "equality": equality, **row} for row in rows], found


def b1_torchmetrics(args) -> tuple[list[dict], dict]:
    import torch

    from vsehub.evaluation.ranking import image_text_metrics

    images, texts, owners = made_up(200 if args.quick else 1000, 5, args.width, seed=1)
    python = peer_python("torchmetrics", PACKAGES)
    inputs = saved_inputs("recall", images=images, texts=texts, owners=owners, threads=args.threads)
    image, text = torch.from_numpy(images), torch.from_numpy(texts)
    found = take_turns(
        {
            "vsehub": lambda: timed(lambda: image_text_metrics(image, text, owners)),
            "torchmetrics": lambda: peer_run(python, __file__, "torchmetrics", inputs),
        },
        {"vsehub": args.repeats, "torchmetrics": args.slow_repeats},
    )
    row = {
        "id": "B1",
        "what": f"R@1, 5, 10, {len(images):,} x {len(texts):,}, D {args.width}; ours both ways, theirs texts to images",
        "peer": f"torchmetrics, {args.slow_repeats} repeats",
        "ratio": f"{ratio(found, 'torchmetrics', 'vsehub', args.clock):.0f}x faster",
        "target": ">= 80x",
        "equality": agrees(found["vsehub"]["result"], found["torchmetrics"]["result"], 1e-4),  # theirs are float32
    }
    return [row], found


def b2(args) -> tuple[list[dict], dict]:
    """Memory is the largest size of the process above its size before."""
    import torch

    from vsehub.evaluation.ranking import image_text_outcomes

    images, texts, owners = made_up(3178 if args.quick else 31783, 5, args.width, seed=2)
    image, text = torch.from_numpy(images), torch.from_numpy(texts)
    _ = image[:100] @ text[:100].t()  # the library's own buffers
    before = forget_peak()
    ours = timed(lambda: image_text_outcomes(image, text, owners))
    extra = peak_memory() - before
    block, room = max(1, 32_000_000 // len(texts)), torch.empty(32_000_000)

    def product():
        for start in range(0, len(image), block):
            rows = image[start : start + block]
            torch.matmul(rows, text.t(), out=room[: len(rows) * len(text)].view(len(rows), len(text)))

    bare = timed(product)
    some = np.random.default_rng(0).choice(len(texts), 1000, replace=False)
    scores = text[some] @ image.t()
    own = scores[torch.arange(1000), torch.from_numpy(owners[some])]
    ranks = 1 + (scores > own[:, None]).sum(1).numpy()
    assert np.array_equal(ours["result"].values["text_to_image_mean_rank"][some], ranks)
    expected = ours.pop("result").metrics()
    row = {
        "id": "B2",
        "what": f"the same, {len(images):,} x {len(texts):,}, one run",
        "peer": "the product alone, in blocks",
        "ratio": f"{ours[args.clock] / bare[args.clock]:.2f}x its time, {extra:.2f} GB more memory",
        "target": "<= 2x, <= 1 GB",
        "equality": "ranks of 1,000 queries equal",
    }
    whole, whole_extra = whole_evaluation(images, texts, owners)
    further = {
        "id": "B2",
        "what": f"all protocols of the same (recalls plain and duplicate-aware, 5 folds, scene precision), 1,000 "
        f"bootstrap samples and the record as JSON, {len(images):,} x {len(texts):,}, one run",
        "peer": "the product alone, in blocks",
        "ratio": f"{whole[args.clock] / bare[args.clock]:.2f}x its time, {whole_extra:.2f} GB more memory",
        "target": "<= 1 GB",
        "equality": "the same recalls",
    }
    for name, value in expected.items():
        assert abs(whole["result"][name] - value) <= 1e-9, name
    whole.pop("result")
    found = {"vsehub": ours, "whole": whole, "product alone": bare, "extra_gb": extra, "whole_extra_gb": whole_extra}
    return [row, further], found


def whole_evaluation(images, texts, owners) -> tuple[dict, float]:
    """What `vsehub evaluate --folds 5 --json FILE` does after the embedding: time, and memory above the embeddings.

    One caption in ten is also a caption of another picture, and the pictures have 30 classes.
    """
    import torch

    from vsehub.evaluation.embed import further_metrics
    from vsehub.evaluation.protocols import protocols_outcomes
    from vsehub.evaluation.record import evaluation_record, record_json

    rng = np.random.default_rng(3)
    names = np.arange(len(texts))
    again = rng.choice(len(texts), len(texts) // 10, replace=False)
    names[again] = rng.permutation(names[again])
    captions, labels = [f"caption {name}" for name in names], rng.integers(30, size=len(images)).tolist()
    embeds = torch.from_numpy(images), torch.from_numpy(texts), torch.from_numpy(owners)
    folded = len(images) - len(images) % 5  # folds are equally large
    inside = owners < folded

    def work():
        outcomes = protocols_outcomes({"recall": None}, *embeds, texts=captions)
        metrics = outcomes["recall"].metrics() | further_metrics(*embeds, labels=labels)
        further_metrics(embeds[0][:folded], embeds[1][inside], owners[inside], folds=5)
        record_json({**metrics, "evaluation": evaluation_record(outcomes, {})})
        return metrics

    before = forget_peak()
    whole = timed(work)
    return whole, peak_memory() - before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--slow_repeats", type=int, default=3, help="of torchmetrics")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu", help="wall on a quiet machine")
    parser.add_argument("--full", action="store_true", help="B2: all of Flickr30K")
    parser.add_argument("--quick", action="store_true", help="small inputs, one repeat")
    parser.add_argument("--no_peers", action="store_true", help="leave torchmetrics out")
    args = parser.parse_args()
    if args.quick:
        args.repeats = args.slow_repeats = 1
    import torch

    torch.set_num_threads(args.threads)
    rows, found = [], {}
    parts = {"B2": b2} if args.full or args.quick else {}
    parts["B1"] = b1
    if not args.no_peers:
        parts["B1 torchmetrics"] = b1_torchmetrics
    for name, part in parts.items():
        more, found[name] = part(args)
        rows += more
    report("bench_recall", rows, found)
    return 0


if __name__ == "__main__":
    raise SystemExit(0 if answer_as_peer({"torchmetrics": torchmetrics_recalls}) else main())
