"""OpenAPI description of uploads, which no Django view handles."""

from __future__ import annotations

from typing import Any

from webapp.api.device.upload import CONTENT_TYPE

PATH = "/api/v1/device/assignments/{id}/update/{sha256}/"
OFFSET = {"description": "bytes that have arrived", "schema": {"type": "integer", "minimum": 0}}
LENGTH = {"description": "bytes of the complete update, once it has arrived"}


def _parameter(name: str, place: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": place, "required": True, "schema": schema, "description": text}


def _bytes(name: str, text: str) -> dict[str, Any]:
    return _parameter(name, "header", {"type": "integer", "minimum": 0}, text)


NAMED = [
    _parameter("id", "path", {"type": "string", "format": "uuid"}, "the assignment"),
    _parameter("sha256", "path", {"type": "string", "pattern": "^[0-9a-f]{64}$"}, "of the update"),
]
REFUSALS = {
    "400": "an offset or length is not a number",
    "401": "the token is not of an enrolled device",
    "404": "no such assignment of this device",
    "408": "too slow; received bytes are kept",
    "409": "wrong offset (Upload-Offset of the answer is right), or the assignment is over",
    "413": "more bytes than announced, or than the model allows",
    "415": f"the Content-Type is not {CONTENT_TYPE}",
    "416": "the offset is beyond the end",
    "422": "wrong hash, or an invalid frame; the bytes are discarded",
    "423": "another request is sending this update",
    "429": "too many calls",
    "507": "the disk is full; received bytes are discarded",
}


def _operation(name: str, text: str, answers: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": f"device_assignments_update_{name}",
        "description": text,
        "tags": ["device"],
        "security": [{"deviceToken": []}],
        "parameters": list(NAMED),
        "responses": answers,
    }


def add_upload(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Postprocessing hook: adds the two calls of an upload."""
    head = _operation(
        "head",
        "Number of bytes of an update that have arrived: all if this device has sent it before.",
        {
            "200": {
                "description": "Resume from Upload-Offset",
                "headers": {
                    "Upload-Offset": OFFSET,
                    "Upload-Length": {**LENGTH, "schema": OFFSET["schema"]},
                },
            }
        },
    )
    patch = _operation(
        "patch",
        "Append bytes of an update at Upload-Offset (tus 1.0). The last bytes complete it: it is "
        "checked and stored. An empty body completes an update whose bytes have all arrived.",
        {
            "204": {"description": "Received", "headers": {"Upload-Offset": OFFSET}},
            **{status: {"description": text} for status, text in REFUSALS.items()},
        },
    )
    patch["parameters"] += [
        _bytes("Upload-Offset", "where these bytes begin"),
        _bytes("Upload-Length", "bytes of the complete update"),
    ]
    body = {"schema": {"type": "string", "format": "binary"}}
    patch["requestBody"] = {"required": True, "content": {CONTENT_TYPE: body}}
    result["paths"][PATH] = {"head": head, "patch": patch}
    return result
