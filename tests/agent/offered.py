"""An assignment of the stand-in's site, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fedcore.spec.job import JobSpec


@dataclass
class Offered:
    id: str
    task: str
    job_name: str
    weights: bytes
    dataset: str = "law"
    spec: JobSpec = field(default_factory=JobSpec)
    within_answer: bool = False  # the weights travel with the description of the work
    phase: str = "offered"
    update: bytes = b""
    part: bytes = b""
    report: dict[str, Any] = field(default_factory=dict)
    failure: dict[str, Any] = field(default_factory=dict)
    deadline_at: str | None = None
    accepted_at: float = 0.0
    ended_at: float = 0.0
