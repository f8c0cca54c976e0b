"""Figures of one training as its device reported them.

A figure that is missing, not a number or out of bounds is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from webapp.common.metric_definitions import PHASES_KEY, REPORTED
from webapp.common.units import plausible
from webapp.jobs.models import Assignment

PHASES = ("load", "forward", "loss", "backward", "optimizer")
# If the phases sum to more than this share of the training time, a clock has jumped.
MAX_PHASES_SHARE = 1.2


@dataclass(frozen=True)
class TrainingFigures:
    """One training. Seconds, bytes, joules, FLOP; ``at_socket``: bytes include all headers.

    ``reward``: mean over its samples; ``reward_before``, ``reward_after``: of greedy summaries by
    the received and by the trained model, weighted as on the device; without a unit.
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
        """G: seconds of computing per second of transfers."""
        return ratio(self.compute_s, self.communication_s)

    @property
    def tokens_per_s(self) -> float | None:
        return ratio(self.tokens, self.compute_s)

    @property
    def flops_per_s(self) -> float | None:
        """Model FLOPs per second of computing."""
        if self.flops is None and self.mfu is not None and self.peak_flops is not None:
            return self.mfu * self.peak_flops
        return ratio(self.flops, self.compute_s)

    @property
    def joules(self) -> float | None:
        """Measured by a sensor if possible, else estimated from the profile."""
        return self.estimated_j if self.measured_j is None else self.measured_j

    @property
    def is_estimated(self) -> bool:
        """Whether the energy is an estimate."""
        return self.measured_j is None and self.estimated_j is not None

    @property
    def reward_gain(self) -> float | None:
        """Change of the reward by the training; None if the round was not evaluated."""
        if self.reward_before is None or self.reward_after is None:
            return None
        return self.reward_after - self.reward_before

    @property
    def eta_e(self) -> float | None:
        """Tokens per joule while computing."""
        if self.joules is None:
            return None
        return ratio(self.tokens, self.joules if self.compute_j is None else self.compute_j)


def ratio(above: float | None, below: float | None) -> float | None:
    """A quotient; None where it is undefined."""
    return above / below if above is not None and below else None


def training_figures(assignment: Assignment) -> TrainingFigures:
    """The figures of a training assignment; an implausible one is None."""
    metrics = assignment.metrics if isinstance(assignment.metrics, dict) else {}
    values = {
        name: plausible(metrics.get(name), bounds.low, bounds.high)
        for name, bounds in REPORTED.items()
    }
    sent, received = values["net_up_bytes"], values["net_down_bytes"]
    at_socket = sent is not None and received is not None
    return TrainingFigures(
        compute_s=values["seconds"],
        download_s=values["download_s"],
        upload_s=values["upload_s"],
        wait_s=values["wait_s"],
        phase_s=_phase_seconds(metrics.get(PHASES_KEY), values["seconds"]),
        tokens=values["tokens"],
        flops=values["flops"],
        mfu=values["mfu"],
        peak_flops=values["mfu_peak_flops"] or None,
        precision=str(metrics.get("precision", ""))[:12],
        peak_memory_bytes=values["peak_memory_bytes"] or None,
        loss=values["loss"],
        measured_j=values["energy_j"],
        estimated_j=values["energy_estimated_j"],
        compute_j=values["compute_j"],
        communication_j=values["communication_j"],
        waiting_j=values["waiting_j"],
        up_bytes=sent if at_socket else _server_count(assignment.bytes_up),
        down_bytes=received if at_socket else _server_count(assignment.bytes_down),
        at_socket=at_socket,
        retransfer_bytes=values["retransfer_bytes"],
        rtt_s=values["rtt_s"],
        reward=values["reward"],
        reward_before=values["reward_before"],
        reward_after=values["reward_after"],
    )


def _server_count(size_bytes: int) -> float | None:
    """Bytes that the server counted; 0 means that none were counted."""
    return float(size_bytes) if size_bytes > 0 else None


def _phase_seconds(phases: object, seconds: float | None) -> Mapping[str, float] | None:
    if not isinstance(phases, dict) or not seconds:
        return None
    values = {name: plausible(phases.get(name)) for name in PHASES}
    known = {name: value for name, value in values.items() if value is not None}
    return known if 0 < sum(known.values()) <= MAX_PHASES_SHARE * seconds else None
