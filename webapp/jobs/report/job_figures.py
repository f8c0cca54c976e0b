"""Figures of a job that its report is based on, read in a fixed number of queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from fedcore.rounds.types import DELIVERED, RoundPhase, Task
from webapp.common.units import plausible
from webapp.jobs.analysis import baseline_scores
from webapp.jobs.analysis.device_history import memory_of, peaks_of
from webapp.jobs.analysis.device_metrics import TrainingFigures, ratio, training_figures
from webapp.jobs.analysis.device_rewards import has_rewards, reward_terms
from webapp.jobs.analysis.device_scores import OWN, SHARED
from webapp.jobs.models import Assignment, Job, Participant, Round

DELIVERED_PHASES = frozenset(phase.value for phase in DELIVERED)
LOST = frozenset({"failed", "expired", "refused"})


@dataclass(frozen=True)
class DeviceFigures:
    """Figures of one device over the whole job. ``works``: its delivered trainings.

    ``idle_s``: waiting for slower devices; ``last_in``: number of rounds in which it was the last.
    ``first_score``, ``last_score``: ROUGE-L, F1 in percent; ``own_score``: of its personalised
    model at the end; ``over_alone``: points over its local-only baseline. ``peaks``: FLOP/s by
    precision. ``paid_for``: its reward function in words.
    """

    name: str
    examples: int = 0
    offered: int = 0
    lost: int = 0
    reasons: tuple[str, ...] = ()
    works: tuple[TrainingFigures, ...] = ()
    trained_examples: int = 0
    idle_s: float = 0.0
    in_rounds_s: float = 0.0
    last_in: int = 0
    memory_bytes: float | None = None
    peaks: Mapping[str, float] = field(default_factory=dict)
    first_score: float | None = None
    last_score: float | None = None
    own_score: float | None = None
    paid_for: str = ""
    over_alone: float | None = None

    def total(self, name: str) -> float:
        """Sum of a figure over its trainings, unknown values omitted."""
        return total(self.works, name)

    @property
    def mfu(self) -> float | None:
        return mean_mfu(self.works)

    @property
    def rewarded(self) -> TrainingFigures | None:
        """Its last training with measured rewards."""
        known = [work for work in self.works if work.reward_gain is not None]
        return known[-1] if known else None

    @property
    def first_rewarded(self) -> TrainingFigures | None:
        """Its first training with measured rewards."""
        return next((work for work in self.works if work.reward_gain is not None), None)

    @property
    def granularity(self) -> float | None:
        known = [work for work in self.works if work.communication_s is not None]
        return ratio(total(known, "compute_s"), total(known, "communication_s"))

    @property
    def peak_memory_bytes(self) -> float | None:
        return max((work.peak_memory_bytes or 0 for work in self.works), default=0) or None

    def phase_share(self, phase: str) -> float | None:
        """Share of its training time in a phase, where phases were measured."""
        known = [work for work in self.works if work.phase_s and work.compute_s]
        spent = sum((work.phase_s or {}).get(phase, 0.0) for work in known)
        return ratio(spent, total(known, "compute_s"))


@dataclass(frozen=True)
class JobFigures:
    """Figures of a job. Scores are ROUGE-L, F1 in percent; ``spec``: its stored specification."""

    phase: str = "completed"
    reason: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    devices: tuple[DeviceFigures, ...] = ()
    rounds_closed: int = 0
    rounds_failed: int = 0
    failed_s: float = 0.0
    first_score: float | None = None
    last_score: float | None = None
    first_loss: float | None = None
    last_loss: float | None = None

    @property
    def works(self) -> list[TrainingFigures]:
        return [work for device in self.devices for work in device.works]

    def total(self, name: str) -> float:
        return total(self.works, name)

    @property
    def asynchronous(self) -> bool:
        mode = self.spec.get("participation", {})
        return isinstance(mode, dict) and mode.get("mode", "synchronous") != "synchronous"

    def option(self, part: str, name: str) -> Any:
        options = self.spec.get(part)
        return options.get(name) if isinstance(options, dict) else None


def total(works: Iterable[TrainingFigures], name: str) -> float:
    """Sum of a figure over trainings; 0.0 if it is unknown in all."""
    return sum(float(getattr(work, name) or 0.0) for work in works)


def mean_mfu(works: Iterable[TrainingFigures]) -> float | None:
    """Model FLOPs over the FLOPs of the measured peaks in the same time."""
    known = [w for w in works if w.mfu is not None and w.peak_flops and w.compute_s]
    possible = sum((w.peak_flops or 0) * (w.compute_s or 0) for w in known)
    used = sum((w.mfu or 0) * (w.peak_flops or 0) * (w.compute_s or 0) for w in known)
    return ratio(used, possible) if known else None


def gather(job: Job) -> JobFigures:
    """Reads a job in a fixed number of queries."""
    participants = list(
        Participant.objects.filter(job=job).select_related("device").order_by("slot")
    )
    rounds = list(
        Round.objects.filter(job=job).order_by("number", "attempt").prefetch_related("assignments")
    )
    closed = [row for row in rounds if row.phase == RoundPhase.CLOSED.value and row.number]
    failed = [row for row in rounds if row.phase == RoundPhase.FAILED.value]
    evaluations = [row.evaluation for row in rounds if row.evaluation]
    by_slot: dict[int, list[tuple[Round, Assignment]]] = {}
    last_ends: dict[int, datetime] = {}  # when the last update of each round arrived
    for row in rounds:
        for item in row.assignments.all():
            by_slot.setdefault(item.slot, []).append((row, item))
            trained = item.task == Task.TRAIN.value and item.phase in DELIVERED_PHASES
            if trained and item.ended_at is not None:
                last_ends[row.pk] = max(item.ended_at, last_ends.get(row.pk, item.ended_at))
    gains = baseline_scores.gains(job)
    return JobFigures(
        phase=job.phase,
        reason=job.reason,
        spec=job.spec,
        devices=tuple(
            replace(
                _device_figures(row, by_slot.get(row.slot, []), last_ends),
                paid_for=reward_terms(job, row)["of"] if has_rewards(job) else "",
                over_alone=gains.get(row.slot),
            )
            for row in participants
        ),
        rounds_closed=len(closed),
        rounds_failed=len(failed),
        failed_s=sum(_seconds(row.started_at, row.ended_at) for row in failed),
        first_score=_end_value(evaluations, "rougeL", 0),
        last_score=_end_value(evaluations, "rougeL", -1),
        first_loss=_end_value(evaluations, "loss", 0),
        last_loss=_end_value(evaluations, "loss", -1),
    )


def _end_value(evaluations: Sequence[Mapping[str, object]], name: str, index: int) -> float | None:
    """The first or last value; None unless there are two to compare."""
    values = [value for row in evaluations if (value := plausible(row.get(name))) is not None]
    return values[index] if len(values) > 1 else None


def _device_figures(
    participant: Participant,
    assignments: Sequence[tuple[Round, Assignment]],
    last_ends: Mapping[int, datetime],
) -> DeviceFigures:
    trainings = [(row, item) for row, item in assignments if item.task == Task.TRAIN.value]
    delivered = [(row, item) for row, item in trainings if item.phase in DELIVERED_PHASES]
    lost = [item for _, item in trainings if item.phase in LOST]
    idle_s: float = 0
    in_rounds_s: float = 0
    last_in = 0
    for row, item in delivered:
        if row.started_at is None or row.collected_at is None or item.ended_at is None:
            continue
        span_s = _seconds(row.started_at, row.collected_at)
        idle_s += min(span_s, _seconds(item.ended_at, row.collected_at))
        in_rounds_s += span_s
        last_in += item.ended_at == last_ends.get(row.pk)
    evaluations = [item for _, item in assignments if item.task == Task.EVALUATE.value]
    scores, personal = _scores(evaluations, SHARED), _scores(evaluations, OWN)
    return DeviceFigures(
        name=participant.device.name,
        examples=participant.examples,
        offered=len(trainings),
        lost=len(lost),
        reasons=tuple(dict.fromkeys(item.reason for item in lost if item.reason)),
        works=tuple(training_figures(item) for _, item in delivered),
        trained_examples=sum(item.examples for _, item in delivered),
        idle_s=idle_s,
        in_rounds_s=in_rounds_s,
        last_in=last_in,
        memory_bytes=memory_of(participant.device.profile),
        peaks=peaks_of(participant.device.profile),
        first_score=scores[0] if len(scores) > 1 else None,
        last_score=scores[-1] if scores else None,
        own_score=personal[-1] if personal else None,
    )


def _scores(evaluations: Iterable[Assignment], name: str) -> list[float]:
    values = (plausible(item.metrics.get(name), high=100.0) for item in evaluations)
    return [score for score in values if score is not None]


def _seconds(start: datetime | None, end: datetime | None) -> float:
    """0 where one is missing or a clock has jumped backwards."""
    return max(0.0, (end - start).total_seconds()) if start and end else 0.0
