"""Scores of a job's last round beside those of its local-only baselines.

A local-only baseline is a launched job of one device, linked by ``Job.alone_of`` to the job that it
is compared with (``fedcore.spec.local_baseline``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from fedcore.rounds.job_lifecycle import JobPhase
from fedcore.rounds.types import DELIVERED, RoundPhase, Task
from fedcore.spec.local_baseline import Compared, Score
from webapp.common.units import plausible
from webapp.jobs.models import Assignment, Job, Participant

DELIVERED_PHASES = [phase.value for phase in DELIVERED]


@dataclass(frozen=True)
class FinalScores:
    """A device's evaluation after the last round, on ``examples`` of its own.

    ``personal``: of its personalised model, where the method has one.
    """

    examples: int
    shared: Score | None
    personal: Score | None


def final_scores(jobs: Iterable[Job]) -> dict[UUID, dict[int, FinalScores]]:
    """By job and slot; a device that did not evaluate the last round is absent."""
    rounds = {job.pk: int(job.spec.get("rounds", 1)) for job in jobs}
    evaluations = Assignment.objects.filter(
        round__job__in=rounds,
        round__number__in=set(rounds.values()),
        round__phase=RoundPhase.CLOSED.value,
        task=Task.EVALUATE.value,
        phase__in=DELIVERED_PHASES,
    ).order_by("round__attempt", "attempt")
    scores: dict[UUID, dict[int, FinalScores]] = {key: {} for key in rounds}
    for item in evaluations.select_related("round"):
        if item.round.number == rounds[item.round.job_id]:
            shared, personal = _score(item.metrics), _score(item.metrics, "personal_")
            scores[item.round.job_id][item.slot] = FinalScores(item.examples, shared, personal)
    return scores


def _score(metrics: Mapping[str, Any], prefix: str = "") -> Score | None:
    rouge = plausible(metrics.get(f"{prefix}rougeL"), high=100.0)
    loss = plausible(metrics.get(f"{prefix}loss"))
    return None if rouge is None or loss is None else Score(rouge, loss)


def baselines_of(job: Job) -> dict[int, Job]:
    """The newest baseline by slot."""
    rows = Participant.objects.filter(job__alone_of=job).select_related("job")
    return {row.slot: row.job for row in rows.order_by("job__created_at")}


def is_complete(baseline: Job) -> bool:
    return baseline.phase == JobPhase.COMPLETED.value


def compare(
    name: str, federated: FinalScores | None, alone: FinalScores | None
) -> tuple[Compared, str]:
    """Both scores of a device, and why they cannot be compared ("" if they can)."""
    alone_score = alone.shared if alone else None
    if federated is None:
        return Compared(name, alone=alone_score), "Did not evaluate the model of the last round"
    row = Compared(name, federated.shared, federated.personal, alone_score)
    if alone is None or alone.examples == federated.examples:
        return row, ""
    changed = (
        f"Its data has changed: evaluated on {alone.examples} examples now, on "
        f"{federated.examples} then"
    )
    return replace(row, alone=None), changed


def gains(job: Job) -> dict[int, float]:
    """By slot: ROUGE-L points over the local-only baseline, of the model that the device uses.

    That is its personalised model where the method has one. {} without baselines; two queries.
    """
    baselines = {slot: row for slot, row in baselines_of(job).items() if is_complete(row)}
    scores = final_scores([job, *baselines.values()]) if baselines else {}
    points: dict[int, float] = {}
    for slot, baseline in baselines.items():
        row, _ = compare("", scores[job.pk].get(slot), scores[baseline.pk].get(slot))
        if gain := row.own_gain or row.gain:
            points[slot] = gain.rougeL
    return points
