"""What PFIT's devices are paid for, and what their own training made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedcore.spec.options.method import PFIT
from fedcore.spec.rewards import described, extremes
from webapp.jobs.models import Job, Participant

Json = dict[str, Any]
BEFORE, AFTER = "reward_before", "reward_after"
# Of a training, where its method has rewards: the mean of its samples, and greedy summaries of the
# validation part by the received model and by the device's own. Sums without a unit.
REWARDED = ("reward", BEFORE, AFTER)


def are_paid(job: Job) -> bool:
    """Whether the job's devices learn from rewards."""
    return bool(job.spec.get("method", {}).get("name") == PFIT)


def newest(job: Job, people: Sequence[Participant], told: Sequence[Json]) -> dict[int, Json]:
    """By slot: what a device is paid for, and its last rewards; nothing where none learns from any.

    ``of`` is the sum, ``least`` and ``most`` what it can be; ``before`` and ``after`` are of round
    ``round``, ``drawn`` the mean of the samples of the last training, evaluated or not.
    """
    if not are_paid(job):
        return {}
    found = {person.slot: paid(job, person) for person in people}
    for row in told:
        for part in row["train"]:
            mine = found.get(part["slot"])
            if mine is None or part.get("reward") is None:
                continue
            mine["drawn"] = part["reward"]
            if part.get(BEFORE) is not None and part.get(AFTER) is not None:
                mine |= {"before": part[BEFORE], "after": part[AFTER], "round": row["number"]}
    return found


def paid(job: Job, person: Participant) -> Json:
    """The device's own weighting of the job's rewards, before anything is measured."""
    words = person.tailoring.get("method.rewards") or job.spec["method"]["rewards"]
    least, most = extremes(words)
    known: Json = dict.fromkeys(("drawn", "before", "after", "round"))
    return {"of": described(words), "least": least, "most": most, **known}
