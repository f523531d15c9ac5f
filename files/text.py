"""Text from outside (file names, servers, datasets) made safe to store and safe to print."""

import os
import re
from pathlib import Path

# What a terminal or a text engine obeys instead of showing it: C0 and C1 controls except tab and newline, marks that
# turn the writing direction (CVE-2021-42574), invisible operators, tags that spell hidden ASCII, lone surrogates.
CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)
LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Terminal sequences (ECMA-48): a control sequence, or a command string up to its terminator.
SEQUENCES = re.compile("(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[\\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)")

PASSWORDS = re.compile(r"(?<=://)[^/\s?#@]*:[^/\s?#]*@|(?<=://)[^/\s?#@]{8,}@")  # of `scheme://user:password@host`
TOKENS = re.compile(r"\bhf_[A-Za-z0-9]{16,}|(?<=[Bb]earer )[\w.~+/=-]{8,}")
KEY_NAMES = re.compile(r"(TOKEN|API_?KEY|SECRET|PASSWORD)$", re.IGNORECASE)


def clean_text(text: str) -> str:
    """Return `text` as it may be stored: valid UTF-8, lines ended by newlines, no control or direction characters.

    Terminal sequences are removed whole, so that no `[31m` stays behind; a lone surrogate becomes `?`. Tabs, newlines
    and the joiners that scripts and emoji need are kept.
    """
    text = text.encode("utf-8", "replace").decode()
    return CONTROLS.sub("", LINE_ENDS.sub("\n", SEQUENCES.sub("", text)))


def is_unicode(text: str) -> bool:
    """Whether a text can be stored as UTF-8: a name that the system gave may hold other bytes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def printable(message: object) -> str:
    r"""Return `str(message)` as one line that shows control characters (`\x1b`, `\u202e`) instead of obeying them.

    For every line that a command prints and that holds a file name, a caption or another program's error: neither can
    forge a second line, colour the terminal or reverse the text.
    """
    return CONTROLS.sub(_escaped, " ".join(str(message).split()))


def printable_lines(text: str) -> str:
    r"""Return a text of several lines, its indentation kept, that shows control characters instead of obeying them.

    For all that a command prints. A field that comes from outside needs `printable` as well, or it could add a line.
    """
    return CONTROLS.sub(_escaped, text)


def without_secrets(text: str) -> str:
    """Return an error's text without passwords in addresses, tokens of the Hub, and keys of this environment.

    A server may repeat what it was sent, and a user may have typed an address with a password.
    """
    text = TOKENS.sub("[secret]", PASSWORDS.sub("[secret]@", text))
    for name, value in os.environ.items():
        if KEY_NAMES.search(name) and len(value) >= 8 and not os.path.exists(value):
            text = text.replace(value, "[secret]")
    return text


def text_of(path: str | os.PathLike) -> str:
    """The text of a file that a user names.

    Raises:
        OSError: it cannot be read; ValueError: not UTF-8, which the message says with the file's name.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file in UTF-8 ({error}): save it as UTF-8") from None


def lines_of(path: str | os.PathLike) -> list[str]:
    """The lines of a text file that hold something, without the spaces around them.

    Raises:
        OSError: it cannot be read; ValueError: not UTF-8, or nothing in it; the message names the file.
    """
    lines = [line.strip() for line in text_of(path).split("\n") if line.strip()]
    if not lines:
        raise ValueError(f"{path}: no line of text in it")
    return lines


def _escaped(match: re.Match) -> str:
    return ascii(match.group())[1:-1]


__all__ = ["clean_text", "is_unicode", "lines_of", "printable", "printable_lines", "text_of", "without_secrets"]
