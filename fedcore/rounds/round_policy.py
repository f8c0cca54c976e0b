"""The limits of one round, from a job's options: the same for the coordinator and a simulation."""

from __future__ import annotations

from collections.abc import Mapping

from fedcore.rounds.durations import deadline_s
from fedcore.rounds.sampling import Selection, devices_needed, quorum
from fedcore.rounds.types import Buffering, RoundPolicy
from fedcore.spec.job import JobSpec
from fedcore.spec.options.participation import ParticipationSpec


def round_policy(
    part: ParticipationSpec,
    chosen: Selection,
    predicted: Mapping[str, float],
    heads_only: bool = False,
) -> RoundPolicy:
    """Limits of a synchronous round of these members; ``predicted`` are their seconds.

    ``heads_only``: a cluster's head alone can fold it.
    """
    share, slack = part.deadline_quantile, part.deadline_slack
    return RoundPolicy(
        target=chosen.target,
        quorum=quorum(chosen.target, part),
        deadline_s=deadline_s(chosen.members, predicted, share, slack, part.deadline_s),
        lease_s=part.lease_s,
        max_attempts=part.max_attempts,
        evaluation_s=part.deadline_s,
        heads_only=heads_only,
    )


def version_policy(spec: JobSpec, number: int, devices: int) -> RoundPolicy:
    """Limits of version ``number`` of an asynchronous job of so many devices.

    A buffer never wants more updates than devices may train at a time, which
    ``participation.fraction`` and ``minimum`` decide.
    """
    part = spec.participation
    together = devices_needed(devices, part)
    size = max(1, min(part.buffer_size, together))
    last = number >= spec.rounds
    return RoundPolicy(
        target=size,
        quorum=1,
        deadline_s=part.deadline_s,
        lease_s=part.lease_s,
        max_attempts=part.max_attempts,
        buffering=Buffering(size, together, part.max_staleness, spec.seed, last),
    )
