"""`vsehub export MODEL OUT`: the two sides of a model as two ONNX graphs, or the model in bfloat16."""

from .flags import add_json, add_trust, dtype_name, loading_options, tell
from .parser import Parser
from .quiet import calm


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        "export",
        "Write a model as two ONNX graphs (visual/, textual/), or as a folder in bfloat16.",
        "export runs/mine/hub out/ --to onnx",
    )
    parser.add_place("model", "folder or Hub id of a model of vsehub")
    parser.add_place("out", "a new folder")
    parser.add("--to", choices=("onnx", "transformers"), default="onnx", help="default: %(default)s")
    parser.add(
        "--dtype",
        type=dtype_name,
        choices=("float32", "bfloat16"),
        default="float32",
        help="bfloat16 (or bf16) needs --to transformers",
    )
    add_trust(parser)
    add_json(parser, "the difference from the model")
    return parser


def main(argv: list[str]) -> int:
    """Export a saved model; print the difference between both."""
    args = parser().parse_args(argv)
    loading = loading_options(args, args.model)
    if args.to == "onnx" and args.dtype != "float32":
        raise ValueError(f"--dtype {args.dtype} writes a folder for transformers: add --to transformers")
    from ..hub_cards.conversion.export_onnx import export_model

    calm(args.verbose)

    report = export_model(args.model, args.out, args.to, args.dtype, **loading)
    if args.to == "onnx":
        text = "largest difference from the model: " + ", ".join(f"{k} {v:.1e}" for k, v in report.items())
    else:
        text = "mean cosine with float32: " + ", ".join(f"{k} {v:.5f}" for k, v in report.items())
    name = "max_abs_difference" if args.to == "onnx" else "mean_cosine"
    tell(args, f"{text}\n{args.out}", {"out": args.out, name: report})
    return 0
