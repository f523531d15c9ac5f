"""What the embeddings of a claim's arms are like, side by side: the table and the pictures of docs/analysis.md.

    python benchmarks/analyse_claim.py --data $DATA --backbones $BACKBONES --text $MINILM --out runs/results

Takes the first kept weights of each arm (`make results` keeps them) and runs `vsehub analyse` on the validation split.
"""

import argparse
from pathlib import Path

import kept_runs
import ledger
from arms import CLAIMS, Bench
from PIL import Image

from vsehub.data.arguments import DataArguments
from vsehub.evaluation.analyse import analysis
from vsehub.evaluation.tables import analysis_table
from vsehub.files.memory import reuse_memory
from vsehub.plots.analysis import draw_analysis

PAGE = ledger.ROOT / "docs" / "analysis.md"
MARKS = "<!-- ANALYSIS -->\n", "<!-- END -->"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder that holds flickr8k/")
    parser.add_argument("--backbones", required=True, help="folder that holds mobilenet_v2/")
    parser.add_argument("--text", required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--out", default="runs/results", help="as for results.py")
    parser.add_argument("--claim", default="d2s-one", choices=list(CLAIMS))
    parser.add_argument("--arms", nargs="*", help="names of arms; default all that have kept weights")
    args = parser.parse_args()
    reuse_memory()
    bench, claim = Bench(args.data, args.backbones, args.text, args.out), CLAIMS[args.claim]
    folders = [str(folder_of(bench, args.claim, arm, seed)) for arm, seed in kept(args)]
    data = DataArguments(data=f"{args.data}/{claim.data}", dense_text="union")
    results = analysis(folders, data, "validation", need_dense=True)
    results = {name.split("/")[-1].replace("_", " "): values for name, values in results.items()}
    picture = ledger.ROOT / "docs" / "pictures" / f"analysis-{args.claim}.png"
    draw_analysis(results, [picture])
    Image.open(picture).convert("RGB").quantize(48).save(picture, optimize=True)  # pages load faster
    before, rest = PAGE.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    PAGE.write_text(f"{before}{MARKS[0]}```text\n{analysis_table(results)}\n```\n{MARKS[1]}{after}", encoding="utf-8")
    return 0


def kept(args) -> list[tuple[str, int]]:
    """The arms that have kept weights, and the first seed of each."""
    arms, claim = [], CLAIMS[args.claim]
    for arm in args.arms or claim.arms:
        seeds = range(claim.first_seed, claim.first_seed + claim.seeds)
        arms += [(arm, seed) for seed in seeds if kept_runs.file_of(args.out, args.claim, arm, seed).exists()][:1]
    return arms


def folder_of(bench: Bench, claim: str, arm: str, seed: int) -> Path:
    """A folder with the whole model of a run and its processor."""
    folder = Path(bench.out) / "analysed" / claim / arm.replace(" ", "_")
    model, processor = bench.untrained(CLAIMS[claim], arm)
    kept_runs.restore(model, kept_runs.file_of(bench.out, claim, arm, seed))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
