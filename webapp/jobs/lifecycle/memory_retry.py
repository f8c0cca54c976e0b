"""A device ran out of memory: its next attempt trains fewer examples at a time."""

from __future__ import annotations

from fedcore.rounds.types import Task
from webapp.jobs.models import Assignment, Participant

OPTION = "train.micro_batch"
ADVICE = "lower the batch size or the source length, or take a smaller model"


def halve_micro_batch(assignment: Assignment, micro_batch: int) -> tuple[str, bool]:
    """Store half of it for the device, where that can help: what to add to the reason, and whether.

    ``micro_batch``: the examples that the device trained at a time, 0 where it does not know.
    Nothing is changed in a deterministic job, whose bits depend on it. Call it under the job's
    lock.
    """
    half = micro_batch // 2
    if assignment.task != Task.TRAIN.value or not half:
        return ADVICE, False
    spec = assignment.round.job.job_spec
    if spec.deterministic:
        return (
            f"it trained {micro_batch} examples at a time, on which the bits of this deterministic "
            f"job depend: start it again with {OPTION} {half}, or {ADVICE}",
            False,
        )
    participant = Participant.objects.get(job_id=assignment.round.job_id, slot=assignment.slot)
    before = participant.tailoring.get(OPTION)
    participant.tailoring = {**participant.tailoring, OPTION: min(half, before or half)}
    participant.save(update_fields=["tailoring"])
    return f"from now on it trains {half} instead of {micro_batch} examples at a time", True
