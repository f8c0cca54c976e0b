"""The wire part of an offer: codec chain and error feedback (docs/reference/protocol.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from fedcore.formats.codec_chain import PLAIN, Chain, parse

SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class AcceptedUpdate:
    """A device's newest update that the server took: its round, SHA-256 and chain."""

    round: int
    update: str
    chain: Chain = PLAIN

    @property
    def file(self) -> str:
        """The name of the residual that this update left."""
        return f"{self.round}-{self.update}.safetensors"


@dataclass(frozen=True)
class WireOffer:
    """How the update is to be written. ``taken``: where error feedback goes on from.

    ``jobs`` are the device's jobs that are not over; None where that was not said.
    """

    chain: Chain = PLAIN
    taken: AcceptedUpdate | None = None
    jobs: frozenset[str] | None = None

    def to_dict(self) -> dict[str, Any]:
        taken = self.taken
        feedback = taken and {
            "round": taken.round,
            "update": taken.update,
            "chain": str(taken.chain),
        }
        jobs = None if self.jobs is None else sorted(self.jobs)
        return {"chain": str(self.chain), "feedback": feedback, "jobs": jobs}

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> WireOffer:
        """Raises WireError for a chain this version does not know, ValueError for nonsense."""
        feedback, jobs = values.get("feedback"), values.get("jobs")
        return cls(
            parse(str(values.get("chain", PLAIN))),
            _taken(feedback) if feedback else None,
            None if jobs is None else frozenset(str(UUID(str(job))) for job in jobs),
        )


def _taken(values: Mapping[str, Any]) -> AcceptedUpdate:
    chain = parse(str(values["chain"]))
    return AcceptedUpdate(int(values["round"]), sha256_of(values["update"]), chain)


@dataclass(frozen=True)
class StepOffer:
    """A step that leads from the model ``base`` (SHA-256) to the one that is due."""

    sha256: str
    size_bytes: int
    base: str

    @classmethod
    def read(cls, values: Mapping[str, Any] | None) -> StepOffer | None:
        if not values:
            return None
        size = int(values["size_bytes"])
        return cls(sha256_of(values["sha256"]), size, sha256_of(values["base"]))


def sha256_of(value: Any) -> str:
    """The text, if it is a SHA-256: it becomes the name of a file."""
    if not SHA256.fullmatch(str(value)):
        raise ValueError(f"{str(value)[:80]!r} is no SHA-256")
    return str(value)
