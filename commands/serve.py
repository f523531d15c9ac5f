"""`vsehub serve INDEX`: a page and an HTTP API over an index."""

import argparse
import os
import re
from typing import Any

from ..files.numbers import positive_int, whole
from ..files.text import text_of
from .flags import add_device, add_images, add_trust, chosen_device, loading_options, remark, tell_images
from .parser import Parser
from .quiet import calm

LARGEST = 178_956_970  # pixels; Pillow opens no larger picture


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        "serve",
        "A page and an HTTP API over an index: search by text and picture, embeddings in the shape of OpenAI's API.",
        "serve photos.index",
    )
    parser.add_place("index", "folder or address of an index")
    parser.add("--model", help="folder or Hub id of the model of the index, if it was moved")
    parser.add("--host", default="127.0.0.1", help="address to listen at; any but this machine's own needs a token")
    parser.add("--port", type=whole(0, 65535), default=8000, help="default: %(default)s; 0 takes a free one")
    parser.add("--token_file", metavar="FILE", help="with the token of all requests (or set VSEHUB_SERVE_TOKEN)")
    parser.add("--public", action="store_true", help="no token: whoever reaches it may search and see the pictures")
    parser.add("--framed_by", type=origin, metavar="URL", help="site that may show the page in a frame; default none")
    parser.add("--no_means", action="store_true", help="as in `vsehub search`: do not subtract the modalities' means")
    parser.add("--example", action="append", default=[], metavar="TEXT", help="a query that the page offers")
    parser.add("--max_body", type=positive_int, default=32, help="megabytes of a request (default: %(default)s)")
    parser.add("--max_pixels", type=whole(1, LARGEST), default=64_000_000, help="of a request (default: %(default)s)")
    parser.add("--max_batch", type=positive_int, default=64, help="inputs of /v1/embeddings (default: %(default)s)")
    parser.add("--max_requests", type=positive_int, default=64, help="answered at once (default: %(default)s)")
    add_images(parser)
    add_trust(parser)
    add_device(parser, default="cpu")
    return parser


def origin(text: str) -> str:
    """The address of a site without a path, such as `https://huggingface.co`.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not re.fullmatch(r"https?://[\w.-]+(:\d+)?", text, re.ASCII):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no address of a site: write https://huggingface.co, for instance"
        )
    return text


def token_of(args) -> str | None:
    """The token of the file or of the environment, without the white space around it; None for none.

    Raises:
        OSError: no such file; ValueError: not UTF-8.
    """
    from ..serving.server import TOKEN

    if args.token_file:
        return text_of(args.token_file).strip()
    token = os.environ.get(TOKEN)
    return None if token is None else token.strip()  # no header of a request could end in a newline


def main(argv: list[str]) -> int:
    """Load the model of the index, serve until Ctrl+C."""
    args = parser().parse_args(argv)
    loading = loading_options(args, args.model)
    from ..search.retriever import Retriever
    from ..search.stores.places import stamp_of
    from ..serving.questions import Limits
    from ..serving.server import bound, check_extra, check_token, serve

    check_extra()
    check_token(args.host, token := token_of(args), args.public)
    limits = Limits(args.max_body * 1_000_000, args.max_pixels, args.max_batch, requests=args.max_requests)
    own = bound(args.host, args.port)  # what is wrong is told before the model is loaded
    stamp = stamp_of(args.index)
    calm(args.verbose)
    retriever = Retriever.open(args.index, args.model, **loading)
    retriever.encoder.to(chosen_device(args.device))
    tell_images(args, retriever.index)
    name = f"[{args.host}]" if ":" in args.host else args.host
    told = f"http://{name}:{own.getsockname()[1]}  {len(retriever.index):,} items of {args.index}; Ctrl+C ends"
    site: dict[str, Any] = {"hosts": "any" if args.public else None, "framed_by": args.framed_by or "'none'"}
    shown: dict[str, Any] = {"examples": tuple(args.example), "means": not args.no_means, **site}
    try:
        serve(retriever, own, token, args.images, stamp, limits, **shown, ready=lambda server: remark(args, told))
    except KeyboardInterrupt:
        return 0
    return 0
