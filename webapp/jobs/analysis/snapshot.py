"""What a page shows of a job now: one JSON value for the socket, the REST API and the first load.

Rounds that have ended never change again, but for those of an asynchronous job that still have
devices at work, so a reader that comes back keeps them in a ``ClosedRounds``
and only the newest are read from the database.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.db.models import Prefetch, Q, Sum
from django.utils import timezone

from fedcore.rounds import job_lifecycle
from fedcore.rounds.job_lifecycle import JobPhase
from fedcore.rounds.queries import waiting_for_buffer
from fedcore.rounds.types import ENDED, AssignmentPhase, RoundPhase, Task
from webapp.jobs.analysis import device_rewards, round_snapshot, scores
from webapp.jobs.artefacts.download import available_downloads
from webapp.jobs.lifecycle.round_rows import OPEN, is_buffered, open_rounds, to_round
from webapp.jobs.models import Assignment, Job, Participant, Round

Json = dict[str, Any]
People = list[Participant]
# Figures per device are sent for as many of the newest rounds as stay below this many.
MAX_DETAILS = 4000
NO_TRAFFIC: Json = {"down": None, "up": None, "granularity": None, "round": None}
ENDED_PHASES = tuple(phase.value for phase in ENDED)


@dataclass
class ClosedRounds:
    """The first rounds, up to the last that nothing can change any more, by primary key."""

    ended: dict[int, Json] = field(default_factory=dict)


def snapshot(job: Job, memory: ClosedRounds | None = None) -> Json:
    """The state of a job with everything its page shows, samples and events apart."""
    people = list(Participant.objects.filter(job=job).select_related("device").order_by("slot"))
    rows = _rounds(job, len(people), memory)
    current = rows[-1] if rows else None
    told = _told(rows, memory)
    total = int(job.spec.get("rounds", 1))
    return {
        "id": str(job.pk),
        "name": job.name,
        "phase": job.phase,
        "reason": job.reason,
        "headline": headline(job, current, people),
        "round": _head(current, total),
        "buffer": _buffer(current),
        "progress": progress(job, current, people, total),
        "eta_s": _eta(job, current, told, total),
        "created_at": _iso(job.created_at),
        "started_at": _iso(job.started_at),
        "ended_at": _iso(job.ended_at),
        "tiles": _tiles(job, told),
        "devices": _devices(job, people, current, told),
        "evenness": _evenness(people, told),
        "rounds": told,
        "moves": moves(job),
        "artefacts": available_downloads(job),
    }


def moves(job: Job) -> list[str]:
    """What a person may ask for now."""
    phase = JobPhase(job.phase)
    return [
        move for move in job_lifecycle.PERSON_MOVES if not job_lifecycle.move_refusal(phase, move)
    ]


def headline(job: Job, current: Round | None, people: list[Participant]) -> str:
    """One sentence: what it waits for, or how it ended."""
    if job.phase == JobPhase.QUEUED or (job.phase == JobPhase.RUNNING and current is None):
        return job.reason or "waiting for the coordinator to write the first model"
    if job.phase != JobPhase.RUNNING or current is None:
        return job.reason or {"draft": "not launched yet", "paused": "paused"}.get(job.phase, "")
    names = {person.slot: person.device.name for person in people}
    window = [to_round(row, names) for row in _open(current)]
    seen = {
        person.device.name: person.device.last_seen_at.timestamp()
        for person in people
        if person.device.last_seen_at is not None
    }
    waiting = waiting_for_buffer(window, timezone.now().timestamp(), seen)
    return waiting or "waiting for the coordinator to start the next round"


def progress(job: Job, current: Round | None, people: list[Participant], total: int) -> float:
    """Share of the job that is done, from 0 to 1."""
    if job.phase == JobPhase.COMPLETED:
        return 1.0
    if current is None:
        return 0.0
    buffer = _buffer(current)
    if buffer is not None and current.phase == RoundPhase.COLLECTING.value:
        within = 0.75 * min(1.0, float(buffer["held"]) / float(buffer["size"]))
    else:
        within = round_snapshot.progress(current, {p.slot: p.device for p in people})
    return max(0.0, min(1.0, (max(0, current.number - 1) + within) / max(1, total)))


def _open(current: Round) -> list[Round]:
    return open_rounds(current) if is_buffered(current) else [current]


def _buffer(current: Round | None) -> Json | None:
    """How many updates the next model of an asynchronous job waits for, and how many it has."""
    if current is None or not is_buffered(current):
        return None
    held = Assignment.objects.filter(
        round__job_id=current.job_id,
        task=Task.TRAIN.value,
        phase=AssignmentPhase.REPORTED.value,
    )
    return {"size": current.policy["buffering"]["size"], "held": held.count()}


def _rounds(job: Job, devices: int, memory: ClosedRounds | None) -> list[Round]:
    """The rounds to read: those that are not known to have ended, and the last."""
    wanted = Round.objects.filter(job=job)
    if memory is not None and memory.ended:
        wanted = wanted.filter(~Q(phase__in=ENDED_PHASES) | Q(pk__gte=max(memory.ended)))
    keep = max(20, MAX_DETAILS // max(1, 2 * devices))
    newest = list(wanted.order_by("-number", "-attempt").values_list("pk", flat=True)[:keep])
    mine = Assignment.objects.filter(round__in=newest).order_by("slot", "attempt")
    rows = wanted.order_by("number", "attempt").prefetch_related(
        Prefetch("assignments", queryset=mine)
    )
    return list(rows)


def _told(rows: list[Round], memory: ClosedRounds | None) -> list[Json]:
    if memory is None:
        return [round_snapshot.round_json(row) for row in rows]
    settled, open_ = True, []
    for row in rows:
        settled = settled and row.phase in ENDED_PHASES and not _goes_on(row, rows)
        if settled:
            memory.ended.setdefault(row.pk, round_snapshot.round_json(row))
        else:
            open_.append(round_snapshot.round_json(row))
    return [*memory.ended.values(), *open_]


def _goes_on(row: Round, rows: list[Round]) -> bool:
    """Whether devices still train on a closed version of an asynchronous job, or evaluate it."""
    if not is_buffered(row):
        return False
    held = any(part.phase in OPEN for part in row.assignments.all())
    newer = any(other.evaluators and other.number > row.number for other in rows)
    return held or bool(row.evaluators and not newer)


def _head(current: Round | None, total: int) -> Json:
    if current is None:
        return {"number": 0, "of": total, "phase": "", "attempt": 0, "deadline_at": None}
    return {
        "number": current.number,
        "of": total,
        "phase": current.phase,
        "attempt": current.attempt,
        "deadline_at": _iso(current.deadline_at),
    }


def _eta(job: Job, current: Round | None, told: list[Json], total: int) -> float | None:
    """Seconds left, from the last five rounds; None before the first has closed."""
    if job.phase != JobPhase.RUNNING:
        return None
    closed = [row for row in told if row["number"] and row["phase"] == RoundPhase.CLOSED.value]
    lengths = [row["duration_s"] for row in closed if row["duration_s"] is not None][-5:]
    if not lengths:
        return None
    mean = sum(lengths) / len(lengths)
    left = total - len(closed)
    spent = 0.0
    if current is not None and current.phase not in ENDED_PHASES and current.started_at is not None:
        spent = min(mean, (timezone.now() - current.started_at).total_seconds())
    return float(round(max(0.0, left * mean - spent)))


def _tiles(job: Job, told: list[Json]) -> Json:
    scored = [row["evaluation"] for row in told if row["evaluation"].get("rougeL") is not None]
    last = scored[-1] if scored else {}
    first = told[0]["evaluation"] if told and told[0]["number"] == 0 else {}
    sums = Assignment.objects.filter(round__job=job).aggregate(
        up=Sum("bytes_up", default=0), down=Sum("bytes_down", default=0)
    )
    work = [part for row in told for part in row["train"] if part["mfu"] is not None]
    owed = sum(part["compute_s"] * part["peak"] for part in work)
    return {
        "rougeL": last.get("rougeL"),
        "rougeL_base": first.get("rougeL"),
        "loss": last.get("loss"),
        "loss_base": first.get("loss"),
        "mfu": sum(p["mfu"] * p["compute_s"] * p["peak"] for p in work) / owed if owed else None,
        "bytes_up": sums["up"],
        "bytes_down": sums["down"],
        "tokens": sum(part["tokens"] for row in told for part in row["train"]),
        **_energy([part for row in told for part in row["train"]]),
    }


def _energy(parts: list[Json]) -> Json:
    """Joules of the trainings whose energy is known, and how many tokens each bought."""
    known = [part for part in parts if part["energy_j"]]
    bought = [part for part in known if part["eta_e"]]
    spent = sum(part["tokens"] / part["eta_e"] for part in bought)
    return {
        "joules": sum(part["energy_j"] for part in known) if known else None,
        "joules_estimated": sum(part["energy_estimated"] for part in known),
        "joules_of": len(known),
        "trainings": sum(part["compute_s"] > 0 for part in parts),
        "eta_e": sum(part["tokens"] for part in bought) / spent if spent else None,
    }


def _devices(job: Job, people: People, current: Round | None, told: list[Json]) -> list[Json]:
    examples = sum(person.examples for person in people) or 1
    newest = round_snapshot.held_assignments(_open(current) if current is not None else [])
    traffic, scored = _traffic(told), scores.newest_scores(told)
    rewarded = device_rewards.newest_rewards(job, people, told)
    names: dict[int | None, str] = {person.slot: person.device.name for person in people}
    reports: dict[int, Json] = {}
    for row in told:
        reports.update({part["slot"]: part for part in row["train"] if part["mfu"] is not None})
    return [
        {
            "id": person.device_id,
            "slot": person.slot,
            "name": person.device.name,
            "presence": person.device.presence,
            "last_seen_at": _iso(person.device.last_seen_at),
            "dataset": person.dataset,
            "parent": names.get(person.parent, ""),
            "examples": person.examples,
            "share": person.examples / examples,
            **round_snapshot.doing(person.device, newest.get(person.slot)),
            **round_snapshot.peak_of(person.device, reports.get(person.slot)),
            "traffic": traffic.get(person.slot, NO_TRAFFIC),
            "score": scored.get(person.slot, scores.NO_SCORE),
            "reward": rewarded.get(person.slot),
        }
        for person in people
    ]


def _evenness(people: list[Participant], told: list[Json]) -> Json | None:
    """How evenly the model serves the devices, by the last evaluation of each."""
    names = {person.slot: person.device.name for person in people}
    found = scores.newest_scores(told)
    return scores.score_evenness({names[slot]: one for slot, one in found.items() if slot in names})


def _traffic(told: list[Json]) -> dict[int, Json]:
    """By slot: bytes of all it did, and G of the last training that tells one."""
    found: dict[int, Json] = {}
    for row in told:
        for part in (*row["train"], *row["fold"], *row["evaluate"]):
            held = found.setdefault(part["slot"], dict(NO_TRAFFIC))
            for way in ("down", "up"):
                if part[f"bytes_{way}"] is not None:
                    held[way] = (held[way] or 0) + part[f"bytes_{way}"]
            if part.get("granularity") is not None:
                held |= {"granularity": part["granularity"], "round": row["number"]}
    return found


def _iso(at: Any) -> str | None:
    return at.isoformat() if at is not None else None
