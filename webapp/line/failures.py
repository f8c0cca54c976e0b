"""Why a device's assignment ended without a result, and whether another attempt may help."""

from __future__ import annotations

from fedcore.formats.line_bodies import FailBody, Refuse
from webapp.jobs.lifecycle.memory_retry import halve_micro_batch
from webapp.jobs.models import Assignment


def reason_of(assignment: Assignment, body: FailBody | Refuse) -> tuple[str, bool]:
    """The reason with its step, and whether another attempt may help.

    Out of memory, the device trains fewer examples at a time from now on. Call it under the job's
    lock.
    """
    if isinstance(body, Refuse):
        return body.reason, False
    named = body.step is None or "step" in body.reason
    reason = body.reason if named else f"{body.reason} (at step {body.step})"
    if not body.out_of_memory:
        return reason, body.retryable
    advice, halved = halve_micro_batch(assignment, body.micro_batch)
    return f"{reason}; {advice}", halved
