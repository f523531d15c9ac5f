"""`vsehub convert SYSTEM CKPT OUT ...`: which converter reads which system's official checkpoints."""

import importlib

CONVERTERS = {"d2s-vse": "convert_d2s_vse", "pir": "convert_pir"}


def main(argv: list[str]) -> int:
    """Hand the command line to the system's converter.

    Raises:
        ValueError: no such system.
    """
    usage = f"vsehub convert {{{','.join(CONVERTERS)}}} CKPT OUT"
    if argv and argv[0] in ("-h", "--help"):
        print(f"usage: {usage}; after the system, --help tells more")
        return 0
    if not argv or argv[0] not in CONVERTERS:
        asked = f", not {argv[0]!r}" if argv and not argv[0].startswith("-") else ""
        raise ValueError(f"say which system: {usage}{asked}")
    return importlib.import_module(f"vsehub.hub_cards.conversion.{CONVERTERS[argv[0]]}").main(argv[1:])
