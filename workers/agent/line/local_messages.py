"""What the agent's processes say to each other: JSON lines over a Unix socket of the main one.

The training process sends frames for the site; the Celery worker takes offers.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import msgspec
from msgspec import Raw, Struct

from fedcore.formats.line_bodies import Envelope

LIMIT_BYTES = 2**18


class LocalKind(str, Enum):
    """Requests that concern this device alone; the other kinds are those of the site's frames."""

    START = "start"  # of a training process; answered by StartAnswer
    OFFERS = "offers"  # the worker takes offers from now on
    FINISHED = "finished"  # the worker has done with an offer
    AGAIN = "again"  # the training process died with it


class Request(Struct, omit_defaults=True):
    """``id`` is repeated by the reply; ``tag`` names the offer of FINISHED and AGAIN."""

    kind: str
    id: int = 0
    tag: int = 0
    body: Raw = Raw(b"{}")


class Reply(Struct, omit_defaults=True):
    """``status`` is that of an HTTP answer; 503 while the site cannot be reached."""

    id: int
    status: int = 200
    body: Raw = Raw(b"{}")


class StartAnswer(Struct):
    """What a training process needs beside its settings."""

    boot_id: str
    profile: dict[str, Any]


class Push(Struct):
    """An offer for the worker."""

    tag: int
    offer: Envelope


REQUEST = msgspec.json.Decoder(Request)
REPLY = msgspec.json.Decoder(Reply)
PUSH = msgspec.json.Decoder(Push)
START_ANSWER = msgspec.json.Decoder(StartAnswer)
_ENCODER = msgspec.json.Encoder(uuid_format="canonical")


def line_of(message: Struct) -> bytes:
    """JSON has no line break of its own in this encoding."""
    return _ENCODER.encode(message) + b"\n"
