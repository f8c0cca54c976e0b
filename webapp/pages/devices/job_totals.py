"""What a device did in each of its latest jobs, summed over its trainings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from webapp.devices.models import Device
from webapp.jobs.analysis.device_metrics import TrainingFigures, ratio, training_figures
from webapp.jobs.models import Assignment, Job

TRAININGS = 200  # the newest ones, of which the jobs are summed
JOBS = 8


@dataclass
class JobTotals:
    """A device's work in one job; figures are None where nothing is known."""

    job: Job
    works: list[TrainingFigures] = field(default_factory=list)

    @property
    def mfu(self) -> float | None:
        """Needed FLOPs over those that the peak allows in the same seconds."""
        known = [w for w in self.works if w.mfu is not None and w.peak_flops and w.compute_s]
        possible = sum((w.peak_flops or 0) * (w.compute_s or 0) for w in known)
        needed = sum((w.mfu or 0) * (w.peak_flops or 0) * (w.compute_s or 0) for w in known)
        return ratio(needed, possible) if known else None

    @property
    def tokens_per_s(self) -> float | None:
        known = [work for work in self.works if work.tokens and work.compute_s]
        return ratio(_sum(w.tokens for w in known), _sum(w.compute_s for w in known))

    @property
    def joules(self) -> float | None:
        return _sum(work.joules for work in self.works)

    @property
    def is_estimated(self) -> bool:
        return any(work.is_estimated for work in self.works)

    @property
    def eta_e(self) -> float | None:
        """Tokens per joule while computing."""
        known = [work for work in self.works if work.eta_e and work.tokens]
        joules = _sum((w.tokens or 0) / (w.eta_e or 1) for w in known)
        return ratio(_sum(w.tokens for w in known), joules)


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def latest_jobs(device: Device) -> list[JobTotals]:
    """The device's latest jobs, newest first; one query."""
    rows = Assignment.objects.filter(device=device, task="train", phase__in=("reported", "folded"))
    trainings = rows.select_related("round__job").order_by("-ended_at")[:TRAININGS]
    totals: dict[Any, JobTotals] = {}
    for training in trainings:
        job = totals.setdefault(training.round.job_id, JobTotals(training.round.job))
        job.works.append(training_figures(training))
    return list(totals.values())[:JOBS]
