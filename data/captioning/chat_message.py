"""The text of an answer of the chat-completions format, in whatever form a server puts it, or why there is none."""

import json
import re

from ...files.text import printable
from .answers import UnusableAnswerError
from .transport import MAX_REASON_CHARACTERS, RefusedError, reason_in, refusal

FILTERED = ("content_filter", "safety")  # finish reasons
CUT = ("length", "max_tokens", "max_length", "model_length", "abort", *FILTERED)


def content_of(message: dict, end: str | None) -> str:
    """Return the text of a message of chat completions, its parts joined; `end` is the finish_reason.

    Raises:
        UnusableAnswerError: a refusal, or no text, only reasoning, a call of a tool, nothing.
        RefusedError: the server's filter withheld the text.
    """
    content, declined = message.get("content"), message.get("refusal")
    if isinstance(content, dict):
        content = [content]
    if isinstance(content, list):
        declined = declined or next((part["refusal"] for part in content if is_refusal(part)), None)
        content = joined([text for part in content if (text := text_of(part))])
    if declined:
        raise RefusedError(f"the model declines: {printable(declined)[:MAX_REASON_CHARACTERS]}", again=False)
    if content is not None and not isinstance(content, str):
        raise TypeError(f"content is {type(content).__name__}")
    if content and content.strip():
        return content
    if str(end).lower() in FILTERED:
        raise RefusedError(f"the server withheld the answer (finish_reason {end!r})", again=False)
    if any(message.get(name) for name in ("reasoning_content", "reasoning", "reasoning_details", "thinking")):
        what = "nothing but reasoning; raise --max_new_tokens, or switch reasoning off in the server"
    elif message.get("tool_calls") or message.get("function_call"):
        what = "a call of a tool in place of a caption"
    elif str(end).lower() in CUT:
        what = "cut before the first word; raise --max_new_tokens"
    else:
        what = "empty answer"
    raise UnusableAnswerError(f"{what} (finish_reason {end!r})")


def is_refusal(part) -> bool:
    """Whether a part of a content says that the model declines."""
    return isinstance(part, dict) and bool(part.get("refusal"))


def text_of(part) -> str:
    """Return the text of one part of a content; parts that hold reasoning, or anything else, have none."""
    if isinstance(part, str):
        return part
    text = part.get("text") if part.get("type", "text") in ("text", "output_text") else None
    return text if isinstance(text, str) else ""


def joined(parts: list[str]) -> str:
    """Join parts of a text, with a space where two words would meet."""
    text = ""
    for part in parts:
        meet = re.search(r"[\w.,;:!?)]\Z", text) and re.match(r"[A-Za-z0-9]", part)
        text += f" {part}" if meet else part
    return text


def refused_with_200(error, key: str) -> RefusedError:
    """Judge an error that came as an answer; routers of other services' models send such."""
    text = json.dumps({"error": error}, ensure_ascii=False)
    code = error.get("code") if isinstance(error, dict) else None
    return refusal(code if type(code) is int and 400 <= code < 600 else 500, reason_in(text), text, key)


__all__ = ["CUT", "content_of", "refused_with_200"]
