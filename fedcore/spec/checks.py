"""Options and their checks: a value in, the cleaned value and a fault's text ('' if none) out."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, field
from typing import Any

Outcome = tuple[Any, str]
QUOTED_CHARACTERS = 80
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60


def quoted(value: Any) -> str:
    """A refused value as a fault quotes it; short, whatever came in."""
    try:
        text = _repr.repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        text = "a number of thousands of digits"
    return shortened(text)


def shortened(text: str) -> str:
    return text if len(text) <= QUOTED_CHARACTERS else f"{text[: QUOTED_CHARACTERS - 3]}..."


def parsed_number(word: str) -> float | None:
    """A number as a person writes it; None where the word is none."""
    try:
        return float(word)
    except ValueError:
        return None


@dataclass(frozen=True)
class Check:
    """A callable check that a form can ask for its choices and range."""

    run: Callable[[Any], Outcome]
    choices: tuple[str, ...] | None = None
    kind: str = "text"
    low: float | None = None
    high: float | None = None

    def __call__(self, value: Any) -> Outcome:
        return self.run(value)


def option(default: Any, check: Check, label: str, help: str = "", advanced: bool = False) -> Any:
    """One option of a specification; ``advanced`` ones are folded away in the form."""
    metadata = {"check": check, "label": label, "help": help, "advanced": advanced}
    return field(default=default, metadata=metadata)


def check_of(item: Field[Any]) -> Check:
    """The check declared with an option."""
    check: Check = item.metadata["check"]
    return check


def integer(low: int, high: int) -> Check:
    """An integer in [low, high]; 3.0 counts, 3.5 and True do not."""

    def run(value: Any) -> Outcome:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            return None, f"give a whole number, not {quoted(value)}"
        if not low <= value <= high:
            return None, f"give a whole number from {low} to {high}, not {quoted(value)}"
        return value, ""

    return Check(run, kind="whole", low=low, high=high)


def number(low: float, high: float, above: bool = False) -> Check:
    """A finite number in [low, high], or in (low, high] where ``above``."""

    def run(value: Any) -> Outcome:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None, f"give a number, not {quoted(value)}"
        # NaN is in no range; an integer beyond every float must not be made one.
        if not low <= value <= high or (above and value == low):
            edge = f"above {low:g}" if above else f"from {low:g}"
            return None, f"give a number {edge} to {high:g}, not {quoted(value)}"
        return float(value), ""

    return Check(run, kind="real", low=low, high=high)


def text(shortest: int, longest: int) -> Check:
    """A string of that many characters, without control characters."""

    def run(value: Any) -> Outcome:
        if not isinstance(value, str):
            return None, f"give text, not {quoted(value)}"
        if not shortest <= len(value) <= longest:
            return None, f"give {shortest} to {longest} characters, not {len(value)}"
        if not _printable(value):
            return None, "has control characters; remove them"
        return value, ""

    return Check(run)


def _printable(value: str) -> bool:
    """Without control characters and lone surrogates, which no database takes."""
    return not any(ord(char) < 32 or 0xD800 <= ord(char) <= 0xDFFF for char in value)


def one_of(*allowed: str) -> Check:
    """One name of a table."""

    def run(value: Any) -> Outcome:
        if value not in allowed or not isinstance(value, str):
            return None, f"unknown {quoted(value)}; choose one of {', '.join(allowed)}"
        return value, ""

    return Check(run, choices=allowed, kind="choice")


def names(allowed: Sequence[str] | None) -> Check:
    """A list of distinct names; from a table, and then not empty, where one is given."""

    def run(value: Any) -> Outcome:
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
            return None, f"give a list of names, not {quoted(value)}"
        if len(set(value)) != len(value):
            return None, "names something twice; name each once"
        unknown = [v for v in value if allowed is not None and v not in allowed]
        if unknown and allowed is not None:
            listed = shortened(", ".join(unknown))
            return None, f"unknown {listed}; choose from {', '.join(allowed)}"
        if allowed is not None and not value:
            return None, f"name at least one of {', '.join(allowed)}"
        if any(not 1 <= len(v) <= 100 for v in value):
            return None, "give names of 1 to 100 characters"
        if not all(_printable(v) for v in value):
            return None, "has control characters; remove them"
        return tuple(value), ""

    return Check(run, choices=tuple(allowed) if allowed is not None else None, kind="names")


def string_list() -> Check:
    """A list of words, also as one text with commas between them; what they mean is checked later.

    Numbers count as words, so that ``[4, 8]`` is what it looks like.
    """

    def run(value: Any) -> Outcome:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        plain = (str, int, float)
        if not isinstance(value, (list, tuple)) or not all(
            isinstance(item, plain) and not isinstance(item, bool) for item in value
        ):
            return None, f"give a list such as 4,8,16, not {quoted(value)}"
        words = tuple(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
        if any(not 1 <= len(item) <= 200 or not _printable(item) for item in words):
            return None, "give words of 1 to 200 characters"
        return words, ""

    return Check(run, kind="names")


def boolean() -> Check:
    """True or False, nothing that merely looks like it."""

    def run(value: Any) -> Outcome:
        if not isinstance(value, bool):
            return None, f"give true or false, not {value!r}"
        return value, ""

    return Check(run, kind="truth")
