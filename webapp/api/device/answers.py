"""Answers of the device API (docs/reference/protocol.md)."""

from __future__ import annotations

from typing import Any, TypedDict

from webapp.jobs.artefacts.update_format import ModelReference
from webapp.jobs.lifecycle.cluster_folds import FoldInput


class DeviceIdentity(TypedDict):
    id: int
    name: str
    role: str


class CancelJson(TypedDict):
    """An assignment that the device must stop, and why."""

    assignment: str
    reason: str


class HelloAnswer(TypedDict):
    """``interval_s``: until the next measurements."""

    device: DeviceIdentity
    next_sample_seq: int
    interval_s: float
    broker_url: str
    cancel: list[CancelJson]


class MeasurementsAnswer(TypedDict):
    acked_seq: int
    interval_s: float
    cancel: list[CancelJson]


class ArtefactReference(TypedDict):
    sha256: str
    size_bytes: int


# The key ``global`` is a Python keyword.
AcceptAnswer = TypedDict(
    "AcceptAnswer",
    {
        "assignment": str,
        "job": str,
        "job_name": str,
        "round": int,
        "task": str,
        "attempt": int,
        "slot": int,
        "dataset": str,
        "spec": dict[str, Any],
        "tailoring": dict[str, Any],
        "model_fingerprint": str,
        "global": ModelReference,
        "state": ArtefactReference | None,
        "wire": dict[str, Any],
        "lease_s": float,
        "deadline_at": str | None,
        "draw": int,
        "max_update_bytes": int,
        "fold": FoldInput | None,
    },
)


class EmptyAnswer(TypedDict):
    """Progress, reports, failures and refusals are acknowledged with ``{}``."""
