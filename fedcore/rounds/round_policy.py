"""The limits of a round, from a job's options; used by the coordinator and by simulations."""

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
    """Limits of a synchronous round. ``predicted``: seconds that each member is expected to take.

    ``heads_only``: only its head can fold a cluster.
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
    """Limits of version ``number`` of an asynchronous job with that many devices.

    ``participation.fraction`` and ``minimum`` set how many devices train at a time; the buffer is
    never larger than that.
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
