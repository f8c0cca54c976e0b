"""Clusters of a job: which device aggregated which, and the bytes at each level."""

from __future__ import annotations

from django.db.models import Sum

from fedcore.rounds.types import AssignmentPhase, RoundPhase, Task
from fedcore.topology import depth
from webapp.jobs.analysis.json_types import ClustersJson
from webapp.jobs.models import Assignment, Job, Participant

WITH_MODEL = [RoundPhase.EVALUATING.value, RoundPhase.CLOSED.value]


def cluster_summary(job: Job) -> ClustersJson | None:
    """Each head with its folds in all rounds that made a model; None without a tree."""
    if not job.spec.get("tree", {}).get("parents"):
        return None
    rows = list(Participant.objects.filter(job=job).select_related("device").order_by("slot"))
    names = {row.slot: row.device.name for row in rows}
    parents = {row.slot: row.parent for row in rows if row.parent is not None}
    rounds = job.rounds.filter(number__gt=0, phase__in=WITH_MODEL)
    reports = list(rounds.values_list("fold", flat=True))
    folds = [fold for report in reports for fold in report.get("clusters", [])]
    trained = Assignment.objects.filter(
        round__job=job, task=Task.TRAIN.value, phase=AssignmentPhase.FOLDED.value
    )
    return {
        "rounds": len(reports),
        "heads": [
            {
                "name": names[head],
                "children": [names[child] for child in parents if parents[child] == head],
                "level": 1 + depth(parents, head),
                "folds": sum(fold["slot"] == head for fold in folds),
                "bytes_in": sum(fold["bytes_in"] for fold in folds if fold["slot"] == head),
                "bytes_up": sum(fold["bytes_up"] for fold in folds if fold["slot"] == head),
            }
            for head in sorted(set(parents.values()))
        ],
        "read": sum(report.get("bytes_read", 0) for report in reports),
        "sent": trained.aggregate(sent=Sum("update_artefact__size_bytes"))["sent"] or 0,
    }
