"""What the planner would have said of a finished job, beside what its devices then measured.

The prediction knows what was known before the job: the hardware, and each device's last training
of an earlier job. What was measured is the median over the rounds, of memory the highest.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fedcore.architecture.sizes import architecture_of
from fedcore.errors import SpecError
from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.cost.energy import energy
from fedcore.plan.device_plan import DevicePlan
from fedcore.plan.per_device import by_their_options
from fedcore.spec.job import JobSpec
from webapp.common import units
from webapp.devices.models import Dataset
from webapp.jobs.models import Assignment, Job, Participant
from webapp.jobs.planning.candidates import candidate

DELIVERED = ("reported", "folded")


@dataclass(frozen=True)
class PredictionError:
    """One figure. ``kind`` is duration, size or joules; None where it is not known."""

    name: str
    kind: str
    predicted: float | None
    measured: float | None

    @property
    def error(self) -> float | None:
        """Predicted over measured less 1: 0.1 says that a tenth too much was predicted."""
        if self.predicted is None or not self.measured:
            return None
        return self.predicted / self.measured - 1


@dataclass(frozen=True)
class DevicePrediction:
    name: str
    rounds: int
    figures: tuple[PredictionError, ...]


@dataclass(frozen=True)
class Prediction:
    devices: tuple[DevicePrediction, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The figures, in the order of every device's."""
        return tuple(figure.name for figure in self.devices[0].figures)

    @property
    def typical(self) -> tuple[tuple[str, float | None], ...]:
        """The median of each figure's error over the devices, without its sign."""
        found = []
        for place, name in enumerate(self.names):
            errors = [device.figures[place].error for device in self.devices]
            known = [abs(error) for error in errors if error is not None]
            found.append((name, statistics.median(known) if known else None))
        return tuple(found)


def prediction(job: Job) -> Prediction | None:
    """None while the job runs, where nothing was trained, or without the model's sizes."""
    if not job.is_over or job.started_at is None:
        return None
    try:
        spec = job.job_spec
    except SpecError:  # of an older version of this software
        return None
    sizes = architecture_of(spec.model.name)
    done = _trainings(job)
    if sizes is None or not done:
        return None
    people = [
        person
        for person in job.participants.select_related("device").prefetch_related("device__datasets")
        if person.device_id in done
    ]
    before = _before(job, list(done))
    able = [_candidate(spec, person, before.get(person.device_id)) for person in people]
    plans = by_their_options(spec, sizes, able)
    rows = zip(people, able, plans, strict=True)
    return Prediction(tuple(_compared(plan, one, done[p.device_id]) for p, one, plan in rows))


def _trainings(job: Job) -> dict[int, list[Assignment]]:
    """What each device delivered, over all rounds."""
    parts = Assignment.objects.filter(round__job=job, task="train", phase__in=DELIVERED)
    found: dict[int, list[Assignment]] = {}
    for part in parts.order_by("ended_at"):
        found.setdefault(part.device_id, []).append(part)
    return found


def _before(job: Job, devices: Sequence[int]) -> dict[int, Assignment]:
    """Each device's newest training that was over before the job began."""
    parts = Assignment.objects.filter(
        device__in=devices, task="train", phase__in=DELIVERED, ended_at__lt=job.started_at
    )
    newest: dict[int, Assignment] = {}
    for part in parts.exclude(round__job=job).select_related("round__job").order_by("ended_at"):
        newest[part.device_id] = part
    return newest


def _candidate(spec: JobSpec, person: Participant, last: Assignment | None) -> Candidate:
    held = [item for item in person.device.datasets.all() if item.name == person.dataset]
    known = held[0] if held else Dataset(name=person.dataset, examples=person.examples)
    return replace(candidate(spec, person.device, known, last), examples=person.examples)


def _compared(plan: DevicePlan, device: Candidate, done: Sequence[Assignment]) -> DevicePrediction:
    seconds = plan.seconds
    parts = [seconds.get(name) for name in ("download_s", "train_s", "upload_s")]
    known = [part for part in parts if part is not None]
    round_s = sum(known) if len(known) == len(parts) else None
    joules = None
    if round_s is not None:
        spent = energy(device.hardware, known[1], known[0] + known[2], 0.0)
        joules = None if spent.communication_j is None else spent.total_j
    figures = (
        PredictionError("Step", "duration", plan.step_s, _median(_step_s(part) for part in done)),
        PredictionError("Round", "duration", round_s, _median(_round_s(part) for part in done)),
        PredictionError(
            "Bytes", "size", plan.bytes_down + plan.bytes_up, _median(map(_bytes, done))
        ),
        PredictionError(
            "Peak memory", "size", _seen(plan, device), _most(done, "peak_memory_bytes")
        ),
        PredictionError(
            "Energy", "joules", joules, _median(_figure(part, "energy_j") for part in done)
        ),
    )
    return DevicePrediction(plan.name, len(done), figures)


def _seen(plan: DevicePlan, device: Candidate) -> float:
    """The part of the peak that a device reports: of an accelerator without its context."""
    outside = plan.memory.parts["runtime"] if device.hardware.accelerator else 0.0
    return plan.memory.peak - outside


def _figure(part: Assignment, name: str) -> float | None:
    """What a device reported, where it can be: above 0."""
    found = units.number(part.metrics.get(name))
    return found if found is not None and found > 0 else None


def _step_s(part: Assignment) -> float | None:
    seconds, steps = _figure(part, "seconds"), _figure(part, "steps")
    return seconds / steps if seconds and steps else None


def _round_s(part: Assignment) -> float | None:
    """Fetching the model, training and sending the update; a kept model is fetched in no time."""
    training = _figure(part, "seconds")
    sent = _figure(part, "upload_s")
    if training is None or sent is None:
        return None
    return training + sent + (_figure(part, "download_s") or 0.0)


def _bytes(part: Assignment) -> float | None:
    return float(part.bytes_up + part.bytes_down) or None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _most(done: Sequence[Assignment], name: str) -> float | None:
    known = [value for part in done if (value := _figure(part, name)) is not None]
    return max(known, default=None)
