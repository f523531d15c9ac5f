"""`vsehub convert SYSTEM CKPT OUT ...`: official checkpoints become Hub folders; each system has a converter."""

import importlib

CONVERTERS = {"d2s-vse": "convert_d2s_vse", "pir": "convert_pir"}
USAGE = f"vsehub convert {{{','.join(CONVERTERS)}}} CKPT OUT [--flag ...]"
HELP = f"""usage: {USAGE}

Convert an official checkpoint to a folder that AutoModel.from_pretrained loads.

example: vsehub convert pir checkpoint_best.pth runs/pir --tokenizer vocab.txt

`vsehub convert SYSTEM --help` lists the flags."""


def main(argv: list[str]) -> int:
    """Hand the command line to the system's converter.

    Raises:
        ValueError: no such system.
    """
    if argv and argv[0] in ("-h", "--help"):
        print(HELP)
        return 0
    system = argv[0].replace("_", "-") if argv else ""
    if system not in CONVERTERS:
        asked = f", not {argv[0]!r}" if argv and not argv[0].startswith("-") else ""
        raise ValueError(f"say which system: {USAGE}{asked}")
    return importlib.import_module(f".{CONVERTERS[system]}", __package__).main(argv[1:])
