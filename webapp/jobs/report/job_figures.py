"""What a report is made of: the figures of a job, read in a fixed number of queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from fedcore.rounds.types import DELIVERED, RoundPhase, Task
from webapp.common.units import plausible
from webapp.jobs.analysis import baseline_comparison
from webapp.jobs.analysis.device_history import memory_of, peaks_of
from webapp.jobs.analysis.device_metrics import TrainingFigures, ratio, training_figures
from webapp.jobs.analysis.device_rewards import has_rewards, reward_terms
from webapp.jobs.analysis.scores import OWN, SHARED
from webapp.jobs.models import Assignment, Job, Participant, Round

BROUGHT = frozenset(phase.value for phase in DELIVERED)
LOST = frozenset({"failed", "expired", "refused"})


@dataclass(frozen=True)
class DeviceFigures:
    """What one device did in the whole job. ``idle_s``: done, until the slowest was as well.

    ``first_score`` and ``last_score`` are its ROUGE-L, F1 in percent, ``own_score`` that of a model
    of its own at the end; ``peaks`` FLOP/s by precision; ``last_in``: in how many rounds it was the
    one the others waited for; ``paid_for``: its rewards and their weights, where it has any.
    ``over_alone``: points of ROUGE-L over training alone, where that was asked for.
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
        """Sum of one figure over its trainings, what is not known left out."""
        return total(self.works, name)

    @property
    def mfu(self) -> float | None:
        return mean_mfu(self.works)

    @property
    def rewarded(self) -> TrainingFigures | None:
        """Its last training whose rewards were measured; None where it learned from none."""
        known = [work for work in self.works if work.reward_gain is not None]
        return known[-1] if known else None

    @property
    def first_rewarded(self) -> TrainingFigures | None:
        """The first such training: it began from the model before the job, or near it."""
        return next((work for work in self.works if work.reward_gain is not None), None)

    @property
    def granularity(self) -> float | None:
        known = [work for work in self.works if work.communication_s is not None]
        return ratio(total(known, "compute_s"), total(known, "communication_s"))

    @property
    def peak_memory_bytes(self) -> float | None:
        return max((work.peak_memory_bytes or 0 for work in self.works), default=0) or None

    def phase_share(self, phase: str) -> float | None:
        """Share of its training time that a phase took, where phases were measured."""
        known = [work for work in self.works if work.phase_s and work.compute_s]
        spent = sum((work.phase_s or {}).get(phase, 0.0) for work in known)
        return ratio(spent, total(known, "compute_s"))


@dataclass(frozen=True)
class JobFigures:
    """A job's figures. Scores are ROUGE-L, F1 in percent; ``spec`` is its specification."""

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
        found = self.spec.get(part)
        return found.get(name) if isinstance(found, dict) else None


def total(works: Iterable[TrainingFigures], name: str) -> float:
    """Sum of a figure over trainings; 0.0 where none knows it."""
    return sum(float(getattr(work, name) or 0.0) for work in works)


def mean_mfu(works: Iterable[TrainingFigures]) -> float | None:
    """Needed FLOPs over those the peaks allow in the same seconds."""
    known = [w for w in works if w.mfu is not None and w.peak_flops and w.compute_s]
    able = sum((w.peak_flops or 0) * (w.compute_s or 0) for w in known)
    done = sum((w.mfu or 0) * (w.peak_flops or 0) * (w.compute_s or 0) for w in known)
    return ratio(done, able) if known else None


def gather(job: Job) -> JobFigures:
    """A fixed number of queries, however many rounds and devices."""
    people = list(Participant.objects.filter(job=job).select_related("device").order_by("slot"))
    rounds = list(
        Round.objects.filter(job=job).order_by("number", "attempt").prefetch_related("assignments")
    )
    closed = [row for row in rounds if row.phase == RoundPhase.CLOSED.value and row.number]
    failed = [row for row in rounds if row.phase == RoundPhase.FAILED.value]
    scored = [row.evaluation for row in rounds if row.evaluation]
    mine, gained = _by_slot(rounds), baseline_comparison.gains(job)
    ends = _last_ends(pair for pairs in mine.values() for pair in pairs)
    return JobFigures(
        phase=job.phase,
        reason=job.reason,
        spec=job.spec,
        devices=tuple(
            replace(
                _device(person, mine.get(person.slot, []), ends),
                paid_for=reward_terms(job, person)["of"] if has_rewards(job) else "",
                over_alone=gained.get(person.slot),
            )
            for person in people
        ),
        rounds_closed=len(closed),
        rounds_failed=len(failed),
        failed_s=sum(_seconds(row.started_at, row.ended_at) for row in failed),
        first_score=_end(scored, "rougeL", 0),
        last_score=_end(scored, "rougeL", -1),
        first_loss=_end(scored, "loss", 0),
        last_loss=_end(scored, "loss", -1),
    )


def _end(scored: Sequence[Mapping[str, Any]], name: str, at: int) -> float | None:
    """The first or last value; None where there are not two to compare."""
    known = [value for row in scored if (value := plausible(row.get(name))) is not None]
    return known[at] if len(known) > 1 else None


def _by_slot(rounds: Sequence[Round]) -> dict[int, list[tuple[Round, Assignment]]]:
    found: dict[int, list[tuple[Round, Assignment]]] = {}
    for row in rounds:
        for part in row.assignments.all():
            found.setdefault(part.slot, []).append((row, part))
    return found


def _last_ends(parts: Iterable[tuple[Round, Assignment]]) -> dict[int, datetime]:
    """When the last update of each round came."""
    found: dict[int, datetime] = {}
    for row, part in parts:
        if part.task == Task.TRAIN.value and part.phase in BROUGHT and part.ended_at is not None:
            found[row.pk] = max(part.ended_at, found.get(row.pk, part.ended_at))
    return found


def _device(
    person: Participant,
    mine: Sequence[tuple[Round, Assignment]],
    ends: Mapping[int, datetime],
) -> DeviceFigures:
    trained = [(row, part) for row, part in mine if part.task == Task.TRAIN.value]
    brought = [(row, part) for row, part in trained if part.phase in BROUGHT]
    lost = [part for _, part in trained if part.phase in LOST]
    waits = [wait for row, part in brought if (wait := _wait(row, part, ends)) is not None]
    measured = [part for _, part in mine if part.task == Task.EVALUATE.value]
    scores, own = _scores(measured, SHARED), _scores(measured, OWN)
    return DeviceFigures(
        name=person.device.name,
        examples=person.examples,
        offered=len(trained),
        lost=len(lost),
        reasons=tuple(dict.fromkeys(part.reason for part in lost if part.reason)),
        works=tuple(training_figures(part) for _, part in brought),
        trained_examples=sum(part.examples for _, part in brought),
        idle_s=sum(idle for idle, _, _ in waits),
        in_rounds_s=sum(span for _, span, _ in waits),
        last_in=sum(last for _, _, last in waits),
        memory_bytes=memory_of(person.device.profile),
        peaks=peaks_of(person.device.profile),
        first_score=scores[0] if len(scores) > 1 else None,
        last_score=scores[-1] if scores else None,
        own_score=own[-1] if own else None,
    )


def _scores(parts: Iterable[Assignment], name: str) -> list[float]:
    read = (plausible(part.metrics.get(name), high=100.0) for part in parts)
    return [score for score in read if score is not None]


def _wait(
    row: Round, part: Assignment, ends: Mapping[int, datetime]
) -> tuple[float, float, bool] | None:
    """Seconds it waited for the others, those of the collecting, and whether it was the last."""
    if row.started_at is None or row.collected_at is None or part.ended_at is None:
        return None
    span = _seconds(row.started_at, row.collected_at)
    idle = min(span, _seconds(part.ended_at, row.collected_at))
    return idle, span, part.ended_at == ends.get(row.pk)


def _seconds(start: datetime | None, end: datetime | None) -> float:
    """0 where one is missing or a clock has jumped backwards."""
    return max(0.0, (end - start).total_seconds()) if start and end else 0.0
