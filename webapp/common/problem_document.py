"""The JSON of problem details (RFC 9457)."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fedcore.errors import Fault

CONTENT_TYPE = "application/problem+json"


def document(status: int, detail: str, faults: Sequence[Fault] = ()) -> dict[str, Any]:
    """The JSON of one problem."""
    title = HTTPStatus(status).phrase
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": _clean(detail),
    }
    if faults:
        body["faults"] = [
            {"path": _clean(fault.path), "message": _clean(fault.message)} for fault in faults
        ]
    return body


def _clean(text: str) -> str:
    """Replaces lone surrogates, which UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode("utf-8")
