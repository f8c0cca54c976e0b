"""Bodies of the line's frames, one Struct per kind (docs/reference/protocol.md, "The line").

Devices are not trusted: every field is bounded, and decoding checks the bounds. Lengths are in
characters unless they say bytes. Unknown fields are ignored, so that a version may add some.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta, Raw, Struct

from fedcore.formats.line_messages import POLL_S, MessageError, read

MAX_SAMPLES = 500
SMALL_BYTES = 32_768  # models and updates up to this size travel within a message
MAX_OBJECT_BYTES = 20_000  # of a profile, of the datasets together, of the metrics

Identifier = Annotated[str, Meta(min_length=1, max_length=64)]
ShortText = Annotated[str, Meta(max_length=100)]
Reason = Annotated[str, Meta(max_length=2000)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
ByteCount = Annotated[int, Meta(ge=0, le=2**62)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class UpKind(str, Enum):
    """Frames of a device."""

    HELLO = "hello"
    ACCEPT = "accept"
    PROGRESS = "progress"
    REPORT = "report"
    FAIL = "fail"
    REFUSE = "refuse"
    MEASUREMENTS = "measurements"
    HEALTH = "health"


class DownKind(str, Enum):
    """Frames of the site. Offers and cancellations are signed envelopes."""

    OFFER = "offer"
    CANCEL = "cancel"
    INTERVAL = "interval"
    NOTICE = "notice"


class DatasetBody(Struct, frozen=True):
    """A dataset of the device: sizes and column names, never text."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    examples: Count
    domain: ShortText = ""
    size_bytes: ByteCount = 0
    columns: Annotated[list[Annotated[str, Meta(max_length=200)]], Meta(max_length=200)] = []


class Hello(Struct, frozen=True):
    """The first frame of every line. ``boot_id`` is new at each start of the agent."""

    boot_id: Identifier
    agent_version: Annotated[str, Meta(max_length=40)] = ""
    profile: Raw = Raw(b"{}")
    datasets: Raw = Raw(b"[]")

    def read_profile(self) -> dict[str, Any]:
        return read(small(self.profile, "profile"), _OBJECT)

    def read_datasets(self) -> list[DatasetBody]:
        """Raises MessageError for more than 100 datasets, and for a name that comes twice."""
        datasets = read(small(self.datasets, "datasets"), _DATASETS)
        if len({item.name for item in datasets}) != len(datasets):
            raise MessageError("the message is not valid: name each dataset once")
        return datasets


class Accept(Struct, frozen=True):
    assignment: UUID


class Progress(Struct, frozen=True):
    assignment: UUID
    phase: Literal["training", "uploading"]


class ReportBody(Struct, frozen=True):
    """The result. ``update``: SHA-256 of the update, None after an evaluation.

    ``data``: the update itself if it has at most SMALL_BYTES; larger ones are uploaded before.
    """

    assignment: UUID
    update: Sha256 | None
    examples: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    bytes_up: ByteCount = 0
    bytes_down: ByteCount = 0
    metrics: Raw = Raw(b"{}")
    data: Annotated[bytes, Meta(max_length=SMALL_BYTES)] | None = None

    def read_metrics(self) -> dict[str, Any]:
        return read(small(self.metrics, "metrics"), _OBJECT)


class FailBody(Struct, frozen=True):
    """``retryable``: another attempt may succeed.

    ``micro_batch``: with ``out_of_memory``, the examples that it trained at a time; 0: not known.
    """

    assignment: UUID
    reason: Reason
    retryable: bool = False
    step: Count | None = None
    out_of_memory: bool = False
    micro_batch: Count = 0


class Refuse(Struct, frozen=True):
    """The device can never do the assignment."""

    assignment: UUID
    reason: Reason


class ActivityBody(Struct, frozen=True):
    """What the device is doing; ``assignment`` is None where it does nothing."""

    assignment: UUID | None = None
    phase: Annotated[str, Meta(max_length=40)] = ""
    step: Count = 0
    steps_total: Count = 0


class SampleBody(Struct, frozen=True):
    """Measurements over one interval. ``seq`` numbers the samples of a device."""

    seq: Annotated[int, Meta(ge=1, le=2**62)]
    at: Annotated[datetime, Meta(tz=True)]
    values: dict[str, Any]
    assignment: UUID | None = None


class MeasurementsBody(Struct, frozen=True):
    activity: ActivityBody = ActivityBody()
    samples: Annotated[list[SampleBody], Meta(max_length=MAX_SAMPLES)] = []


class HealthBody(Struct, frozen=True):
    """The device's own state. ``clock_ahead_s``: its clock minus the site's."""

    disk_free_bytes: ByteCount
    disk_full: bool = False
    store_failed: bool = False
    clock_ahead_s: Annotated[float, Meta(ge=-1e10, le=1e10)] = 0.0


class Envelope(Struct, frozen=True):
    """A signed message: ``signature`` is base64 of Ed25519 over the bytes of ``body``."""

    body: Annotated[str, Meta(max_length=4096)]
    signature: Annotated[str, Meta(max_length=200)]


class Interval(Struct, frozen=True):
    """Seconds until the next measurements."""

    interval_s: Annotated[float, Meta(gt=0, le=3600)]


class Notice(Struct, frozen=True):
    """A line for the device's log."""

    text: Reason


class HelloAnswer(Struct, frozen=True):
    """``time``: the site's clock. The agent numbers samples from at least ``next_sample_seq``.

    ``successions``: how earlier signing keys of the site led to its current one, oldest first.
    """

    device_id: int
    name: str
    role: str
    next_sample_seq: int
    interval_s: float
    time: datetime
    successions: list[Envelope] = []


class PollRequest(Struct, frozen=True):
    """One long poll, for a device whose proxies let no WebSocket through.

    ``line``: the number that the first poll of the line was answered with, 0 in that one.
    ``boot_id``: that of its hello. ``queued``: assignments whose offers the device has. The site
    waits up to ``wait_s`` seconds for something to tell.
    """

    line: Annotated[int, Meta(ge=0, le=2**62)] = 0
    boot_id: Annotated[str, Meta(max_length=64)] = ""
    queued: Annotated[list[UUID], Meta(max_length=1000)] = []
    wait_s: Annotated[float, Meta(ge=0, le=POLL_S)] = 0.0
    messages: Annotated[list[Raw], Meta(max_length=100)] = []


class PollAnswer(Struct, frozen=True):
    """``line`` goes into the next poll."""

    line: int
    messages: list[Raw]


class RefusalBody(Struct, frozen=True):
    """The body of an answer that is not 2xx: what is wrong and what to do."""

    detail: str


_OBJECT: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])
_DATASETS = msgspec.json.Decoder(Annotated[list[DatasetBody], Meta(max_length=100)])
_UP = {
    UpKind.HELLO: Hello,
    UpKind.ACCEPT: Accept,
    UpKind.PROGRESS: Progress,
    UpKind.REPORT: ReportBody,
    UpKind.FAIL: FailBody,
    UpKind.REFUSE: Refuse,
    UpKind.MEASUREMENTS: MeasurementsBody,
    UpKind.HEALTH: HealthBody,
}
_DOWN = {
    DownKind.OFFER: Envelope,
    DownKind.CANCEL: Envelope,
    DownKind.INTERVAL: Interval,
    DownKind.NOTICE: Notice,
}
UpBody = Hello | Accept | Progress | ReportBody | FailBody | Refuse | MeasurementsBody | HealthBody
DownBody = Envelope | Interval | Notice
UP_DECODERS: Mapping[str, msgspec.json.Decoder[UpBody]] = {
    kind.value: msgspec.json.Decoder(body) for kind, body in _UP.items()
}
DOWN_DECODERS: Mapping[str, msgspec.json.Decoder[DownBody]] = {
    kind.value: msgspec.json.Decoder(body) for kind, body in _DOWN.items()
}
POLL_REQUEST = msgspec.json.Decoder(PollRequest)
POLL_ANSWER = msgspec.json.Decoder(PollAnswer)
HELLO = msgspec.json.Decoder(Hello)
HELLO_ANSWER = msgspec.json.Decoder(HelloAnswer)
REFUSAL = msgspec.json.Decoder(RefusalBody)


def small(raw: Raw, field: str) -> Raw:
    """The same bytes; raises MessageError above MAX_OBJECT_BYTES."""
    if len(bytes(raw)) > MAX_OBJECT_BYTES:
        raise MessageError(f"{field} has more than {MAX_OBJECT_BYTES} bytes; send less")
    return raw


def read_up(kind: str, body: Raw) -> UpBody:
    """The body of a device's frame. Raises MessageError, also for an unknown kind."""
    decoder = UP_DECODERS.get(kind)
    if decoder is None:
        raise MessageError(f"the kind {kind[:40]!r} is unknown")
    return read(body, decoder)


def read_down(kind: str, body: Raw) -> DownBody | None:
    """The body of a frame of the site; None for a kind that a later version has added."""
    decoder = DOWN_DECODERS.get(kind)
    return read(body, decoder) if decoder else None
