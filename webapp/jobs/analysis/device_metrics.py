"""What a device reported of one training, read so that nothing unbelievable gets through.

A figure that is missing, negative, no number or beyond its bounds is None, and pages say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from webapp.common.metric_definitions import PHASES_KEY, REPORTED
from webapp.common.units import plausible
from webapp.jobs.models import Assignment

PHASES = ("load", "forward", "loss", "backward", "optimizer")
# Phases lie within the time of the training; beyond this share of it a clock has jumped.
PHASES_AT_MOST = 1.2


@dataclass(frozen=True)
class TrainingFigures:
    """One training. Seconds, bytes, joules, FLOP; ``at_socket``: bytes with all headers.

    ``reward``: mean of the samples it drew; ``reward_before`` and ``reward_after``: of greedy
    summaries by the received model and by its own, weighed as the device weighs; without a unit.
    """

    compute_s: float | None = None
    download_s: float | None = None
    upload_s: float | None = None
    wait_s: float | None = None
    phase_s: Mapping[str, float] | None = None
    tokens: float | None = None
    flops: float | None = None
    mfu: float | None = None
    peak_flops: float | None = None
    precision: str = ""
    peak_memory_bytes: float | None = None
    loss: float | None = None
    measured_j: float | None = None
    estimated_j: float | None = None
    compute_j: float | None = None
    communication_j: float | None = None
    waiting_j: float | None = None
    up_bytes: float | None = None
    down_bytes: float | None = None
    at_socket: bool = False
    retransfer_bytes: float | None = None
    rtt_s: float | None = None
    reward: float | None = None
    reward_before: float | None = None
    reward_after: float | None = None

    @property
    def communication_s(self) -> float | None:
        if self.download_s is None or self.upload_s is None:
            return None
        return self.download_s + self.upload_s

    @property
    def granularity(self) -> float | None:
        """G: seconds of computing for each second of sending and receiving."""
        return ratio(self.compute_s, self.communication_s)

    @property
    def tokens_per_s(self) -> float | None:
        return ratio(self.tokens, self.compute_s)

    @property
    def flops_per_s(self) -> float | None:
        """Needed FLOPs per second of computing."""
        if self.flops is None and self.mfu is not None and self.peak_flops is not None:
            return self.mfu * self.peak_flops
        return ratio(self.flops, self.compute_s)

    @property
    def joules(self) -> float | None:
        """Measured where a sensor did, else estimated from the profile."""
        return self.estimated_j if self.measured_j is None else self.measured_j

    @property
    def is_estimated(self) -> bool:
        """Whether its energy is an estimate."""
        return self.measured_j is None and self.estimated_j is not None

    @property
    def reward_gain(self) -> float | None:
        """What its training added to its reward; None where a round was not evaluated."""
        if self.reward_before is None or self.reward_after is None:
            return None
        return self.reward_after - self.reward_before

    @property
    def eta_e(self) -> float | None:
        """Tokens per second and watt while it computed, which is tokens per joule."""
        if self.joules is None:
            return None
        return ratio(self.tokens, self.joules if self.compute_j is None else self.compute_j)


def ratio(above: float | None, below: float | None) -> float | None:
    """A quotient, None where it has no meaning."""
    return above / below if above is not None and below else None


def training_figures(part: Assignment) -> TrainingFigures:
    """The figures of a training assignment."""
    told = part.metrics if isinstance(part.metrics, dict) else {}
    found = {name: _reported(told, name) for name in REPORTED}
    sent, received = found["net_up_bytes"], found["net_down_bytes"]
    at_socket = sent is not None and received is not None
    return TrainingFigures(
        compute_s=found["seconds"],
        download_s=found["download_s"],
        upload_s=found["upload_s"],
        wait_s=found["wait_s"],
        phase_s=_phases(told.get(PHASES_KEY), found["seconds"]),
        tokens=found["tokens"],
        flops=found["flops"],
        mfu=found["mfu"],
        peak_flops=found["mfu_peak_flops"] or None,
        precision=str(told.get("precision", ""))[:12],
        peak_memory_bytes=found["peak_memory_bytes"] or None,
        loss=found["loss"],
        measured_j=found["energy_j"],
        estimated_j=found["energy_estimated_j"],
        compute_j=found["compute_j"],
        communication_j=found["communication_j"],
        waiting_j=found["waiting_j"],
        up_bytes=sent if at_socket else _counted(part.bytes_up),
        down_bytes=received if at_socket else _counted(part.bytes_down),
        at_socket=at_socket,
        retransfer_bytes=found["retransfer_bytes"],
        rtt_s=found["rtt_s"],
        reward=found["reward"],
        reward_before=found["reward_before"],
        reward_after=found["reward_after"],
    )


def _reported(told: Mapping[str, Any], name: str) -> float | None:
    bounds = REPORTED[name]
    return plausible(told.get(name), bounds.low, bounds.high)


def _counted(size: int) -> float | None:
    """Bytes the server counted; none were, where it says 0."""
    return float(size) if size > 0 else None


def _phases(told: object, seconds: float | None) -> Mapping[str, float] | None:
    if not isinstance(told, dict) or not seconds:
        return None
    read = {name: plausible(told.get(name)) for name in PHASES}
    known = {name: value for name, value in read.items() if value is not None}
    fits = 0 < sum(known.values()) <= PHASES_AT_MOST * seconds
    return known if fits else None
