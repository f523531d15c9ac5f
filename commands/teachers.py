"""`vsehub teachers DATA --vision M --text M --out FOLDER`: features of frozen uni-modal models as columns."""

from ..files.numbers import epochs, positive_float, positive_int, seed, whole
from .flags import add_device, add_dtype, add_json, add_row_flags, chosen_device, data_arguments, tell
from .parser import Parser
from .quiet import calm

NAMES = """image text out splits copy dense_text batch_size dtype views image_augmentation train_teachers
train_batch_size learning_rate temperature seed""".split()


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        "teachers",
        "Compute features of frozen uni-modal models once and keep them as columns of the data.\nThe same "
        "command continues a killed run.",
        "teachers org/pairs --vision facebook/dinov2-base --text sentence-transformers/all-mpnet-base-v2 --out pairs/",
    )
    parser.add_place("data", "Hub id, table, imagefolder or json, as for training")
    parser.add(
        "--vision",
        "--image",
        dest="image",
        help="Hub id or folder of a vision backbone; `captions`: an image is taught by what its captions say",
    )
    parser.add("--text", help="Hub id or folder of a text backbone and its tokenizer")
    parser.add("--out", required=True, help="folder for the parquet files")
    parser.add("--splits", "--split", nargs="+", default=["train"], help="splits that get features (default: train)")
    parser.add("--copy", nargs="*", default=["validation"], help="splits copied unchanged (default: validation)")
    add_row_flags(parser)
    parser.add("--dense_text", help="as for training; kept as the column `dense_text`")
    parser.add("--batch_size", type=positive_int, default=32, help="default: %(default)s")
    add_dtype(parser, "features are computed in", default="float32")
    parser.add("--views", type=whole(1, 1024), default=1, help="views of each image; training uses the same ones")
    parser.add("--image_augmentation", choices=("crop", "rand_augment"), default="crop", help="for the views")
    parser.add(
        "--train_teachers",
        type=epochs,
        default=0,
        metavar="EPOCHS",
        help="first fine-tune the teachers on the data, each within its modality (NT-Xent)",
    )
    parser.add("--train_batch_size", type=positive_int, default=64, help="default: %(default)s")
    parser.add("--learning_rate", type=positive_float, default=2e-5, help="default: %(default)s")
    parser.add("--temperature", type=positive_float, default=0.1, help="of NT-Xent (default: %(default)s)")
    parser.add("--seed", type=seed, default=0, help="default: %(default)s")
    add_device(parser)
    add_json(parser, "the rows of each split")
    add = "add that, or leave it out"
    training = "train_batch_size learning_rate temperature seed"
    parser.add_void(training, lambda args: not args.train_teachers, "without --train_teachers", add)
    parser.add_void("views image_augmentation", lambda args: args.text and not args.image, "without --vision", add)
    parser.add_void("image_augmentation", _one_view_is_left_plain, "beside --views 1", "take more, or leave it out")
    return parser


def _one_view_is_left_plain(args) -> bool:
    """Whether pictures are seen once, as they are."""
    return args.views == 1 and (args.image == "captions" or not args.train_teachers)


def main(argv: list[str]) -> int:
    """Make the features; print how many rows each split has."""
    args = parser().parse_args(argv)
    from ..training.teachers import TeacherOptions, write_teachers

    calm(args.verbose)

    options = TeacherOptions(**{name: getattr(args, name) for name in NAMES}, device=chosen_device(args.device))
    counts = write_teachers(data_arguments(args), options)
    text = "\n".join(f"{split}: {count} rows in {args.out}" for split, count in counts.items())
    tell(args, text, {"out": args.out, "rows": counts})
    return 0
