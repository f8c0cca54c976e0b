"""What each device of a job gained over training alone: asked for by a person, told to everybody.

A training alone is an ordinary launched job of one device, linked to the job it is compared with
(``Job.alone_of``). Its participant is fixed at once: the same slot, data and tailoring, which keep
its seeds, its validation part and what it trains (``fedcore.spec.local_baseline``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils.text import capfirst

from fedcore.rounds.job_lifecycle import JobPhase
from fedcore.rounds.types import DELIVERED, RoundPhase, Task
from fedcore.spec.local_baseline import Compared, Score, alone_seat, alone_spec, refusal, summary
from webapp.accounts.models import User
from webapp.common.units import plausible
from webapp.devices.models import DeviceRole
from webapp.jobs.analysis import summaries as fleet
from webapp.jobs.analysis.device_metrics import training_figures
from webapp.jobs.lifecycle.event_log import job_event
from webapp.jobs.lifecycle.services import MoveRefused, create_job, move
from webapp.jobs.lifecycle.transitions import lock_job
from webapp.jobs.models import Assignment, Job, Participant

Json = dict[str, Any]
BROUGHT = [phase.value for phase in DELIVERED]
AGAIN = (JobPhase.FAILED.value, JobPhase.CANCELLED.value)  # of these another try may be asked for
OVER = (JobPhase.COMPLETED.value, *AGAIN)
COST_ROUNDS = 5  # the last ones, whose trainings say what a round costs a device


@dataclass(frozen=True)
class Finals:
    """What a device measured of the last round's model on ``examples`` of its own."""

    examples: int
    shared: Score | None
    own: Score | None


def last_scores(jobs: Iterable[Job]) -> dict[UUID, dict[int, Finals]]:
    """By job and slot; a device that did not measure the last round's model is left out."""
    rounds = {job.pk: int(job.spec.get("rounds", 1)) for job in jobs}
    parts = Assignment.objects.filter(
        round__job__in=rounds,
        round__number__in=set(rounds.values()),
        round__phase=RoundPhase.CLOSED.value,
        task=Task.EVALUATE.value,
        phase__in=BROUGHT,
    ).order_by("round__attempt", "attempt")
    found: dict[UUID, dict[int, Finals]] = {key: {} for key in rounds}
    for part in parts.select_related("round"):
        if part.round.number == rounds[part.round.job_id]:
            scores = _score(part.metrics), _score(part.metrics, "personal_")
            found[part.round.job_id][part.slot] = Finals(part.examples, *scores)
    return found


def _score(told: Mapping[str, Any], prefix: str = "") -> Score | None:
    rouge = plausible(told.get(f"{prefix}rougeL"), high=100.0)
    loss = plausible(told.get(f"{prefix}loss"))
    return None if rouge is None or loss is None else Score(rouge, loss)


def why_not_comparable(job: Job) -> str:
    """Why this job cannot be compared with training alone; '' if it can."""
    if job.alone_of_id is not None:
        return "this is itself a training alone; ask the job that it is compared with"
    if job.phase != JobPhase.COMPLETED.value:
        return (
            f"a {job.phase} job cannot be compared with training alone; that needs a job that is "
            "completed"
        )
    if why := refusal(job.job_spec):
        return why
    if not last_scores([job])[job.pk]:
        return "no device measured the model of the last round, so there is nothing to compare with"
    return ""


def start_baseline(job_id: UUID, user: User | None) -> None:
    """Have every device that took part train alone, but those that have or do. Raises MoveRefused.

    One that failed is tried again, one that was cancelled is launched anew; asking twice changes
    nothing.
    """
    with transaction.atomic():
        lock_job(job_id)
        job = Job.objects.get(pk=job_id)
        if why := why_not_comparable(job):
            raise MoveRefused(why)
        list(Job.objects.select_for_update().filter(alone_of=job).values_list("pk"))
        people, children = _people(job), _newest(job)
        able = {slot: person for slot, person in people.items() if not _gone(person)}
        if not able and not children:
            raise MoveRefused("; ".join(_gone(person) for person in people.values()))
        wanted = [slot for slot in able if slot not in children or children[slot].phase in AGAIN]
        for slot in wanted:
            child = children.get(slot)
            if child is not None and child.phase == JobPhase.FAILED.value:
                move(child.pk, "retry", user)
            else:
                _launch(job, able[slot], user)
        if wanted:
            who = user.get_username() if user else "the system"
            names = ", ".join(able[slot].device.name for slot in wanted)
            job_event(job, f"training alone, to compare with, asked for by {who}: {names}")


def _launch(job: Job, person: Participant, user: User | None) -> None:
    """One device's job: its place in it is fixed now, so that no look can choose another."""
    seat = alone_seat(person.slot, person.tailoring)
    child = create_job(alone_spec(job.job_spec, person.device.name), user, overrides_known=True)
    Job.objects.filter(pk=child.pk).update(alone_of=job)
    Participant.objects.create(
        job=child,
        device=person.device,
        slot=seat.slot,
        dataset=person.dataset,
        examples=person.examples,
        tailoring=dict(seat.tailoring),
    )


def _people(job: Job) -> dict[int, Participant]:
    """The devices that trained, by slot."""
    rows = Participant.objects.filter(job=job).select_related("device")
    rows = rows.prefetch_related("device__datasets").order_by("slot")
    return {row.slot: row for row in rows if row.trains}


def _newest(job: Job) -> dict[int, Job]:
    """The last training alone of each slot."""
    rows = Participant.objects.filter(job__alone_of=job).select_related("job")
    return {row.slot: row.job for row in rows.order_by("job__created_at")}


def _gone(person: Participant) -> str:
    """Why a device that took part cannot be asked to train any more; '' if it can."""
    device = person.device
    if device.revoked_at is not None:
        return f"{device.name} is revoked"
    if device.role == DeviceRole.AGGREGATOR:
        return f"{device.name} is an aggregator now, which does not train"
    if person.dataset not in [held.name for held in device.datasets.all()]:
        return f"{device.name} does not hold {person.dataset} any more"
    return ""


def comparison_json(job: Job) -> Json:
    """Each device's last scores, together and alone, with its state; and what all of them gained.

    ``open``: some still train or wait; ``can_ask``: something would be launched; ``cost_s``: of the
    slowest device, by its own last trainings (None: not known). ``refused`` says why there is none.
    """
    why, children = why_not_comparable(job), _newest(job)
    people = _people(job) if not why or children else {}
    scores = last_scores([job, *children.values()])
    heads = {head["id"]: head for head in fleet.job_summaries(_rows(children.values()))}
    lines = [
        _line(person, scores[job.pk].get(slot), children.get(slot), scores, heads)
        for slot, person in people.items()
    ]
    rows = [row for row, _ in lines]
    devices = [{**row.to_dict(), **line} for row, line in lines]
    can_ask = not why and any(line["can_ask"] for _, line in lines)
    return {
        "job": str(job.pk),
        "refused": why,
        "asked": bool(children),
        "open": any(child.phase not in OVER for child in children.values()),
        "can_ask": can_ask,
        "cost_s": _cost(job) if can_ask else None,
        "devices": devices,
        "summary": summary(rows),
    }


def _rows(jobs: Iterable[Job]) -> Any:
    return Job.objects.filter(pk__in=[job.pk for job in jobs])


def _line(
    person: Participant,
    mine: Finals | None,
    child: Job | None,
    scores: Mapping[UUID, Mapping[int, Finals]],
    heads: Mapping[str, Json],
) -> tuple[Compared, Json]:
    """A device's comparison, and where its training alone stands."""
    alone = scores[child.pk].get(person.slot) if child is not None and _done(child) else None
    state, reason, progress = _standing(person, child, heads)
    row, wrong = _compared(person.device.name, mine, alone)
    can_ask = not _gone(person) and (child is None or child.phase in AGAIN)
    return row, {
        "slot": person.slot,
        "device_id": person.device_id,
        "state": state,
        "reason": reason or wrong,
        "progress": progress,
        "can_ask": can_ask,
        "alone_job": str(child.pk) if child else None,
    }


def _compared(name: str, mine: Finals | None, alone: Finals | None) -> tuple[Compared, str]:
    """Both scores of a device, and why they cannot be compared where they cannot."""
    if mine is None:
        row = Compared(name, alone=alone.shared if alone else None)
        return row, "Did not measure the model of the last round"
    row = Compared(name, mine.shared, mine.own, alone.shared if alone else None)
    if alone is None or alone.examples == mine.examples:
        return row, ""
    now, then = alone.examples, mine.examples
    changed = f"Its data has changed: measured on {now} examples now, on {then} then"
    return replace(row, alone=None), changed


def gains(job: Job) -> dict[int, float]:
    """By slot: ROUGE-L points over training alone, of the model a device uses.

    That is its own where the method has one. {} where nobody asked; two queries.
    """
    children = {slot: child for slot, child in _newest(job).items() if _done(child)}
    scores = last_scores([job, *children.values()]) if children else {}
    found: dict[int, float] = {}
    for slot, child in children.items():
        row, _ = _compared("", scores[job.pk].get(slot), scores[child.pk].get(slot))
        if gain := row.own_gain or row.gain:
            found[slot] = gain.rougeL
    return found


def _standing(
    person: Participant, child: Job | None, heads: Mapping[str, Json]
) -> tuple[str, str, float]:
    """State, reason and progress (0 to 1) of a device's training alone."""
    if child is None:
        gone = _gone(person)
        return ("gone", gone, 0.0) if gone else ("not asked", "", 0.0)
    head = heads[str(child.pk)]
    reason = child.reason if child.phase in AGAIN else head["headline"]
    return child.phase, "" if _done(child) else capfirst(reason), head["progress"]


def _done(child: Job) -> bool:
    return child.phase == JobPhase.COMPLETED.value


def _cost(job: Job) -> float | None:
    """Seconds of the slowest device for all rounds, by the mean of its last trainings."""
    rounds = int(job.spec.get("rounds", 1))
    parts = Assignment.objects.filter(
        round__job=job,
        round__number__gt=rounds - COST_ROUNDS,
        task=Task.TRAIN.value,
        phase__in=BROUGHT,
    )
    seconds: dict[int, list[float]] = {}
    for part in parts:
        work = training_figures(part)
        spent = (work.compute_s or 0.0) + (work.communication_s or 0.0)
        seconds.setdefault(part.slot, []).append(spent)
    means = [sum(mine) / len(mine) for mine in seconds.values()]
    return rounds * max(means) if means and max(means) > 0 else None


def etag(found: Json) -> str:
    """Changes where what a page shows of it changes."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:12]
