"""Escape text from users (names of models and data), so that Markdown shows it unchanged."""

import os
import re
import unicodedata


def one_line(text) -> str:
    """Reduce any value to one line of visible characters: no control, direction or surrogate characters."""
    visible = (" " if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in str(text))
    return " ".join("".join(visible).split())


def plain(text) -> str:
    """Escape a value so that it is shown unchanged, in running text and in table cells."""
    return re.sub(r"([\\`*_\[\]<>|~#$&])", r"\\\1", one_line(text))


def fenced(text, language: str = "") -> str:
    """Put text of one or more lines into a code block; no text can close the block early."""
    text = "\n".join(map(_visible, str(text).splitlines()))
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def public_name(source) -> str:
    """Name a source without its place on this machine: of a path, only the last part."""
    source = one_line(source)
    is_path = os.path.exists(source) or os.path.isabs(source) or source[:1] in (".", "~")
    return one_line(os.path.basename(os.path.normpath(source))) if is_path else source


def _visible(line: str) -> str:
    return "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in line)
