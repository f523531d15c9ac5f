"""Published models side by side and together: is one training better than another over its seeds, and what do several
seeds reach at once?

    python benchmarks/together.py runs/seed-42/hub runs/seed-43/hub --over runs/plain-42/hub runs/plain-43/hub \
        --data $DATA/flickr8k
    python benchmarks/together.py runs/a/hub runs/b/hub --soup runs/soup --data $DATA/flickr8k

Prints rSum of each model, the gain of the first group over the second with its interval over seeds and pictures
(`vsehub.evaluation.seeds`), and rSum of all models of a group together: their cosines are averaged, which is what a
search with their embeddings side by side does. `--soup` also writes and measures one model with the mean of the first
group's weights (Wortsman et al., ICML 2022). That is of use for runs that begin with the same weights, as second stages
do that have one `--stage1_model` and one `--seed`, and another `--data_seed` each: the order of the pairs.
"""

import argparse
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows
from vsehub.evaluation.embed import Embeds, EncoderRows, embed_rows
from vsehub.evaluation.protocols import protocol_outcomes
from vsehub.evaluation.seeds import gain, shares_of_images
from vsehub.files.memory import reuse_memory
from vsehub.processing.half_precision import computing_in
from vsehub.processing.load_encoder import load_encoder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="Hub folders of one training, one a seed")
    parser.add_argument("--over", nargs="*", default=[], help="those of another")
    parser.add_argument("--soup", metavar="FOLDER", help="write a model with the mean weights of the first group")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="validation")
    args = parser.parse_args()
    reuse_memory()
    rows = prepare_rows(DataArguments(data=args.data), args.split, None, need_dense=False)
    shares = [measured(models, rows) for models in (args.models, args.over) if models]
    if len(shares) == 2 and min(len(args.models), len(args.over)) > 1:
        for level in (0.95, 0.99):
            better = gain(shares[1], shares[0], level=level)
            print(f"gain {better.mean:+.2f}, {level:.0%} interval {better.low:+.2f} to {better.high:+.2f}")
    if args.soup:
        write_soup(args.models, Path(args.soup))
        measured([args.soup], rows)
    return 0


def write_soup(models: list[str], out: Path):
    """Write a model with the mean of the weights of models of one architecture."""
    weights = [load_file(f"{model}/model.safetensors") for model in models]
    shapes = [{name: value.shape for name, value in other.items()} for other in weights]
    if any(other != shapes[0] for other in shapes):
        raise SystemExit("models of different architectures have no mean")
    mean = {
        name: torch.stack([other[name].double() for other in weights]).mean(0).to(value.dtype)
        for name, value in weights[0].items()
    }
    shutil.copytree(models[0], out)
    save_file(mean, out / "model.safetensors", {"format": "pt"})


def measured(models: list[str], rows):
    """What each picture adds to rSum, in each model; prints the sums of each and of all together."""
    embeds = [embedded(model, rows) for model in models]
    owners = embeds[0].text_to_image
    outcomes = [protocol_outcomes("recall", *each) for each in embeds]
    for model, outcome in zip(models, outcomes):
        print(f"{outcome.metrics()['rsum']:.1f}  {model}", flush=True)
    if len(models) > 1:
        images, texts = (torch.cat([each[side] for each in embeds], 1) for side in (0, 1))
        print(f"{protocol_outcomes('recall', images, texts, owners).metrics()['rsum']:.1f}  all together", flush=True)
    return [shares_of_images(outcome, "rsum") for outcome in outcomes]


def embedded(model: str, rows) -> Embeds:
    """The embeddings of a model, as `vsehub evaluate` makes them."""
    accelerator = Accelerator(cpu=True)
    encoder = load_encoder(model, trust_remote_code=True).to(accelerator.device)
    with computing_in("float32", encoder.model, accelerator.device):
        images, texts, owners = embed_rows(encoder, EncoderRows(encoder, rows), accelerator, 64)
    return Embeds(F.normalize(images, dim=1), F.normalize(texts, dim=1), owners)


if __name__ == "__main__":
    raise SystemExit(main())
