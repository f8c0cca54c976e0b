"""The work that the server hands to this device: one assignment of a job's round.

Values come from the answer to ``accept`` (docs/reference/protocol.md). Ids and hashes become file
names here, so they are parsed as what they claim to be.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from fedcore.formats.line_messages import body_of
from fedcore.formats.wire_offer import StepOffer, WireOffer, sha256_of
from fedcore.spec.job import JobSpec
from fedcore.spec.overrides import for_evaluation, tailored
from fedcore.spec.parse import load_spec
from workers.agent.http.server_clock import seconds_of


@dataclass(frozen=True)
class ClusterUpdate:
    """An update to fold: its bytes, the slot it comes from, and its weight (examples)."""

    sha256: str
    size: int
    slot: int
    examples: int

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> ClusterUpdate:
        return cls(
            sha256_of(values["sha256"]),
            int(values["size_bytes"]),
            int(values["slot"]),
            int(values["examples"]),
        )


@dataclass(frozen=True)
class FoldRequest:
    """The cluster's updates that this device folds into one. ``shapes`` are those of each."""

    shapes: dict[str, tuple[int, ...]]
    updates: tuple[ClusterUpdate, ...]

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> FoldRequest:
        shapes = {
            str(name): tuple(int(side) for side in shape)
            for name, shape in values["shapes"].items()
        }
        return cls(shapes, tuple(ClusterUpdate.read(item) for item in values["updates"]))

    @property
    def examples(self) -> int:
        return sum(update.examples for update in self.updates)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(update.sha256 for update in self.updates)

    def gather(self, fetch: Callable[[str, int], Path]) -> list[Path]:
        """The files of the updates, in their order."""
        return [fetch(update.sha256, update.size) for update in self.updates]


@dataclass(frozen=True)
class AssignedWork:
    """One assignment. ``deadline`` is in seconds since 1970.

    ``spec`` is the job with this device's overrides. ``state`` is the server's strategy state
    (SHA-256 and bytes), where the strategy shares it. ``draw`` counts earlier trainings on the
    same weights, so that each draws its own order of examples. ``global_data`` are the weights
    themselves if the answer carried them, and ``answer_bytes`` is then the answer's size.
    """

    assignment: str
    job: str
    job_name: str
    round: int
    task: str
    slot: int
    dataset: str
    spec: JobSpec
    global_sha256: str
    global_size: int
    deadline: float | None
    max_update_bytes: int
    draw: int = 0
    wire: WireOffer = field(default_factory=WireOffer)
    step: StepOffer | None = None
    state: tuple[str, int] | None = None
    fold_request: FoldRequest | None = None
    global_data: bytes | None = field(default=None, repr=False)
    answer_bytes: int = 0

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> AssignedWork:
        """Raises SpecError where this agent does not understand the job's specification."""
        overrides = values.get("tailoring") or {}
        if values["task"] == "evaluate":
            overrides = for_evaluation(overrides)
        state, data = values.get("state"), values["global"].get("data")
        return cls(
            assignment=str(UUID(str(values["assignment"]))),
            job=str(UUID(str(values["job"]))),
            job_name=str(values["job_name"]),
            round=int(values["round"]),
            task=str(values["task"]),
            slot=int(values["slot"]),
            dataset=str(values["dataset"]),
            spec=tailored(load_spec(values["spec"]), overrides),
            global_sha256=sha256_of(values["global"]["sha256"]),
            global_size=int(values["global"]["size_bytes"]),
            deadline=seconds_of(values["deadline_at"]) if values.get("deadline_at") else None,
            max_update_bytes=int(values["max_update_bytes"]),
            draw=int(values.get("draw", 0)),
            wire=WireOffer.read(values.get("wire") or {}),
            step=StepOffer.read(values["global"].get("step")),
            state=(sha256_of(state["sha256"]), int(state["size_bytes"])) if state else None,
            fold_request=FoldRequest.read(values["fold"]) if values.get("fold") else None,
            global_data=base64.b64decode(data, validate=True) if data is not None else None,
            answer_bytes=len(bytes(body_of(values))) if data is not None else 0,
        )

    @property
    def update_meta(self) -> dict[str, str]:
        """The metadata of the update's frame; the same at every attempt of a round."""
        return {
            "kind": "update",
            "job": self.job,
            "round": str(self.round),
            "base": self.global_sha256,
            "slot": str(self.slot),
        }
