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
    """A device's newest update that the server accepted: its round, SHA-256 and chain."""

    round: int
    update: str
    chain: Chain = PLAIN

    @property
    def file(self) -> str:
        """File name of the residual (error feedback) of this update."""
        return f"{self.round}-{self.update}.safetensors"

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> AcceptedUpdate:
        chain = parse(str(values["chain"]))
        return cls(int(values["round"]), sha256_of(values["update"]), chain)


@dataclass(frozen=True)
class WireOffer:
    """How to encode the update. ``accepted``: the update whose residual error feedback adds.

    ``jobs``: the device's jobs that have not ended; None if the server did not send them.
    """

    chain: Chain = PLAIN
    accepted: AcceptedUpdate | None = None
    jobs: frozenset[str] | None = None

    def to_dict(self) -> dict[str, Any]:
        accepted = self.accepted
        feedback = accepted and {
            "round": accepted.round,
            "update": accepted.update,
            "chain": str(accepted.chain),
        }
        jobs = None if self.jobs is None else sorted(self.jobs)
        return {"chain": str(self.chain), "feedback": feedback, "jobs": jobs}

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> WireOffer:
        """Raises WireError for an unknown chain, ValueError for malformed values."""
        feedback, jobs = values.get("feedback"), values.get("jobs")
        return cls(
            parse(str(values.get("chain", PLAIN))),
            AcceptedUpdate.read(feedback) if feedback else None,
            None if jobs is None else frozenset(str(UUID(str(job))) for job in jobs),
        )


@dataclass(frozen=True)
class StepOffer:
    """A model step: the difference from the model ``base`` (SHA-256) to the current one."""

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
    """The text if it is a SHA-256, since it becomes a file name. Raises ValueError otherwise."""
    if not SHA256.fullmatch(str(value)):
        raise ValueError(f"{str(value)[:80]!r} is not a SHA-256")
    return str(value)
