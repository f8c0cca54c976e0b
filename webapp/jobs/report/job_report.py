"""The good, the bad, the ugly: what a finished job used well, what it wasted, what was unfair."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from webapp.jobs.analysis.device_metrics import PHASES, training_figures
from webapp.jobs.models import Assignment, Job
from webapp.jobs.report import efficiency, learning
from webapp.jobs.report.findings import Check, Finding, Severity
from webapp.jobs.report.job_figures import JobFigures, gather

Json = dict[str, Any]
CHECKS: tuple[Check, ...] = (*efficiency.CHECKS, *learning.CHECKS)
# Below this nothing general can be said; our choice.
LEAST_TRAININGS = 2
HEADINGS: tuple[tuple[Severity, str, str, str], ...] = (
    ("good", "Good", "What used the hardware well", "Nothing stood out."),
    ("bad", "Bad", "What was wasted, and where", "No waste was found."),
    ("ugly", "Ugly", "What failed or was unfair", "Nothing failed, and nobody was left behind."),
)


@dataclass(frozen=True)
class Report:
    """``thin`` says why there is too little evidence; then there are no findings."""

    figures: JobFigures
    findings: tuple[Finding, ...]
    thin: str = ""

    @property
    def sections(self) -> list[tuple[str, str, str, str, list[Finding]]]:
        return [(*heading, self.of(heading[0])) for heading in HEADINGS]

    def of(self, severity: Severity) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == severity]


def report(job: Job) -> Report:
    """Everything the checks find in a job's rows."""
    return judge(gather(job))


def judge(figures: JobFigures) -> Report:
    """The findings, or what is missing for them."""
    thin = _thin(figures)
    return Report(figures, () if thin else tuple(_found(figures)), thin)


def _thin(figures: JobFigures) -> str:
    trainings = len(figures.works)
    if not figures.rounds_closed and not figures.rounds_failed:
        return "no round has ended yet"
    if not trainings and figures.rounds_failed:
        return ""
    if trainings < LEAST_TRAININGS:
        return f"only {trainings} training{'' if trainings == 1 else 's'} was delivered"
    return ""


def _found(figures: JobFigures) -> Iterable[Finding]:
    for check in CHECKS:
        finding = check(figures)
        if finding is not None:
            yield replace(finding, key=check.__name__)


def report_json(job: Job) -> Json:
    """The report as plain values."""
    found = report(job)
    return {
        "job": str(job.pk),
        "thin": found.thin,
        "findings": [
            {
                "key": one.key,
                "severity": one.severity,
                "title": one.title,
                "sentence": one.sentence,
                "evidence": [
                    {"label": item.label, "value": item.value, "unit": item.unit}
                    for item in one.evidence
                ],
            }
            for one in found.findings
        ],
    }


FIGURES = (
    "loss",
    "tokens",
    "flops",
    "mfu",
    "peak_flops",
    "precision",
    "compute_s",
    "download_s",
    "upload_s",
    "wait_s",
    "granularity",
    "tokens_per_s",
    "measured_j",
    "estimated_j",
    "compute_j",
    "communication_j",
    "waiting_j",
    "eta_e",
    "up_bytes",
    "down_bytes",
    "at_socket",
    "retransfer_bytes",
    "rtt_s",
    "peak_memory_bytes",
    "reward",
    "reward_before",
    "reward_after",
)
HEAD = ("round", "attempt", "device", "phase", "reason", "examples")


def rows(job: Job) -> list[list[Any]]:
    """Head and rows of a CSV file: one for each device and round, units in the names."""
    parts = Assignment.objects.filter(round__job=job, task="train")
    ordered = parts.select_related("round", "device").order_by("round__number", "slot", "attempt")
    head = [*HEAD, *FIGURES, *(f"{phase}_s" for phase in PHASES)]
    return [head, *(_row(part) for part in ordered)]


def _row(part: Assignment) -> list[Any]:
    work = training_figures(part)
    phases = work.phase_s or {}
    about = [part.round.number, part.attempt, part.device.name, part.phase, part.reason]
    figures = [getattr(work, name) for name in FIGURES]
    return [*about, part.examples, *figures, *(phases.get(phase) for phase in PHASES)]
