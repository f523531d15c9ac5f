"""B3: COCO 5K, COCO 1K (5 folds), CxC and ECCV Caption from embeddings, against the package `eccv_caption` 0.1.0.

    python benchmarks/bench_coco_suite.py            # D 512, 7 repeats of ours, 3 of theirs
    python benchmarks/bench_coco_suite.py --quick    # D 64, one repeat; their part still takes about a minute

Theirs includes ranking every query into the lists that the package asks for; its ground truth serves both.
"""

import argparse
from pathlib import Path

import numpy as np
from bench_recall import made_up
from side_by_side import answer_as_peer, peer_python, peer_run, ratio, report, saved_inputs, take_turns, timed

PACKAGES = ["eccv_caption==0.1.0", "ujson", "tqdm"]
PROTOCOLS = ("coco-5k", "coco-1k", "cxc", "eccv")
ASKED = ("coco_1k_recalls", "coco_5k_recalls", "cxc_recalls", "eccv_r1", "eccv_map_at_r", "eccv_rprecision")
NAMES = {
    **{(f"{ours}", f"recall@{k}"): f"{theirs}_r{k}" for ours, theirs in
       (("coco-5k", "coco_5k"), ("coco-1k", "coco_1k"), ("cxc", "cxc")) for k in (1, 5, 10)},
    ("eccv", "recall@1"): "eccv_r1",
    ("eccv", "map@r"): "eccv_map_at_r",
    ("eccv", "r_precision"): "eccv_rprecision",
}  # fmt: skip


def package_suite(arrays):
    """In the peer's process."""
    import torch
    from eccv_caption import Metrics

    torch.set_num_threads(int(arrays["threads"]))
    images, texts = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["texts"])
    reference = Metrics()
    captions = reference.coco_ids.tolist()
    image_ids = [reference.coco_gts["t2i"][caption][0] for caption in captions[::5]]

    def work():
        scores = (images @ texts.t()).numpy()
        ranked = [
            {query: [names[item] for item in np.argsort(-row)] for query, row in zip(queries, table)}
            for queries, names, table in ((image_ids, captions, scores), (captions, image_ids, scores.T))
        ]
        found = reference.compute_all_metrics(*ranked, target_metrics=ASKED, Ks=[1, 5, 10])
        return {name: {way: float(value) for way, value in ways.items()} for name, ways in found.items()}

    return work


def our_suite(images, texts, owners, image_ids, folder):
    from vsehub.evaluation.ground_truth import read_ground_truth
    from vsehub.evaluation.protocols import protocol_of, protocols_outcomes

    truths = {name: protocol_of(name).truth for name in PROTOCOLS}
    truths = {name: truth and read_ground_truth(truth, folder) for name, truth in truths.items()}
    found = protocols_outcomes(truths, images, texts, owners, image_ids=image_ids)
    return {name: outcomes.metrics() for name, outcomes in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--slow_repeats", type=int, default=3, help="of the package")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu", help="wall on a quiet machine")
    parser.add_argument("--quick", action="store_true", help="D 64, one repeat")
    args = parser.parse_args()
    if args.quick:
        args.repeats, args.slow_repeats, args.width = 1, 1, 64
    import torch

    from vsehub.evaluation.ground_truth import read_ground_truth

    torch.set_num_threads(args.threads)
    images, texts, owners = made_up(5000, 5, args.width)
    python = peer_python("eccv_caption", PACKAGES)
    folder = next(Path(python).parents[1].glob("lib/python*/site-packages/eccv_caption/data"))
    image_ids = list(read_ground_truth("cxc", folder).own)
    inputs = saved_inputs("coco_suite", images=images, texts=texts, threads=args.threads)
    image, text = torch.from_numpy(images), torch.from_numpy(texts)
    found = take_turns(
        {
            "vsehub": lambda: timed(lambda: our_suite(image, text, owners, image_ids, folder)),
            "eccv_caption": lambda: peer_run(python, __file__, "suite", inputs),
        },
        {"vsehub": args.repeats, "eccv_caption": args.slow_repeats},
    )
    ours, theirs = found["vsehub"]["result"], found["eccv_caption"]["result"]
    for (protocol, metric), name in NAMES.items():
        for way, short in (("image_to_text", "i2t"), ("text_to_image", "t2i")):
            here, there = ours[protocol][f"{way}_{metric}"], 100 * theirs[name][short]
            assert abs(here - there) <= 1e-9, f"{protocol} {way} {metric}: {here} here, {there} there"
    row = {
        "id": "B3",
        "what": f"COCO 5K, 1K, CxC, ECCV Caption from embeddings, D {args.width}",
        "peer": f"eccv_caption 0.1.0, {args.slow_repeats} repeats",
        "ratio": f"{ratio(found, 'eccv_caption', 'vsehub', args.clock):.1f}x faster",
        "target": ">= 10x",
        "equality": f"{2 * len(NAMES)} metrics equal to 1e-9",
    }
    report("bench_coco_suite", [row], found)
    return 0


if __name__ == "__main__":
    raise SystemExit(0 if answer_as_peer({"suite": package_suite}) else main())
