"""What a job's page tells of its clusters: who folded whom, and the bytes of each level."""

from __future__ import annotations

from typing import Any

from django.db.models import Sum

from fedcore.rounds.types import AssignmentPhase, RoundPhase, Task
from fedcore.topology import depth
from webapp.jobs.models import Assignment, Job, Participant

Json = dict[str, Any]
MADE = [RoundPhase.EVALUATING.value, RoundPhase.CLOSED.value]


def cluster_summary(job: Job) -> Json | None:
    """Each head with what it folded in all rounds that made a model; None without a tree.

    ``read``: bytes of updates that the server folded; ``sent``: of those that devices trained.
    """
    if not job.spec.get("tree", {}).get("parents"):
        return None
    people = list(Participant.objects.filter(job=job).select_related("device").order_by("slot"))
    names = {row.slot: row.device.name for row in people}
    above = {row.slot: row.parent for row in people if row.parent is not None}
    folds = list(job.rounds.filter(number__gt=0, phase__in=MADE).values_list("fold", flat=True))
    done = [one for fold in folds for one in fold.get("clusters", [])]
    trained = Assignment.objects.filter(
        round__job=job, task=Task.TRAIN.value, phase=AssignmentPhase.FOLDED.value
    )
    return {
        "rounds": len(folds),
        "heads": [
            _head(names[head], [names[c] for c in above if above[c] == head], level, mine)
            for head in sorted(set(above.values()))
            for level in [1 + depth(above, head)]
            for mine in [[one for one in done if one["slot"] == head]]
        ],
        "read": sum(fold.get("bytes_read", 0) for fold in folds),
        "sent": trained.aggregate(sent=Sum("update_artefact__size_bytes"))["sent"] or 0,
    }


def _head(name: str, children: list[str], level: int, folds: list[Json]) -> Json:
    return {
        "name": name,
        "children": children,
        "level": level,
        "folds": len(folds),
        "bytes_in": sum(one["bytes_in"] for one in folds),
        "bytes_up": sum(one["bytes_up"] for one in folds),
    }
