"""What the OpenAPI document says of uploads, which no Django view takes in."""

from __future__ import annotations

from typing import Any

from webapp.api.device.upload import CONTENT_TYPE

PATH = "/api/v1/device/assignments/{id}/update/{sha256}/"
OFFSET = {"description": "bytes that are here", "schema": {"type": "integer", "minimum": 0}}
LENGTH = {"description": "bytes of the whole update, once all of them are here"}


def _parameter(name: str, place: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": place, "required": True, "schema": schema, "description": text}


def _bytes(name: str, text: str) -> dict[str, Any]:
    return _parameter(name, "header", {"type": "integer", "minimum": 0}, text)


NAMED = [
    _parameter("id", "path", {"type": "string", "format": "uuid"}, "the assignment"),
    _parameter("sha256", "path", {"type": "string", "pattern": "^[0-9a-f]{64}$"}, "of the update"),
]
REFUSALS = {
    "400": "an offset or length that is no number",
    "401": "no token of an enrolled device",
    "404": "no assignment of this device",
    "408": "too slow; what came is kept",
    "409": "another offset than Upload-Offset of the answer, or an assignment that is over",
    "413": "more than announced, or than the model allows",
    "415": f"another Content-Type than {CONTENT_TYPE}",
    "416": "an offset beyond the end",
    "422": "other bytes than the hash says, or a frame that does not fit; they are thrown away",
    "423": "another request is sending this update",
    "429": "too many calls",
    "507": "the disk is full; what came is thrown away",
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
    """A hook of the document: the two calls by which an update comes in."""
    head = _operation(
        "head",
        "How many bytes of an update are here. All of them where this device has sent it before.",
        {
            "200": {
                "description": "Go on from Upload-Offset",
                "headers": {
                    "Upload-Offset": OFFSET,
                    "Upload-Length": {**LENGTH, "schema": OFFSET["schema"]},
                },
            }
        },
    )
    patch = _operation(
        "patch",
        "Bring bytes of an update from Upload-Offset on, in the words of tus 1.0; the last ones "
        "have it checked and stored. No byte is sent twice: an empty body finishes what is here.",
        {
            "204": {"description": "They are here", "headers": {"Upload-Offset": OFFSET}},
            **{status: {"description": text} for status, text in REFUSALS.items()},
        },
    )
    patch["parameters"] += [
        _bytes("Upload-Offset", "where these bytes begin"),
        _bytes("Upload-Length", "bytes of the whole update"),
    ]
    body = {"schema": {"type": "string", "format": "binary"}}
    patch["requestBody"] = {"required": True, "content": {CONTENT_TYPE: body}}
    result["paths"][PATH] = {"head": head, "patch": patch}
    return result
