"""Text from outside (file names, servers, datasets) made safe to store and safe to print."""

import re

# What a terminal or a text engine obeys instead of showing it: C0 and C1 controls except tab and newline, marks that
# turn the writing direction (CVE-2021-42574), invisible operators, tags that spell hidden ASCII, lone surrogates.
CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)
LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Terminal sequences (ECMA-48): a control sequence, or a command string up to its terminator.
SEQUENCES = re.compile("(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[\\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)")


def clean_text(text: str) -> str:
    """Return `text` as it may be stored: valid UTF-8, lines ended by newlines, no control or direction characters.

    Terminal sequences are removed whole, so that no `[31m` stays behind; a lone surrogate becomes `?`. Tabs, newlines
    and the joiners that scripts and emoji need are kept.
    """
    text = text.encode("utf-8", "replace").decode()
    return CONTROLS.sub("", LINE_ENDS.sub("\n", SEQUENCES.sub("", text)))


def printable(message: object) -> str:
    r"""Return `str(message)` as one line that shows control characters (`\x1b`, `\u202e`) instead of obeying them.

    For every line that a command prints and that holds a file name, a caption or another program's error: neither can
    forge a second line, colour the terminal or reverse the text.
    """
    return CONTROLS.sub(_escaped, " ".join(str(message).split()))


def _escaped(match: re.Match) -> str:
    return ascii(match.group())[1:-1]


__all__ = ["clean_text", "printable"]
