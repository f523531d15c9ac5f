"""`vsehub convert pir CKPT OUT`: an official checkpoint of PIR becomes a Hub folder."""

from ..files.text import printable
from .flags import add_json, tell
from .parser import Parser
from .quiet import calm

TOWERS = ("vision", "text", "instruction")


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        "convert pir",
        "Convert an official checkpoint of PIR to a folder that AutoModel.from_pretrained loads; says whether its\n"
        "pretrained weights were ever loaded.",
        "convert pir checkpoint_best.pth runs/official --tokenizer vocab.txt",
    )
    parser.add_place("checkpoint", "official checkpoint_best.pth")
    parser.add_place("out", "folder to write; empty or absent")
    for tower in TOWERS:
        parser.add(f"--{tower}_config", help=f"config.json of the {tower} tower; default: derived from the tensors")
    parser.add("--tokenizer", help="vocab.txt, or folder of a tokenizer; without it no processor is written")
    add_json(parser, "what was decided")
    return parser


def main(argv: list[str]) -> int:
    """Convert; print what was decided."""
    args = parser().parse_args(argv)
    from ..hub_cards.conversion.convert_pir import convert

    calm(args.verbose)

    towers = {f"{tower}_config": getattr(args, f"{tower}_config") for tower in TOWERS}
    report = convert(args.checkpoint, args.out, tokenizer=args.tokenizer, **towers)
    tell(args, summary(report), report)
    return 0


def summary(report: dict) -> str:
    """What `convert` reports, in lines."""
    lines = [f"{report['source']}: {report['tensors']} tensors, {report['parameters']:,} parameters; legacy=True"]
    lines += [f"left out {printable(label)} ({count})" for label, count in report["dropped"].items()]
    if report["published_defaults"]:
        lines.append(f"not in the file, so as published: {', '.join(report['published_defaults'])}")
    lines += [
        f"{part.replace('_', ' ')}: {report.get(part, 'none')}" for part in ("instruction_weights", "text_weights")
    ]
    lines.append("processor written" if report["processor"] else "no --tokenizer, so no processor was written")
    return "\n".join(lines)
