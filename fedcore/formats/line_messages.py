"""Messages of the line between a device and the site (docs/reference/protocol.md, "The line").

A message is one JSON object of at most ``MAX_MESSAGE_BYTES``. It has one or more of these parts.

- A frame: ``{"n": 3, "kind": "report", "body": {...}}``. Each side numbers its frames from 1 on
  every line.
- An answer: ``{"re": 3, "status": 409, "body": {...}}``. The status is that of an HTTP answer.
- An acknowledgement: ``{"ack": 3}``. All frames up to this number are committed, and those without
  an answer succeeded.

A frame without answer and acknowledgement is sent again on the next line, so each may arrive twice.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from fedcore.errors import EdgewiseError

MAX_MESSAGE_BYTES = 65_536
# Versions of the messages, the newest first. A WebSocket offers them as subprotocols.
VERSIONS = (1,)
SUBPROTOCOL = "edgewise.line."
PATH = "/ws/device/"
PING_S = 30.0  # from an answered ping of the site to its next one
PONG_S = 35.0  # a device that has not answered a ping within this time is disconnected
POLL_PATH = "/api/v1/device/line/"
POLL_S = 25.0  # of one long poll, below the limits of usual proxies
MAX_POLL_BYTES = 4 * MAX_MESSAGE_BYTES
SILENT_S = 75.0  # a device that has heard nothing for this long connects again

# Close codes of the WebSocket (RFC 6455, section 7.4.2: 4000 to 4999 are private).
REPLACED = 4001  # a newer line of the same device
REVOKED = 4003
HELLO_AGAIN = 4009  # the site does not know this start of the agent
MALFORMED = 4400
TOO_MUCH = 4429

Number = Annotated[int, Meta(ge=1, le=2**53 - 1)]
T = TypeVar("T")


class MessageError(EdgewiseError):
    """Bytes that are no message of this protocol, or a body with a wrong field."""


class Message(Struct, frozen=True, omit_defaults=True):
    """A message as it travels. ``n``, ``re`` and ``ack`` are None where the part is absent."""

    n: Number | None = None
    kind: str = ""
    re: Number | None = None
    status: Annotated[int, Meta(ge=200, lt=600)] = 200
    body: Raw = Raw(b"{}")
    ack: Number | None = None

    @property
    def succeeded(self) -> bool:
        return self.status < 300


_ENCODER = msgspec.json.Encoder(uuid_format="canonical")
_DECODER = msgspec.json.Decoder(Message)


def encode(message: Message) -> bytes:
    """Raises MessageError above MAX_MESSAGE_BYTES."""
    data = _ENCODER.encode(message)
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageError(f"the message has {len(data)} bytes; the limit is {MAX_MESSAGE_BYTES}")
    return data


def body_of(value: Any) -> Raw:
    """A body for ``Message``: a Struct or a dict as JSON."""
    return Raw(_ENCODER.encode(value))


def decode(data: bytes | str) -> Message:
    """Parse a message of the other side, which is not trusted. Raises MessageError."""
    raw = data.encode() if isinstance(data, str) else data
    if len(raw) > MAX_MESSAGE_BYTES:
        raise MessageError(f"the message has {len(raw)} bytes; the limit is {MAX_MESSAGE_BYTES}")
    if b"\\u0000" in raw:  # PostgreSQL stores no NUL character
        raise MessageError("the message has a NUL character")
    message = read(raw, _DECODER)
    if message.n is None and message.re is None and message.ack is None:
        raise MessageError("the message has neither n, re nor ack")
    return message


def read(raw: bytes | Raw, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode and check. Raises MessageError, whose text names the field."""
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise MessageError(f"the message is not valid: {error}") from error


def subprotocols() -> list[str]:
    """What a device offers in its upgrade request, the newest first."""
    return [f"{SUBPROTOCOL}{version}" for version in VERSIONS]


def agreed_version(offered: list[str]) -> int | None:
    """The newest version that both sides know; None where there is none."""
    known = {f"{SUBPROTOCOL}{version}": version for version in VERSIONS}
    return max((known[name] for name in offered if name in known), default=None)


def is_newer(offered: list[str]) -> bool:
    """Whether a device that shares no version with this side is the newer one of the two."""
    numbers = [name.removeprefix(SUBPROTOCOL) for name in offered if name.startswith(SUBPROTOCOL)]
    return any(text.isdecimal() and int(text) > VERSIONS[0] for text in numbers)
