"""Rewards of a PFIT job: each device's reward function, and rewards before and after training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fedcore.spec.options.method import stored_method
from fedcore.spec.rewards import described, extremes
from webapp.jobs.analysis.json_types import RewardJson, RoundJson
from webapp.jobs.models import Job, Participant

# Of a training: mean reward of its samples, and of greedy summaries of the validation part by the
# received model and by the trained one. Without a unit.
REWARDED: tuple[Literal["reward", "reward_before", "reward_after"], ...] = (
    "reward",
    "reward_before",
    "reward_after",
)


def has_rewards(job: Job) -> bool:
    """Whether the job's devices learn from rewards."""
    return stored_method(job.spec).has_rewards


def newest_rewards(
    job: Job, participants: Sequence[Participant], rounds: Sequence[RoundJson]
) -> dict[int, RewardJson]:
    """By slot; {} in a job without rewards. ``rounds`` are in order."""
    if not has_rewards(job):
        return {}
    rewards = {row.slot: reward_terms(job, row) for row in participants}
    for row in rounds:
        for training in row["train"]:
            newest = rewards.get(training["slot"])
            if newest is None or training.get("reward") is None:
                continue
            newest["drawn"] = training["reward"]
            before, after = training.get("reward_before"), training.get("reward_after")
            if before is not None and after is not None:
                newest |= {"before": before, "after": after, "round": row["number"]}
    return rewards


def reward_terms(job: Job, participant: Participant) -> RewardJson:
    """The device's weighting of the job's rewards, before any measurement."""
    terms = participant.tailoring.get("method.rewards") or job.spec["method"]["rewards"]
    least, most = extremes(terms)
    return {
        "of": described(terms),
        "least": least,
        "most": most,
        "drawn": None,
        "before": None,
        "after": None,
        "round": None,
    }
