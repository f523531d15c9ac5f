"""B4 and B5: graded NDCG against a loop over queries that scans all relevance, and ROUGE-L against `rouge_score`.

    python benchmarks/bench_graded.py            # 1,000 images, 5,000 captions
    python benchmarks/bench_graded.py --full     # also 5,000 images, 25,000 captions; the loop over 4 queries, scaled
    python benchmarks/bench_graded.py --quick    # 100 images

The loop does what the official evaluation of structure-aware distillation does: for each cutoff and query it sorts the
scores and asks anew whether the whole relevance matrix is empty. Captions are made up: 6 to 18 words of 3,000.
"""

import argparse

import numpy as np
from bench_recall import made_up
from side_by_side import answer_as_peer, peer_python, peer_run, ratio, report, saved_inputs, take_turns, timed

KS = (10, 20, 50)
PACKAGES = ["rouge_score==0.1.2", "absl-py", "nltk", "six", "joblib", "regex", "click", "tqdm", "defusedxml"]


def scan_ndcg(scores, relevance, k: int, queries) -> float:
    """Per cent; the mean over `queries`."""
    discounts, found = 1 / np.log2(np.arange(k) + 2), []
    for query in queries:
        if np.all(relevance == 0):  # the scan: it is about the whole matrix, not this query
            found.append(0.0)
            continue
        gains = relevance[query][np.argsort(-scores[query])][:k]
        ideal = -np.sort(-relevance[query])[:k]
        best = ideal @ discounts[: len(ideal)]
        found.append(gains @ discounts[: len(gains)] / best if best > 0 else 0.0)
    return 100 * float(np.mean(found))


def scan_metrics(images, texts, owners, relevance, asked: int | None = None) -> tuple[dict[str, float], float]:
    """The four tasks by loops; `asked` queries of each task, and the CPU seconds that all of them would take."""
    import time

    per_image, count = len(texts) // len(images), len(images)
    first, every = np.arange(count) * per_image, np.arange(count)
    among, back = relevance[first].astype(np.float64), relevance.T.astype(np.float64)
    own_image, own_text = np.eye(count, dtype=bool), np.zeros(back.shape, bool)
    own_text[every, first] = True
    no_image, no_text = np.zeros_like(own_image), np.zeros_like(own_text)
    both_ways = np.concatenate([images, texts]), np.concatenate([texts, images])
    tasks = {
        "image_to_image": (images, images, among, own_image),
        "text_to_text": (texts[first], texts, back, own_text),
        "image_to_mixed": (images, both_ways[0], np.hstack([among, back]), np.hstack([own_image, no_text])),
        "text_to_mixed": (texts[first], both_ways[1], np.hstack([back, among.T]), np.hstack([own_text, no_image])),
    }
    found, seconds = {}, 0.0
    queries = every if asked is None else np.random.default_rng(0).choice(count, asked, replace=False)
    for name, (query, gallery, gains, own) in tasks.items():
        start = time.process_time()
        scores = query @ gallery.T
        scores[own], gains[own] = -np.inf, 0.0
        seconds += time.process_time() - start
        start = time.process_time()
        found |= {f"{name}_ndcg@{k}": scan_ndcg(scores, gains, k, queries) for k in KS}
        seconds += (time.process_time() - start) * count / len(queries)
    return found, seconds


def b4(args, count: int, asked: int | None = None) -> tuple[list[dict], dict]:
    from vsehub.evaluation.graded import graded_metrics

    images, texts, owners = made_up(count, 5, args.width)
    relevance = np.random.default_rng(1).random((len(texts), count), np.float32) ** 4
    if asked is None:
        found = take_turns(
            {
                "vsehub": lambda: timed(lambda: graded_metrics(images, texts, owners, relevance, KS)),
                "loop": lambda: timed(lambda: scan_metrics(images, texts, owners, relevance)[0]),
            },
            {"vsehub": args.repeats, "loop": args.slow_repeats},
        )
        ours, theirs = found["vsehub"]["result"], found["loop"]["result"]
        worst = max(abs(ours[name] - value) for name, value in theirs.items())
        assert worst <= 1e-4, worst  # per cent: 1e-6 as shares
        times, equality = ratio(found, "loop", "vsehub", args.clock), f"equal to {worst / 100:.0e}"
    else:
        several = {"vsehub": lambda: timed(lambda: graded_metrics(images, texts, owners, relevance, KS))}
        found = take_turns(several, {"vsehub": 1})
        _, found["loop, scaled, CPU seconds"] = scan_metrics(images, texts, owners, relevance, asked)
        times = found["loop, scaled, CPU seconds"] / found["vsehub"]["cpu"]["median"]
        equality = "see 1,000 images"
    row = {
        "id": "B4",
        "what": f"NDCG@10, 20, 50 of 4 tasks, {count:,} images, {len(texts):,} captions, D {args.width}",
        "peer": "a scan per query" + (f", from {asked} queries" if asked else f", {args.slow_repeats} repeats"),
        "ratio": f"{times:.0f}x faster",
        "target": ">= 25x" if count <= 1000 else ">= 100x",
        "equality": equality,
    }
    return [row], found


def made_up_captions(count: int, seed: int = 0) -> list[str]:
    """Text as people write it: capitals, commas, hyphens, full stops."""
    rng = np.random.default_rng(seed)
    words = np.array(
        [f"w{number}" for number in range(2990)] + ["a", "the", "of", "in", "on", "two", "T-shirt", "it's"]
    )
    share = 1 / np.arange(1, len(words) + 1)
    found = []
    for _ in range(count):
        picked = rng.choice(words[::-1], rng.integers(6, 19), p=share / share.sum())
        found.append(" ".join(picked).capitalize() + rng.choice([".", "", " .", ", now"]))
    return found


def package_rouge(arrays):
    """In the peer's process: F1 of the given pairs."""
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    captions, pairs = arrays["captions"].tolist(), arrays["pairs"].tolist()
    return lambda: [scorer.score(captions[b], captions[a])["rougeL"].fmeasure for a, b in pairs]


def b5(args) -> tuple[list[dict], dict]:
    from vsehub.evaluation.graded import rouge_l_relevance

    count, sample = (300, 1000) if args.quick else (5000, 20_000)
    captions = made_up_captions(count)
    pairs = np.random.default_rng(1).integers(count, size=(sample, 2))
    inputs = saved_inputs("rouge", captions=np.array(captions), pairs=pairs)
    python, alone = peer_python("rouge_score", PACKAGES), [[caption] for caption in captions]
    found = take_turns(
        {
            "vsehub": lambda: timed(lambda: rouge_l_relevance(alone, variant="rouge_score", dtype=np.float64)),
            "rouge_score": lambda: peer_run(python, __file__, "rouge", inputs),
        },
        {"vsehub": args.repeats, "rouge_score": args.repeats},
    )
    ours, theirs = found["vsehub"].pop("result"), found["rouge_score"].pop("result")
    worst = np.abs(ours[pairs[:, 0], pairs[:, 1]] - theirs).max()
    assert worst <= 1e-9, worst
    per_pair = ratio(found, "rouge_score", "vsehub", args.clock) * count**2 / sample
    row = {
        "id": "B5",
        "what": f"ROUGE-L F1 of {count:,} x {count:,} captions, per pair",
        "peer": f"rouge_score 0.1.2 on {sample:,} pairs",
        "ratio": f"{per_pair:.0f}x faster",
        "target": ">= 500x",
        "equality": f"equal to {worst:.0e}",
    }
    return [row], found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--slow_repeats", type=int, default=7, help="of the loop")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu", help="wall on a quiet machine")
    parser.add_argument("--full", action="store_true", help="also 5,000 images; needs 6 GB")
    parser.add_argument("--quick", action="store_true", help="100 images, one repeat")
    args = parser.parse_args()
    if args.quick:
        args.repeats = args.slow_repeats = 1
    import torch

    torch.set_num_threads(args.threads)
    parts = {"B4": b4(args, 100 if args.quick else 1000), "B5": b5(args)}
    if args.full:
        parts["B4 5K"] = b4(args, 5000, asked=4)
    report("bench_graded", [row for rows, _ in parts.values() for row in rows], {k: v for k, (_, v) in parts.items()})
    return 0


if __name__ == "__main__":
    raise SystemExit(0 if answer_as_peer({"rouge": package_rouge}) else main())
