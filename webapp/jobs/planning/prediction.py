"""The planner's prediction of a finished job, compared with what its devices measured.

The prediction uses only what was known before the job: the hardware, and each device's last
training of an earlier job. The measured value is the median over the rounds, of memory the maximum.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fedcore.architecture.sizes import architecture_of
from fedcore.errors import SpecError
from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.cost.device_plan import DevicePlan
from fedcore.plan.cost.energy import energy
from fedcore.plan.per_device import plan_with_overrides
from fedcore.spec.job import JobSpec
from webapp.common import units
from webapp.devices.models import Dataset
from webapp.jobs.models import Assignment, Job, Participant
from webapp.jobs.planning.candidates import candidate

DELIVERED = ("reported", "folded")


@dataclass(frozen=True)
class PredictionError:
    """One figure. ``kind`` is duration, size or joules; None is unknown."""

    name: str
    kind: str
    predicted: float | None
    measured: float | None

    @property
    def error(self) -> float | None:
        """Predicted / measured - 1: 0.1 is a prediction 10 % too high."""
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
        """Names of the figures, in the order of ``DevicePrediction.figures``."""
        return tuple(figure.name for figure in self.devices[0].figures)

    @property
    def typical(self) -> tuple[tuple[str, float | None], ...]:
        """Median absolute error of each figure over the devices."""
        medians = []
        for place, name in enumerate(self.names):
            errors = [device.figures[place].error for device in self.devices]
            known = [abs(error) for error in errors if error is not None]
            medians.append((name, statistics.median(known) if known else None))
        return tuple(medians)


def prediction(job: Job) -> Prediction | None:
    """None while the job runs, without delivered trainings, or without the model's sizes."""
    if not job.is_over or job.started_at is None:
        return None
    try:
        spec = job.job_spec
    except SpecError:  # stored by an older version
        return None
    sizes = architecture_of(spec.model.name)
    delivered = Assignment.objects.filter(task="train", phase__in=DELIVERED).order_by("ended_at")
    trainings: dict[int, list[Assignment]] = {}
    for row in delivered.filter(round__job=job):
        trainings.setdefault(row.device_id, []).append(row)
    if sizes is None or not trainings:
        return None
    earlier = delivered.filter(device__in=list(trainings), ended_at__lt=job.started_at)
    last: dict[int, Assignment] = {}
    for row in earlier.exclude(round__job=job).select_related("round__job"):
        last[row.device_id] = row
    rows = job.participants.select_related("device").prefetch_related("device__datasets")
    participants = [row for row in rows if row.device_id in trainings]
    candidates = [_candidate(spec, row, last.get(row.device_id)) for row in participants]
    plans = plan_with_overrides(spec, sizes, candidates)
    return Prediction(
        tuple(
            _device_prediction(plan, device, trainings[row.device_id])
            for row, device, plan in zip(participants, candidates, plans, strict=True)
        )
    )


def _candidate(spec: JobSpec, participant: Participant, last: Assignment | None) -> Candidate:
    datasets = participant.device.datasets.all()
    dataset = next(
        (item for item in datasets if item.name == participant.dataset),
        Dataset(name=participant.dataset, examples=participant.examples),
    )
    planned = candidate(spec, participant.device, dataset, last)
    return replace(planned, examples=participant.examples)


def _device_prediction(
    plan: DevicePlan, device: Candidate, trainings: Sequence[Assignment]
) -> DevicePrediction:
    parts = [plan.seconds.get(name) for name in ("download_s", "train_s", "upload_s")]
    known = [part for part in parts if part is not None]
    round_s = sum(known) if len(known) == len(parts) else None
    joules = None
    if round_s is not None:
        spent = energy(device.hardware, known[1], known[0] + known[2], 0.0)
        joules = None if spent.communication_j is None else spent.total_j
    # An accelerator's report does not include its context.
    outside = plan.memory.parts["runtime"] if device.hardware.accelerator else 0.0
    peaks = [_reported(row, "peak_memory_bytes") or 0.0 for row in trainings]
    sizes = [float(row.bytes_up + row.bytes_down) or None for row in trainings]
    joules_each = [_reported(row, "energy_j") for row in trainings]
    bytes_ = plan.bytes_down + plan.bytes_up
    step_s: list[float | None] = []
    rounds_s: list[float | None] = []
    for row in trainings:
        seconds, steps = _reported(row, "seconds"), _reported(row, "steps")
        step_s.append(seconds / steps if seconds and steps else None)
        upload_s = _reported(row, "upload_s")
        download_s = _reported(row, "download_s") or 0.0  # a cached model needs no download
        if seconds is None or upload_s is None:
            rounds_s.append(None)
        else:
            rounds_s.append(seconds + upload_s + download_s)
    figures = (
        PredictionError("Step", "duration", plan.step_s, _median(step_s)),
        PredictionError("Round", "duration", round_s, _median(rounds_s)),
        PredictionError("Bytes", "size", bytes_, _median(sizes)),
        PredictionError("Peak memory", "size", plan.memory.peak - outside, max(peaks) or None),
        PredictionError("Energy", "joules", joules, _median(joules_each)),
    )
    return DevicePrediction(plan.name, len(trainings), figures)


def _reported(training: Assignment, name: str) -> float | None:
    """A positive figure that the device reported."""
    value = units.number(training.metrics.get(name))
    return value if value is not None and value > 0 else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
