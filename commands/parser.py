"""A parser of command lines whose errors are one line, and which refuses flags that would change nothing."""

import argparse
import difflib
import re
import sys
from collections.abc import Callable
from typing import Any

from ..data.arguments import underscored
from ..files.outputs import output_file
from .quiet import hush

STDOUT = "-"  # what `--json` without a file means


class Parser(argparse.ArgumentParser):
    """The command line of one verb; every verb has `--quiet` and `--verbose`.

    An argument added with `add_place` is given by position or by name: `vsehub evaluate MODEL` or
    `vsehub evaluate --model MODEL`. Flags may be written with dashes, too (`--image-root`).

    Args:
        verb: its name.
        about: what it does, in one sentence.
        example: a typical command line.
    """

    def __init__(self, verb: str, about: str, example: str):
        super().__init__(
            f"vsehub {verb}",
            description=f"{about}\n\nexample: vsehub {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
        )
        self.places: list[tuple[str, bool]] = []  # name, whether it is required
        self.joins = False  # whether the last one takes all words that are left
        self.first = ""  # the flag that takes the words before all flags, see `words_first`
        self.needs: list[tuple[str, str, Callable]] = []  # of `add_need`
        self.rivals: list[tuple[str, str]] = []  # of `add_rivals`
        self.voids: list[tuple[str, Callable, str, str]] = []  # of `add_void`
        self.place_group = self.add_argument_group("arguments, by place or by name")
        self.flag_group = self.add_argument_group("flags")
        self.flag_group.add_argument("-h", "--help", action="help", help="show this text")
        self.flag_group.add_argument("--quiet", action="store_true", help="print results only: no progress, no remarks")
        self.flag_group.add_argument("--verbose", action="store_true", help="let the libraries speak for themselves")

    def add_place(self, name: str, help: str, required: bool = True, joins: bool = False):
        """Add an argument that is given by its place among such arguments, or as `--name`.

        Args:
            name: of the argument.
            help: a line for `--help`.
            required: whether it must be given.
            joins: it is the last one, and takes all words that are left, as a text that was not quoted.
        """
        self.places.append((name, required))
        self.joins = joins
        self.place_group.add_argument(f"--{name}", metavar=name.upper(), help=help)

    def add(self, *names, **options):
        """Add a flag; options are those of `argparse`."""
        self.flag_group.add_argument(*names, **options)

    def add_need(self, flag: str, what: str, met: Callable[[argparse.Namespace], Any]):
        """Refuse a flag that is given where it changes nothing.

        Args:
            flag: its name, without dashes.
            what: what it needs, for the error: "--tile".
            met: whether that is there, in a parsed command line.
        """
        self.needs.append((flag, what, met))

    def add_rivals(self, flag: str, other: str):
        """Refuse two flags that are given together: one of them would change nothing."""
        self.rivals.append((flag, other))

    def add_void(self, names: str, where: Callable[[argparse.Namespace], Any], why: str, remedy: str = "leave it out"):
        """Refuse flags that another flag, or its absence, makes void; one that has its default value passes.

        Args:
            names: of the flags.
            where: whether they are void, in a parsed command line.
            why: what makes them so, for the error: `without --api_base`.
            remedy: what to do.
        """
        self.voids.append((names, where, why, remedy))

    def parse_args(  # type: ignore[override]  # argparse's is overloaded for namespaces of one's own
        self, args: list[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse a command line; with `--quiet`, silence the libraries.

        Raises:
            ValueError: a flag that does not exist, a value out of range, an argument that is missing or too many.
            OSError: `--json FILE` names something that cannot be written.
        """
        words = list(sys.argv[1:] if args is None else args)
        end = words.index("--") if "--" in words else len(words)
        self._set_usage()
        parsed, left = self.parse_known_args([underscored(word) for word in words[:end]], namespace)
        for word in left:
            if word.startswith("-") and not re.fullmatch(r"-|-\d.*", word):
                self.error(f"there is no flag {word.partition('=')[0]}{self._meant(word)}")
        self._fill_places(parsed, left + words[end + 1 :])
        self._refuse_void(parsed, words[:end])
        if getattr(parsed, "json", None) not in (None, STDOUT):
            output_file(parsed.json)
        if parsed.quiet:
            hush()
        return parsed

    def _refuse_void(self, parsed: argparse.Namespace, words: list[str]):
        """Refuse flags that are given and would change nothing."""
        unset = argparse.Namespace(**{action.dest: None for action in self._actions})  # no default is None here
        given = vars(self.parse_known_args([underscored(word) for word in words], unset)[0])
        for flag, other in self.rivals:
            if given[flag] is not None and given[other] is not None:
                self.error(f"--{flag} and --{other} contradict each other: leave one of them out")
        for flag, what, met in self.needs:
            if given[flag] is not None and not met(parsed):
                self.error(f"--{flag} changes nothing without {what}: add that, or leave --{flag} out")
        for names, where, why, remedy in self.voids:
            for name in names.split() if where(parsed) else ():
                if getattr(parsed, name) != self.get_default(name):
                    self.error(f"--{name} {getattr(parsed, name)} has no effect {why}: {remedy}")

    def _fill_places(self, parsed: argparse.Namespace, words: list[str]):
        """Give the words without a flag, in order, to the arguments that were not given by name."""
        named = [name for name, _ in self.places if getattr(parsed, name) is not None]
        free = [name for name, _ in self.places if name not in named]
        if self.joins and len(words) > len(free) > 0 and free[-1] == self.places[-1][0]:
            words = [*words[: len(free) - 1], " ".join(words[len(free) - 1 :])]
        for name, word in zip(free, words):
            setattr(parsed, name, word)
        if len(words) > len(free):
            rest = " ".join(words[len(free) :])
            if self.first:
                self.error(
                    f"{rest!r} stands behind other flags: put it before all of them, or write {self.first} {rest}"
                )
            if len(words) <= len(self.places):
                self.error(f"the {self.places[len(words) - 1][0]} is given twice: once is enough")
            self.error(f"too many words, from {rest!r} on; quote a text of several words")
        missing = [name.upper() for name, required in self.places if required and getattr(parsed, name) is None]
        if missing:
            self.error(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; usage: {self.usage}")

    def _meant(self, word: str) -> str:
        near = difflib.get_close_matches(word.partition("=")[0], self._option_string_actions, 1)
        return f"; did you mean {near[0]}?" if near else f"; `{self.prog} --help` lists them"

    def _set_usage(self):
        places = [name.upper() if required else f"[{name.upper()}]" for name, required in self.places]
        needed = [f"{a.option_strings[0]} {a.dest.upper()}" for a in self._actions if a.required and a.option_strings]
        self.usage = " ".join([self.prog, *places, *needed, "[--flag ...]"])

    def error(self, message: str):
        """Raise what `vsehub` prints as one line.

        Raises:
            ValueError: always.
        """
        raise ValueError(message)


def words_first(words: list[str], flag: str) -> list[str]:
    """A command line whose words before the first flag are given to `flag`, which takes several."""
    first = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    return [flag, *words] if first else words
