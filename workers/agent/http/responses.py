"""What small responses of the site say."""

from __future__ import annotations

import json
from typing import Any

from fedcore.errors import ServerUnavailable
from workers.agent.http.requests import ServerResponse

LONGEST_WAIT_S = 300.0  # for a server that asks to come back later


def is_web_page(response: ServerResponse) -> bool:
    """The site answers devices with JSON or bytes, never with HTML."""
    return "html" in response.headers.get("content-type", "") or response.body[:1] == b"<"


def wait_of(response: ServerResponse) -> float:
    """Seconds after which to ask again; 0 where the answer does not say."""
    return min(float(response.integer("retry-after") or 0), LONGEST_WAIT_S)


def json_object(response: ServerResponse) -> dict[str, Any]:
    try:
        values = json.loads(response.body)
    except ValueError as error:
        raise ServerUnavailable("the answer is not JSON; is this an Edgewise server?") from error
    return values if isinstance(values, dict) else {}


def reason_of(response: ServerResponse) -> str:
    """A problem document's text in one line; otherwise the status."""
    try:
        values = json.loads(response.body)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        return f"the server answered {response.status} {response.reason}".strip()
    texts = [str(values[key]) for key in ("detail", "title") if values.get(key)][:1]
    standard = {"type", "title", "status", "detail", "instance"}
    texts += [f"{key}: {item}" for key, item in values.items() if key not in standard]
    return "; ".join(texts) or f"the server answered {response.status}"
