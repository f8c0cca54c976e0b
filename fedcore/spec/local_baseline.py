"""What a device gains by taking part: the same training by itself, and the difference.

``alone_spec`` is the job as one device runs it alone, ``alone_seat`` its place in it; simulation
and server both use them. Keeping the slot keeps every seed, so the first round alone is bit for bit
what the device trained in the first round of the federation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from fedcore.errors import Fault, SpecError
from fedcore.spec.job import JobSpec
from fedcore.spec.options.distill import DistillSpec
from fedcore.spec.options.method import METHOD_PATH, MethodSpec
from fedcore.spec.options.participation import ParticipationSpec
from fedcore.spec.options.strategy import StrategySpec
from fedcore.spec.options.tree import TreeSpec
from fedcore.spec.options.wire import WireSpec
from fedcore.spec.overrides import Tailoring

NAME_LENGTH = 120  # of a job
# Of ``participation``: what says how patiently the server waits for a device.
PATIENCE = ("deadline_s", "lease_s", "max_attempts")


@dataclass(frozen=True)
class Seat:
    """A device's place in a job: the slot, which is in every seed, and what differs on it."""

    slot: int
    tailoring: Tailoring


def refusal(spec: JobSpec) -> str:
    """Why a job of this kind cannot be compared with training alone; '' if it can."""
    return spec.method.family.no_baseline


def alone_spec(spec: JobSpec, device: str) -> JobSpec:
    """The job as ``device`` runs it by itself, from the same first weights.

    Model, data, adapter, training, rounds, evaluation and seed stay. What is about others goes:
    method, server strategy, tree, codecs, and of ``participation`` all but the server's patience.
    Options that differ per device stay as they are, for the seat says what they are on this one.
    Raises SpecError where the job has no such counterpart (``refusal``).
    """
    if why := refusal(spec):
        raise SpecError([Fault(METHOD_PATH, why)])
    patience = {name: getattr(spec.participation, name) for name in PATIENCE}
    words = f": {device} alone"
    return replace(
        spec,
        name=f"{spec.name[: NAME_LENGTH - len(words)]}{words}"[:NAME_LENGTH],
        method=MethodSpec(),
        strategy=StrategySpec(),
        distill=DistillSpec(),
        tree=TreeSpec(),
        wire=WireSpec(uplink="fp32", compress=spec.wire.compress),
        participation=ParticipationSpec(devices=(device,), **patience),
    )


def alone_seat(slot: int, changes: Tailoring) -> Seat:
    """The device's place when it trains alone: the same, without what its method set."""
    job_changes = {path: value for path, value in changes.items() if not path.startswith("method.")}
    return Seat(slot, job_changes)


@dataclass(frozen=True)
class Score:
    """Of one model on a device's own validation part: ROUGE-L (F1, percent), nats per token."""

    rougeL: float  # noqa: N815 - the name of the measure
    loss: float


@dataclass(frozen=True)
class Gain:
    """What a model has over the one trained alone: ROUGE-L points, nats per token less.

    Above 0 is better in both.
    """

    rougeL: float  # noqa: N815
    loss: float


@dataclass(frozen=True)
class Compared:
    """A device's last scores: of the shared model, of a model of its own, trained alone.

    None: that model was not measured, or the method gives no model of its own.
    """

    device: str
    shared: Score | None = None
    own: Score | None = None
    alone: Score | None = None

    @property
    def gain(self) -> Gain | None:
        return _over(self.shared, self.alone)

    @property
    def own_gain(self) -> Gain | None:
        return _over(self.own, self.alone)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        gains = {"gain": self.gain, "own_gain": self.own_gain}
        return {
            **asdict(self),
            **{name: asdict(item) if item else None for name, item in gains.items()},
        }


def _over(model: Score | None, alone: Score | None) -> Gain | None:
    if model is None or alone is None:
        return None
    return Gain(model.rougeL - alone.rougeL, alone.loss - model.loss)


@dataclass(frozen=True)
class Gained:
    """Over ``devices`` that were compared: mean gains, the worst in ROUGE-L, how many gained."""

    devices: int
    mean: float
    mean_loss: float
    worst: float
    worst_device: str
    gained: int


def gained(gains: Mapping[str, Gain]) -> Gained | None:
    """None without a gain. Equal scores are no gain."""
    if not gains:
        return None
    names = sorted(gains)
    worst = min(names, key=lambda name: gains[name].rougeL)
    return Gained(
        len(names),
        math.fsum(gains[name].rougeL for name in names) / len(names),
        math.fsum(gains[name].loss for name in names) / len(names),
        gains[worst].rougeL,
        worst,
        sum(gains[name].rougeL > 0 for name in names),
    )


def summary(rows: Sequence[Compared]) -> dict[str, Any]:
    """What all devices gained by the shared model, and by their own where they have them."""
    kinds = {
        "shared": {row.device: row.gain for row in rows if row.gain},
        "own": {row.device: row.own_gain for row in rows if row.own_gain},
    }
    summaries = {kind: gained(gains) for kind, gains in kinds.items()}
    return {kind: asdict(item) if item else None for kind, item in summaries.items()}
