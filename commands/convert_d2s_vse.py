"""`vsehub convert d2s-vse CKPT OUT`: an official checkpoint of D2S-VSE becomes a Hub folder."""

from ..files.numbers import pixels
from ..files.text import printable
from .flags import add_json, remark, tell
from .parser import Parser
from .quiet import calm


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        "convert d2s-vse",
        "Convert an official checkpoint of D2S-VSE to a folder that AutoModel.from_pretrained loads.",
        "convert d2s-vse model_best.pth runs/official --image_size 384 --tokenizer bert-base-uncased/",
    )
    parser.add_place("checkpoint", "official model_best.pth, stage 1 or 2")
    parser.add_place("out", "folder to write; empty or absent")
    parser.add("--vision_config", help="config.json of the vision tower; default: derived from the tensors")
    parser.add("--text_config", help="config.json of the text tower; default: derived from the tensors")
    parser.add("--image_size", type=pixels, help="pixels the model was run on; default: opt.img_res")
    parser.add("--tokenizer", help="folder of a tokenizer, or vocab.txt; without it no processor is written")
    parser.add("--teacher_out", help="folder for the dense-caption encoder of a stage-2 file")
    add_json(parser, "what was decided and written")
    return parser


def main(argv: list[str]) -> int:
    """Convert; print what was decided."""
    args = parser().parse_args(argv)
    from ..hub_cards.conversion.convert_d2s_vse import convert

    calm(args.verbose)

    names = ("vision_config", "text_config", "image_size", "tokenizer", "teacher_out")
    report = convert(args.checkpoint, args.out, **{name: getattr(args, name) for name in names})
    tell(args, summary(report), report)
    for warning in report["warnings"]:
        remark(args, f"warning: {printable(warning)}")
    return 0


def summary(report: dict) -> str:
    """What `convert` reports, in lines."""
    lines = [
        f"{report['source']} (sha256 {report['sha256'][:12]}...): {report['part']}, "
        f"{report['tensors']} tensors, {report['parameters']:,} parameters",
        f"image size {report['image_size']} from {report['image_size_from']}; legacy=True",
        *(f"left out {printable(label)} ({count})" for label, count in report["dropped"].items()),
        *(f"wrote {folder}" for folder in report["written"]),
        "processor written" if report["processor"] else "no --tokenizer, so no processor was written",
    ]
    return "\n".join(lines)
