"""`vsehub index calibrate INDEX --data PAIRS`: the minimum cosine of a hit; below it, a search returns nothing."""

from ..files.numbers import fraction, whole
from ..files.text import lines_of
from .flags import (
    add_data_flags,
    add_device,
    add_json,
    add_trust,
    add_wait,
    chosen_device,
    data_arguments,
    loading_options,
    tell,
)
from .parser import Parser
from .quiet import calm


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        "index calibrate",
        "Choose the minimum cosine of a hit from validation pairs; below it a search returns nothing.",
        "index calibrate photos.index --data org/pairs --split validation",
    )
    parser.add_place("index", "folder or address of an index")
    add_data_flags(parser, split="validation")
    parser.add("--limit", type=whole(2), default=1000, help="validation images to use (default: %(default)s)")
    parser.add("--off_topic", help="file of texts, one a line, that fit nothing in the index")
    parser.add(
        "--reject_share",
        type=fraction,
        default=0.95,
        help="fraction of irrelevant queries that should return no hit (default: %(default)s)",
    )
    parser.add("--force", action="store_true", help="keep a cut-off that hides most right answers, too")
    parser.add("--model", help="folder or Hub id of the model of the index, if it was moved")
    add_wait(parser)
    add_trust(parser)
    add_device(parser, default="cpu")
    add_json(parser, "the cut-off and what it does")
    return parser


def main(argv: list[str]) -> int:
    """Read the pairs, choose the cut-off, keep it in the index."""
    args = parser().parse_args(with_reject_share(argv))
    loading = loading_options(args, args.model)
    off_topic = lines_of(args.off_topic) if args.off_topic else []
    from ..data.rows import image_source, prepare_rows
    from ..search.retriever import Retriever
    from ..search.stores.places import open_index

    if off_topic and not len(open_index(args.index)):
        raise ValueError(f"{args.index} is empty, and --off_topic needs pictures in it: index pictures first")
    calm(args.verbose)
    rows = prepare_rows(data_arguments(args), args.split, None, need_dense=False, limit=args.limit)
    owners = [number for number, texts in enumerate(rows["captions"]) for _ in texts]
    texts = [text for several in rows["captions"] for text in several]
    retriever = Retriever.open(args.index, args.model, wait=args.wait, **loading)
    retriever.encoder.to(chosen_device(args.device))
    images = [image_source(image) for image in rows["image"]]
    cutoff = retriever.calibrate(images, texts, owners, off_topic, args.reject_share, args.force)
    text = (
        f"cut-off {cutoff['text']:.4f}: {100 * cutoff['rejected']:.1f} % of {cutoff['off_topic']} irrelevant queries "
        f"return nothing; {100 * cutoff['kept']:.1f} % of {cutoff['pairs']} captions still find their own image"
    )
    tell(args, text, cutoff)
    return 0


def with_reject_share(words: list[str]) -> list[str]:
    """The command line with the old spelling `--quiet 0.95` replaced by the present one."""
    words = list(words)
    for place, word in enumerate(words):
        follows = words[place + 1 : place + 2]
        if word.startswith("--quiet=") or (word == "--quiet" and follows and _is_number(follows[0])):
            words[place] = word.replace("--quiet", "--reject_share")
    return words


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
