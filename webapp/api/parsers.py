"""JSON that every database can store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser

from fedcore.errors import Fault
from webapp.api.problems import Faulty


class StrictJSONParser(JSONParser):
    """Refuses, with 400, what would fail later: NUL, lone surrogates, absurd nesting and NaN."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        try:
            value = super().parse(stream, media_type, dict(parser_context or {}))
            faults = list(_faults(value, ""))
        except RecursionError:
            raise ParseError("the JSON is nested too deeply; flatten it") from None
        if faults:
            raise Faulty(faults)
        return value


def _faults(value: Any, path: str) -> Iterator[Fault]:
    if isinstance(value, str):
        if not storable(value):
            yield Fault(path, "has a NUL or half of a surrogate pair; remove it")
    elif isinstance(value, dict):
        for key, inner in value.items():
            where = f"{path}.{key}" if path else key
            yield from _faults(key, where)
            yield from _faults(inner, where)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _faults(inner, f"{path}.{index}" if path else str(index))


def storable(text: str) -> bool:
    """Whether PostgreSQL and UTF-8 both take this text."""
    return "\0" not in text and not any(0xD800 <= ord(char) <= 0xDFFF for char in text)
