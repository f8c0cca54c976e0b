"""Rewards of a PFIT job: each device's reward function, and rewards before and after training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedcore.spec.options.method import stored_method
from fedcore.spec.rewards import described, extremes
from webapp.jobs.models import Job, Participant

Json = dict[str, Any]
BEFORE, AFTER = "reward_before", "reward_after"
# Of a training, where its method has rewards: the mean of its samples, and greedy summaries of the
# validation part by the received model and by the device's own. Sums without a unit.
REWARDED = ("reward", BEFORE, AFTER)


def has_rewards(job: Job) -> bool:
    """Whether the job's devices learn from rewards."""
    return stored_method(job.spec).has_rewards


def newest_rewards(
    job: Job, people: Sequence[Participant], told: Sequence[Json]
) -> dict[int, Json]:
    """By slot: a device's reward function and its last rewards; {} in a job without rewards.

    ``of`` is the sum, ``least`` and ``most`` what it can be; ``before`` and ``after`` are of round
    ``round``, ``drawn`` the mean of the samples of the last training, evaluated or not.
    """
    if not has_rewards(job):
        return {}
    found = {person.slot: reward_terms(job, person) for person in people}
    for row in told:
        for part in row["train"]:
            mine = found.get(part["slot"])
            if mine is None or part.get("reward") is None:
                continue
            mine["drawn"] = part["reward"]
            if part.get(BEFORE) is not None and part.get(AFTER) is not None:
                mine |= {"before": part[BEFORE], "after": part[AFTER], "round": row["number"]}
    return found


def reward_terms(job: Job, person: Participant) -> Json:
    """The device's own weighting of the job's rewards, before anything is measured."""
    words = person.tailoring.get("method.rewards") or job.spec["method"]["rewards"]
    least, most = extremes(words)
    known: Json = dict.fromkeys(("drawn", "before", "after", "round"))
    return {"of": described(words), "least": least, "most": most, **known}
