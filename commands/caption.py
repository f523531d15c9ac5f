"""`vsehub caption IMAGES --model M --out dense.parquet`: dense captions from a vision-language model, resumable."""

from ..data.captioning.request import CaptionError, CaptionRequest
from ..files.numbers import number, positive_int, seed, whole, workers
from ..files.text import printable
from .flags import add_data_config, add_device, add_json, dtype_name, remark, tell
from .parser import Parser
from .quiet import calm

INTERRUPTED = "vsehub caption: interrupted; the same command continues from here"


def parser() -> Parser:
    """The flags."""
    asked = CaptionRequest()
    parser = Parser(
        "caption",
        "One dense caption for every image of a folder or dataset. The same command continues a killed job.",
        "caption photos/ --model llava-hf/llava-1.5-7b-hf --out dense.parquet",
    )
    parser.add_place("data", "folder of images, table (parquet, CSV, JSON lines), Hub id, or what `vsehub train` reads")
    parser.add("--model", required=True, help="Hub id or folder (llava-hf/llava-1.5-7b-hf), or a name on the server")
    parser.add("--out", required=True, help="the parquet table to write")
    sampling = {"temperature": number(0, 10), "top_p": number(above=0, most=1), "max_new_tokens": positive_int}
    for name, kind in {"prompt": str, **sampling}.items():
        parser.add(f"--{name}", type=kind, default=getattr(asked, name), help="default: %(default)s, the paper's")
    parser.add(
        "--max_image_side", type=whole(16, 16_384), help="shrink larger pictures to it; default: 2048 for a server"
    )
    parser.add(
        "--min_words",
        type=positive_int,
        default=asked.min_words,
        help="minimum words of a caption; default: %(default)s",
    )
    parser.add("--seed", type=seed, help="default: 0 for a local model, none for a server")
    parser.add("--on_bad_sample", choices=("error", "quarantine"), default="error", help="default: %(default)s")
    parser.add("--restart", action="store_true", help="delete the captions in --out and its journal, and start again")
    parser.add("--revision", help="branch, tag or commit of the model")
    parser.add(
        "--batch_size", type=positive_int, default=8, help="images at once on a local model; default: %(default)s"
    )
    dtypes = ("auto", "float32", "bfloat16", "float16")
    parser.add(
        "--dtype",
        type=dtype_name,
        choices=dtypes,
        default="auto",
        help="number type of a local model; default: as saved",
    )
    add_device(parser)
    parser.add("--api_base", help="ask an OpenAI-compatible server, http://localhost:8000/v1; key from OPENAI_API_KEY")
    parser.add("--concurrency", type=workers, default=8, help="requests in flight; default: %(default)s")
    parser.add(
        "--timeout",
        type=number(above=0, most=86_400),
        default=120.0,
        help="seconds a request may take; default: %(default)s",
    )
    parser.add(
        "--tries",
        type=positive_int,
        default=8,
        help="requests for an image before it is given up; default: %(default)s",
    )
    parser.add("--split", help="default: train of a dataset, all of a folder of pictures")
    add_data_config(parser)
    parser.add("--image_root", help="folder of the images, where a dataset names files")
    parser.add("--image_column", default="image", help="default: %(default)s")
    parser.add("--id_column", default="image_id", help="default: %(default)s; without it paths, or row numbers")
    add_json(parser, "the counts")
    return _with_voids(parser)


def _with_voids(parser: Parser) -> Parser:
    """A parser that refuses what is void with a server, without one, and where nothing is drawn."""
    parser.add_void("batch_size dtype device", lambda args: args.api_base, "beside --api_base, whose server decides")
    parser.add_void(
        "concurrency timeout tries",
        lambda args: not args.api_base,
        "without --api_base",
        "add that, or leave it out",
    )
    parser.add_void(
        "top_p", lambda args: args.temperature == 0, "beside --temperature 0, which takes the likeliest word"
    )
    return parser


def main(argv: list[str]) -> int:
    """Caption what is missing; print the counts."""
    args = parser().parse_args(argv)
    from ..data.captioning.caption_job import caption_images

    calm(args.verbose)

    reading = {
        name: getattr(args, name) for name in ("split", "data_config", "image_root", "image_column", "id_column")
    }
    options = {"on_bad_sample": args.on_bad_sample, "restart": args.restart, "progress": not args.quiet}
    try:
        done = caption_images(args.data, args.out, captioner_of(args), **options, **reading)
    except KeyboardInterrupt:
        remark(args, INTERRUPTED)
        return 130
    except CaptionError as error:
        raise ValueError(str(error)) from error
    made = "complete already, nothing to do" if done["was_complete"] else f"{done['made']} made now"
    counts = f"{done['captions']} captions ({done['truncated']} truncated), {done['bad']} bad samples"
    tell(args, f"{args.out}: {counts}; {made}", {"out": args.out, **done})
    if len(done["revisions"]) > 1:
        revisions = printable(", ".join(done["revisions"]))
        remark(args, f"the server changed its model meanwhile, see column revision: {revisions}")
    return 0


def captioner_of(args):
    """The local model, or the client of the server, that the flags describe."""
    from ..data.captioning.local_captioner import TransformersCaptioner
    from ..data.captioning.server_captioner import ServerCaptioner

    sampling = (args.temperature, args.top_p, args.max_new_tokens, args.seed)
    request = CaptionRequest(args.prompt, *sampling, args.max_image_side, args.min_words)
    if args.api_base and args.revision:
        raise CaptionError("--revision is for local models: a server chooses the version of its model")
    if args.api_base:
        return ServerCaptioner(args.model, request, args.api_base, args.concurrency, args.timeout, args.tries)
    return TransformersCaptioner(args.model, request, args.revision, args.batch_size, args.dtype, args.device)
