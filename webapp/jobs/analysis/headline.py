"""The sentence on a job: what it waits for, or how it ended."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from django.utils import timezone

from fedcore.rounds.job_lifecycle import JobPhase
from fedcore.rounds.queries import waiting_for_buffer
from fedcore.rounds.types import AssignmentPhase, RoundPhase
from webapp.common import units
from webapp.devices.models import Device
from webapp.jobs.analysis.round_snapshot import current_assignments
from webapp.jobs.lifecycle.round_rows import is_buffered, open_rounds, to_round
from webapp.jobs.lifecycle.site_state import SiteFaults, SitePart
from webapp.jobs.models import Assignment, Job, Participant, Round

ENDED_TEXTS = {"draft": "not launched yet", "paused": "paused"}


def headline(
    job: Job, current: Round | None, participants: Sequence[Participant], faults: SiteFaults
) -> str:
    """One sentence. ``current``: the newest round; ``faults``: of the site."""
    if job.phase not in (JobPhase.QUEUED, JobPhase.RUNNING):
        return job.reason or ENDED_TEXTS.get(job.phase, "")
    if job.phase == JobPhase.QUEUED or current is None:
        waiting = job.reason or "waiting for the coordinator to write the first model"
    else:
        # Between two rounds the coordinator has noted what the next one needs.
        waiting = _waiting_for_round(current, participants) or job.reason
        waiting = waiting or "waiting for the coordinator to start the next round"
    aggregating = current is not None and current.phase == RoundPhase.AGGREGATING.value
    needs_worker = aggregating or job.global_artefact_id is None
    stopping = [
        fault.text for fault in faults if needs_worker or fault.part is not SitePart.AGGREGATION
    ]
    return "; ".join([*(text for text in stopping if text not in waiting), waiting])


def _waiting_for_round(current: Round, participants: Sequence[Participant]) -> str:
    """What the open rounds wait for; '' where they have ended."""
    names = {row.slot: row.device.name for row in participants}
    rows = open_window(current)
    last_seen = {
        row.device.name: row.device.last_seen_at.timestamp()
        for row in participants
        if row.device.last_seen_at is not None
    }
    assignments = current_assignments(rows)
    ids = {str(part.pk) for row in rows for part in row.assignments.all()}
    reasons = {
        row.device.name: reason
        for row in participants
        if (reason := idle_reason(row.device, assignments.get(row.slot), ids))
    }
    window = [to_round(row, names) for row in rows]
    return waiting_for_buffer(window, timezone.now().timestamp(), last_seen, reasons)


def idle_reason(device: Device, part: Assignment | None, ids: Collection[str]) -> str:
    """Why a device does not work on its assignment; '' where it may.

    ``ids``: of the job's assignments, in text.
    """
    at_work = device.activity.get("assignment")
    if device.is_online and part is not None and at_work == str(part.pk):
        return ""  # whatever it lacks keeps it from new work only
    reason = device.ability
    if reason is not None and reason.blocks:
        return reason.text
    if not device.is_online:
        seen = f", last seen {units.ago(device.last_seen_at)}" if device.last_seen_at else ""
        return f"{device.presence}{seen}"
    offered = part is not None and part.phase == AssignmentPhase.OFFERED.value
    return "busy with other work" if offered and at_work and at_work not in ids else ""


def open_window(current: Round) -> list[Round]:
    """The rounds with work in flight, the newest last."""
    return open_rounds(current) if is_buffered(current) else [current]
