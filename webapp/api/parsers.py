"""A JSON parser that accepts only what every database can store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser

from fedcore.errors import Fault
from webapp.api.problems import Faulty


class StrictJSONParser(JSONParser):
    """Refuses NUL, lone surrogates, deep nesting and NaN with 400."""

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
            yield Fault(path, "has a NUL or a lone surrogate; remove it")
    elif isinstance(value, dict):
        for key, inner in value.items():
            where = f"{path}.{key}" if path else key
            yield from _faults(key, where)
            yield from _faults(inner, where)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _faults(inner, f"{path}.{index}" if path else str(index))


def storable(text: str) -> bool:
    """Whether the text can be stored by PostgreSQL and encoded in UTF-8."""
    return "\0" not in text and not any(0xD800 <= ord(char) <= 0xDFFF for char in text)
