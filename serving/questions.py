"""The JSON of a request as a checked question; what is wrong with it is one line."""

import difflib
import json
from dataclasses import dataclass, field
from typing import Any

from ..hub_cards.handler import TooMuchError, texts_of

PARTS = 8  # of `plus` and `minus` together


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and how many may be answered at once.

    Args:
        body: bytes of a request.
        pixels: of all its pictures.
        batch: texts and pictures of a request for embeddings.
        hits: of a search.
        requests: that are answered at once.
        seconds: for a request.
    """

    body: int = 32_000_000
    pixels: int = 64_000_000
    batch: int = 64
    hits: int = 100
    requests: int = 64
    seconds: float = 60.0


@dataclass
class Question:
    """A search. Pictures are base64; weights are those of `Retriever.search`."""

    text: str | None = None
    image: str | None = None
    weight: float = 0.5
    plus: list[tuple[dict, float]] = field(default_factory=list)  # ({"text": ...} or {"image": ...}, weight)
    minus: list[tuple[dict, float]] = field(default_factory=list)
    like: str | None = None
    k: int = 10
    cutoff: float | str | None = "auto"

    @property
    def images(self) -> list[str]:
        """All pictures, that of the query first."""
        parts = [part["image"] for part, _ in (*self.plus, *self.minus) if "image" in part]
        return parts if self.image is None else [self.image, *parts]


@dataclass
class Embedding:
    """Texts and pictures to embed: (kind, text or base64) in order, and whether vectors are base64."""

    items: list[tuple[str, str]]
    packed: bool = False


def parsed(body: bytes) -> dict:
    """The object of a body of JSON.

    Raises:
        ValueError: it is none.
    """
    try:
        content = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).partition(":")[0]
        raise ValueError(f"the body is no JSON ({reason})") from None
    if not isinstance(content, dict):
        raise ValueError('the body must be a JSON object, such as {"text": "a red boat"}')
    return content


def read_question(body: bytes, limits: Limits) -> Question:
    """The question of a body of `POST /search`.

    Raises:
        ValueError: it is none; TooMuchError: it asks for too much.
    """
    content = parsed(body)
    _known(content, Question.__dataclass_fields__)
    given = {name: value for name, value in content.items() if value is not None or name == "cutoff"}
    question = Question(**given)
    for name in ("text", "image", "like"):
        if name in given and not isinstance(given[name], str):
            raise ValueError(f"{name} must be a string")
    texts_of(question.text, "text")
    question.weight = _number("weight", question.weight, 0, 1)
    if question.cutoff not in (None, "auto"):
        question.cutoff = _number("cutoff", question.cutoff, -1, 1)
    if isinstance(question.k, bool) or not isinstance(question.k, int) or question.k < 1:
        raise ValueError("k must be a whole number of at least 1")
    if question.k > limits.hits:
        raise TooMuchError(f"at most {limits.hits} hits a request: lower k")  # which may have thousands of digits
    plus, minus = (given if isinstance(given, list) else [given] for given in (question.plus, question.minus))
    if len(plus) + len(minus) > PARTS:  # before they are looked at: a body has room for millions
        raise TooMuchError(f"at most {PARTS} parts in plus and minus")
    question.plus, question.minus = _parts("plus", plus), _parts("minus", minus)
    if question.like is not None and (question.text is not None or question.image is not None):
        raise ValueError("like is a query of its own: leave out text and image, or give them as plus")
    if question.text is None and question.image is None and question.like is None and not question.plus:
        raise ValueError('nothing to look for: give "text", "image" (base64), or "like" (the id of a hit)')
    return question


def read_embedding(body: bytes, limits: Limits, dimension: int, models: tuple[str, ...]) -> Embedding:
    """What a body of `POST /v1/embeddings` asks for.

    Args:
        body, limits: of the request.
        dimension: of the model's vectors.
        models: names that it answers to.

    Raises:
        ValueError: it asks for nothing that there is; TooMuchError: it asks for too much.
    """
    content = parsed(body)
    _known(content, ("input", "model", "encoding_format", "dimensions", "user"))
    if content.get("model") not in (None, *models):
        raise ValueError(f"there is one model here, {models[0]!r}: name that, or none")
    asked, user = content.get("dimensions"), content.get("user")
    if asked is not None and (type(asked) is not int or asked != dimension):  # True and 16.0 are equal to numbers
        raise ValueError(f"this model's vectors have {dimension} dimensions: leave dimensions out")
    if not isinstance(user, (str, type(None))):
        raise ValueError("user must be a string")
    form = content.get("encoding_format")
    if form not in (None, "float", "base64"):
        raise ValueError("encoding_format must be float or base64")
    given = content.get("input")
    given = given if isinstance(given, list) else [given]
    if not given or any(isinstance(item, (int, list)) for item in given):
        raise ValueError('input must be a text, {"image": "<base64>"}, or a list of these; tokens are not read')
    if len(given) > limits.batch:
        raise TooMuchError(f"at most {limits.batch} texts and pictures a request, got {len(given)}")
    items = [next(iter(_part("input", item).items())) for item in given]
    texts_of([content for kind, content in items if kind == "text"], "text")
    return Embedding(items, form == "base64")


def _parts(name: str, given: list) -> list[tuple[dict, float]]:
    parts = []
    for one in given:
        weight = one.get("weight", 1.0) if isinstance(one, dict) else 1.0
        one = {key: value for key, value in one.items() if key != "weight"} if isinstance(one, dict) else one
        parts.append((_part(name, one), _number(f"the weight in {name}", weight, 1e-6, 1e6)))
    return parts


def _part(name: str, given: Any) -> dict[str, str]:
    """A text or a picture: a string is always a text."""
    given = {"text": given} if isinstance(given, str) else given
    if not isinstance(given, dict) or len(given) != 1 or not set(given) <= {"text", "image"}:
        raise ValueError(f'{name} takes texts, {{"text": "..."}} and {{"image": "<base64>"}}')
    if not isinstance(next(iter(given.values())), str):
        raise ValueError(f"{name}: a text or a base64 picture is a string")
    texts_of(given.get("text"), name)
    return given


def _known(content: dict, names) -> None:
    for name in content:
        if name not in names:
            near = difflib.get_close_matches(name[:40], names, 1)  # a name may be as long as a body
            meant = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names)}"
            raise ValueError(f"there is no field {name[:40]!r}{meant}")


def _number(name: str, value: Any, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ValueError(f"{name} must be a number from {least:g} to {most:g}")
    return float(value)


def _no_number(word: str):
    raise ValueError(f"{word} is no number of JSON")


__all__ = ["Embedding", "Limits", "Question", "parsed", "read_embedding", "read_question"]
