"""Factories of database rows: a fleet, a running job, measurements."""

from __future__ import annotations

import math
import random
import uuid
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from fedcore.spec.job import JobSpec
from fedcore.spec.parse import parse_spec
from webapp.accounts.models import Role, User
from webapp.common.wake import wake_job
from webapp.devices.models import Credential, Dataset, Device, Enrolment, hashed
from webapp.jobs.lifecycle import site_state
from webapp.jobs.models import Artefact, Assignment, Event, Job, Participant, Round, Watch
from webapp.telemetry.models import Sample

PASSWORD = "correct horse battery staple"
NAMES = ("pi-kitchen", "jetson-lab", "nuc-office", "pi-garage", "xavier-van", "laptop-anna")
KINDS = (
    ("Raspberry Pi 5", "Cortex-A76", "", 8e9, 41e9, 0),
    ("Jetson AGX Orin", "Cortex-A78AE", "Orin GPU", 32e9, 4.1e12, 8.4e12),
    ("Intel NUC 13", "Core i5-1340P", "", 16e9, 420e9, 842e9),
)
POLICY = {"target": 3, "quorum": 2, "deadline_s": 1800.0, "lease_s": 60.0, "max_attempts": 5}


def make_user(name: str = "ada", role: Role = Role.ADMIN, **more: Any) -> User:
    return User.objects.create_user(name, f"{name}@example.org", PASSWORD, role=role, **more)


def make_device(
    name: str = "", number: int = 0, seen_s_ago: float | None = 1.0, **more: Any
) -> Device:
    kind, cpu, accelerator, memory, fp32, bf16 = KINDS[number % len(KINDS)]
    profile = {
        "kind": kind,
        "os": "Linux 6.1 aarch64",
        "cpu": cpu,
        "cores": 4,
        "threads": 4,
        "memory_bytes": memory,
        "accelerator": accelerator,
        "accelerator_memory_bytes": memory if accelerator else 0,
        "peak_flops": {"fp32": fp32, "bf16": bf16},
        "memory_bandwidth_bps": 9.1e9,
        "torch": "2.13.0",
    }
    seen = None if seen_s_ago is None else timezone.now() - timedelta(seconds=seen_s_ago)
    device = Device.objects.create(
        name=name or NAMES[number % len(NAMES)] + (f"-{number}" if number >= len(NAMES) else ""),
        profile=profile,
        agent_version="0.1.0",
        last_seen_at=seen,
        **more,
    )
    Credential.objects.create(
        device=device,
        token_hash=hashed(str(uuid.uuid4())),
        last_used_at=seen,
    )
    domain = ("law", "clinic", "travel", "support")[number % 4]
    Dataset.objects.create(
        device=device,
        name=domain,
        domain=domain,
        examples=180 + 137 * (number % 5),
        size_bytes=420_000,
        columns=["dialogue", "summary"],
    )
    return device


def make_fleet(count: int = 3, first: int = 0) -> list[Device]:
    """Devices numbered from ``first``; names follow from the numbers."""
    return [make_device(number=number) for number in range(first, first + count)]


def make_spec(**options: Any) -> JobSpec:
    return parse_spec({"name": "clinic notes", "rounds": 10, **options})


def make_job(devices: list[Device], phase: str = "running", **options: Any) -> Job:
    spec = make_spec(**options)
    job = Job.objects.create(
        name=spec.name,
        spec=spec.to_dict(),
        phase=phase,
        model_fingerprint=hashed("nano"),
        model_info={"parameters": 5_400_000, "trainable": 61_440},
        started_at=timezone.now() - timedelta(minutes=4),
    )
    for slot, device in enumerate(devices):
        dataset = device.datasets.get()
        Participant.objects.create(
            job=job, device=device, slot=slot, dataset=dataset.name, examples=dataset.examples
        )
    add_event(job, "launched by ada")
    return job


def add_event(job: Job, text: str, level: str = "info") -> Event:
    job.event_seq += 1
    job.save(update_fields=["event_seq"])
    return Event.objects.create(job=job, seq=job.event_seq, text=text, level=level)


def add_round(
    job: Job, number: int, started: datetime, phase: str = "closed", seconds: float = 40.0
) -> Round:
    """A round; number 0 only evaluates. In an open round the last device is still training."""
    people = list(job.participants.all())
    slots = [person.slot for person in people]
    closed = phase == "closed"
    loss = 3.4 * math.exp(-0.22 * number) + 0.9
    round_row = Round.objects.create(
        job=job,
        number=number,
        phase=phase,
        members=slots if number else [],
        evaluators=slots,
        policy=POLICY,
        started_at=started,
        collected_at=started + timedelta(seconds=0.7 * seconds) if closed and number else None,
        aggregated_at=started + timedelta(seconds=0.75 * seconds) if closed and number else None,
        ended_at=started + timedelta(seconds=seconds) if closed else None,
        deadline_at=started + timedelta(seconds=1800),
        evaluation=scores(loss, number) if closed else {},
    )
    for person in people:
        if number:
            add_training(
                round_row, person, started, seconds, closed or person.slot < len(people) - 1
            )
        if closed:
            add_evaluation(round_row, person, started, seconds, loss)
    return round_row


def scores(loss: float, number: int, away: float = 0.0) -> dict[str, float]:
    rouge = 17.0 + 26.0 * (1 - math.exp(-0.35 * number)) + away
    return {
        "loss": loss - away / 20,
        "rouge1": 1.25 * rouge,
        "rouge2": 0.55 * rouge,
        "rougeL": rouge,
        "examples": 64,
    }


def add_training(
    round_row: Round, person: Participant, started: datetime, seconds: float, done: bool
) -> Assignment:
    rng = random.Random(round_row.number * 100 + person.slot)
    work = seconds * (0.35 + 0.09 * person.slot)
    accepted = started + timedelta(seconds=0.6 + 0.4 * person.slot)
    part = Assignment.objects.create(
        round=round_row,
        device=person.device,
        slot=person.slot,
        task="train",
        phase="folded"
        if done and round_row.phase == "closed"
        else "reported"
        if done
        else "training",
        lease_until=timezone.now() + timedelta(seconds=60),
        accepted_at=accepted,
        ended_at=accepted + timedelta(seconds=work + 4.5) if done else None,
        examples=person.examples,
        bytes_up=1_376_256 if done else 0,
        bytes_down=1_376_256,
        metrics={
            "loss": 3.2 * math.exp(-0.2 * round_row.number) + rng.random() / 5,
            "seconds": work,
            "download_s": 1.4 + 0.3 * person.slot,
            "upload_s": 2.6,
            "mfu": 0.31 + 0.05 * person.slot,
            "mfu_peak_flops": (41e9, 8.4e12, 842e9)[person.slot % 3],
            "precision": "bf16" if person.slot % 3 else "fp32",
            "tokens": 51_200,
        }
        if done
        else {},
    )
    Assignment.objects.filter(pk=part.pk).update(offered_at=started)
    if not done:
        activity = {"assignment": str(part.pk), "phase": "training", "step": 11, "steps_total": 30}
        Device.objects.filter(pk=person.device_id).update(activity=activity)
    return part


def add_evaluation(
    round_row: Round, person: Participant, started: datetime, seconds: float, loss: float
) -> None:
    started_at = started + timedelta(seconds=(0.76 if round_row.number else 0.05) * seconds)
    away = (person.slot - 1) * 2.2
    part = Assignment.objects.create(
        round=round_row,
        device=person.device,
        slot=person.slot,
        task="evaluate",
        phase="folded",
        lease_until=started_at,
        accepted_at=started_at,
        ended_at=started_at + timedelta(seconds=0.14 * seconds + person.slot),
        metrics=scores(loss, round_row.number, away) | {"seconds": 0.14 * seconds, "tokens": 4000},
    )
    Assignment.objects.filter(pk=part.pk).update(offered_at=started_at)


def add_samples(part: Assignment, count: int, started: datetime, every_s: float = 1.0) -> int:
    """Add ``count`` samples after the device's newest; returns the newest seq."""
    device = Device.objects.get(pk=part.device_id)
    slot, number = part.slot, part.round.number
    rng = random.Random(device.last_sample_seq + slot)
    rows = []
    for i in range(count):
        fall = math.exp(-0.2 * (number + i / max(1, count)))
        rows.append(
            Sample(
                device=device,
                assignment=part,
                seq=device.last_sample_seq + 1 + i,
                at=started + timedelta(seconds=i * every_s),
                values={
                    "loss": 3.0 * fall + 0.7 + rng.gauss(0, 0.09) + 0.1 * slot,
                    "mfu": max(0.02, 0.31 + 0.05 * slot + rng.gauss(0, 0.015)),
                    "mfu_peak_flops": (41e9, 8.4e12, 842e9)[slot % 3],
                    "tokens_per_s": (700, 5200, 2300)[slot % 3] * (1 + rng.gauss(0, 0.04)),
                    "net_up_bps": 9e5 * (i > count - 4) + 300 * rng.random(),
                    "net_down_bps": 1.3e6 * (i < 2) + 500 * rng.random(),
                    "memory_bytes": 9.1e8 + 2e7 * rng.random(),
                    "peak_memory_bytes": 1.1e9,
                },
            )
        )
    Sample.objects.bulk_create(rows)
    newest = device.last_sample_seq + count
    Device.objects.filter(pk=device.pk).update(last_sample_seq=newest)
    return newest


def running_job(devices: list[Device], rounds: int = 4, samples: int = 22, **options: Any) -> Job:
    """A job that is running round ``rounds``."""
    job = make_job(devices, **options)
    started_at = timezone.now() - timedelta(seconds=42 * rounds + 20)
    for number in range(rounds + 1):
        start = started_at + timedelta(seconds=42 * number)
        round_row = add_round(job, number, start, "closed" if number < rounds else "collecting")
        for part in round_row.assignments.filter(task="train"):
            at = start + timedelta(seconds=2)
            count = samples if number < rounds else 14
            add_samples(part, count, at)
        if number < rounds:
            text = f"round {number} closed" if number else "the starting model was evaluated"
            add_event(job, text)
    add_event(job, "pi-kitchen: silent for longer than its lease of 60 s; offered again", "warning")
    adopt_artefact(job)
    return job


def adopt_artefact(job: Job) -> None:
    sha = hashed(str(job.pk))
    artefact, _ = Artefact.objects.get_or_create(
        sha256=sha, defaults={"size_bytes": 1_376_256, "kind": "global", "origin": "aggregate"}
    )
    Job.objects.filter(pk=job.pk).update(global_artefact=artefact)


def finish(job: Job, phase: str = "completed", reason: str = "") -> None:
    Job.objects.filter(pk=job.pk).update(phase=phase, reason=reason, ended_at=timezone.now())


def run_site() -> None:
    """The coordinator and an aggregation worker have just reported."""
    now = timezone.now()
    Watch.objects.update_or_create(pk=Watch.ONLY, defaults={"looked_at": now, "back_at": now})
    site_state.report_worker()


def make_enrolment(name: str, **more: Any) -> Enrolment:
    return Enrolment.objects.create(
        token_hash=hashed(str(uuid.uuid4())),
        name=name,
        expires_at=timezone.now() + timedelta(hours=1),
        **more,
    )


def grow(job: Job, count: int = 5) -> None:
    """Add samples to the job's newest trainings and wake the live pages."""
    newest = job.rounds.order_by("number").last()
    assert newest is not None
    for part in newest.assignments.filter(task="train"):
        add_samples(part, count, timezone.now(), 0.2)
    wake_job(job.pk)
