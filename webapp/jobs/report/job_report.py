"""Report on a finished job, in three sections: good, bad (waste), ugly (failures, unfairness)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypedDict

from webapp.jobs.analysis.device_metrics import PHASES, training_figures
from webapp.jobs.models import Assignment, Job
from webapp.jobs.report import efficiency, learning
from webapp.jobs.report.findings import Check, Finding, Severity
from webapp.jobs.report.job_figures import JobFigures, gather

CHECKS: tuple[Check, ...] = (*efficiency.CHECKS, *learning.CHECKS)
# Below this there is too little evidence; our choice.
MIN_TRAININGS = 2
HEADINGS: tuple[tuple[Severity, str, str, str], ...] = (
    ("good", "Good", "What used the hardware well", "Nothing stood out."),
    ("bad", "Bad", "What was wasted, and where", "No waste was found."),
    ("ugly", "Ugly", "What failed or was unfair", "Nothing failed, and no device was left behind."),
)


@dataclass(frozen=True)
class Report:
    """``thin``: why there is too little evidence for findings; "" if there is enough."""

    figures: JobFigures
    findings: tuple[Finding, ...]
    thin: str = ""

    @property
    def sections(self) -> list[tuple[str, str, str, str, list[Finding]]]:
        return [(*heading, self.of(heading[0])) for heading in HEADINGS]

    def of(self, severity: Severity) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == severity]


def report(job: Job) -> Report:
    """The findings of all checks on a job's rows."""
    return judge(gather(job))


def judge(figures: JobFigures) -> Report:
    """The findings, or why there is too little evidence."""
    trainings = len(figures.works)
    thin = ""
    if not figures.rounds_closed and not figures.rounds_failed:
        thin = "no round has ended yet"
    elif trainings < MIN_TRAININGS and (trainings or not figures.rounds_failed):
        thin = f"only {trainings} training{'' if trainings == 1 else 's'} was delivered"
    if thin:
        return Report(figures, (), thin)
    findings = []
    for check in CHECKS:
        finding = check(figures)
        if finding is not None:
            findings.append(replace(finding, key=finding.key or check.__name__))
    return Report(figures, tuple(findings))


class EvidenceJson(TypedDict):
    label: str
    value: float
    unit: str


class FindingJson(TypedDict):
    key: str
    severity: Severity
    title: str
    sentence: str
    evidence: list[EvidenceJson]


class ReportJson(TypedDict):
    job: str
    thin: str
    findings: list[FindingJson]


def report_json(job: Job) -> ReportJson:
    """The report as the REST API sends it."""
    result = report(job)
    return {
        "job": str(job.pk),
        "thin": result.thin,
        "findings": [
            {
                "key": finding.key,
                "severity": finding.severity,
                "title": finding.title,
                "sentence": finding.sentence,
                "evidence": [
                    {"label": item.label, "value": item.value, "unit": item.unit}
                    for item in finding.evidence
                ],
            }
            for finding in result.findings
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
COLUMNS = ("round", "attempt", "device", "phase", "reason", "examples")


def rows(job: Job) -> list[list[Any]]:
    """Header and rows of a CSV file: one row per device and round, units in the names."""
    trainings = Assignment.objects.filter(round__job=job, task="train")
    trainings = trainings.select_related("round", "device")
    table: list[list[Any]] = [[*COLUMNS, *FIGURES, *(f"{phase}_s" for phase in PHASES)]]
    for item in trainings.order_by("round__number", "slot", "attempt"):
        figures = training_figures(item)
        phases = figures.phase_s or {}
        about = [item.round.number, item.attempt, item.device.name, item.phase, item.reason]
        values = [getattr(figures, name) for name in FIGURES]
        table.append([*about, item.examples, *values, *(phases.get(phase) for phase in PHASES)])
    return table
