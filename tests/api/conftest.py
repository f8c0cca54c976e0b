"""Users of every role with tokens, and a small federation in the database."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.utils import timezone
from rest_framework.test import APIClient

from fedcore.spec.parse import parse_spec
from webapp.accounts.models import User, create_token
from webapp.devices.models import Credential, Dataset, Device, Enrolment, hashed
from webapp.jobs.models import (
    Artefact,
    ArtefactKind,
    Assignment,
    Event,
    FoldPlan,
    FoldShard,
    Job,
    Participant,
    Round,
    Watch,
)
from webapp.telemetry.models import Sample

DEVICE_TOKEN = "a-device-token"
V1 = "/api/v1"


@pytest.fixture
def people(viewer: User, operator: User, admin: User) -> dict[str, User]:
    """One person per role, named like it."""
    return {"viewer": viewer, "operator": operator, "admin": admin}


@pytest.fixture
def client_of(people: dict[str, User]) -> Callable[[str], APIClient]:
    """A client that carries a person's token; 'nobody' carries none, 'device' a device's."""

    def make(who: str) -> APIClient:
        client = APIClient()
        if who == "device":
            client.credentials(HTTP_AUTHORIZATION=f"Device {DEVICE_TOKEN}")
        elif who != "nobody":
            _, secret = create_token(people[who], f"token of {who}")
            client.credentials(HTTP_AUTHORIZATION=f"Token {secret}")
        return client

    return make


@pytest.fixture
def viewer_api(client_of: Callable[[str], APIClient]) -> APIClient:
    return client_of("viewer")


@pytest.fixture
def operator_api(client_of: Callable[[str], APIClient]) -> APIClient:
    return client_of("operator")


@pytest.fixture
def admin_api(client_of: Callable[[str], APIClient]) -> APIClient:
    return client_of("admin")


def frame(**tensors: list[float]) -> bytes:
    """A safetensors file of fp32 vectors."""
    header, body = {}, b""
    for name, values in tensors.items():
        raw = struct.pack(f"<{len(values)}f", *values)
        offsets = [len(body), len(body) + len(raw)]
        header[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": offsets}
        body += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def put_artefact(content: bytes, kind: str = ArtefactKind.GLOBAL) -> Artefact:
    digest = hashlib.sha256(content).hexdigest()
    storages["artefacts"].save(Artefact.path_of(digest), ContentFile(content))
    artefact, _ = Artefact.objects.get_or_create(
        sha256=digest, defaults={"size_bytes": len(content), "kind": kind, "origin": "test"}
    )
    return artefact


def add_device(name: str) -> Device:
    device = Device.objects.create(name=name, last_seen_at=timezone.now(), profile={"cores": 4})
    Dataset.objects.create(device=device, name="law", domain="law", examples=40)
    return device


def add_job(devices: list[Device], name: str = "a job", phase: str = "running") -> Job:
    """A job with one closed round, one assignment and two samples per device, and two events."""
    spec = parse_spec({"name": name, "rounds": 2}).to_dict()
    model = put_artefact(frame(weight=[float(Job.objects.count()), 1.0]))
    job = Job.objects.create(
        name=name, spec=spec, phase=phase, global_artefact=model, started_at=timezone.now()
    )
    round_ = Round.objects.create(
        job=job,
        number=1,
        phase="closed",
        members=list(range(len(devices))),
        global_artefact=model,
        started_at=timezone.now(),
        ended_at=timezone.now(),
        policy={"target": 1, "quorum": 1, "deadline_s": 60, "lease_s": 30, "max_attempts": 3},
    )
    for slot, device in enumerate(devices):
        Participant.objects.create(job=job, device=device, slot=slot, dataset="law", examples=40)
        part = Assignment.objects.create(
            round=round_,
            device=device,
            slot=slot,
            task="train",
            phase="folded",
            lease_until=timezone.now(),
        )
        add_samples(device, part, 2)
    for seq in (1, 2):
        Event.objects.create(job=job, seq=seq, text=f"line {seq}")
    Job.objects.filter(pk=job.pk).update(event_seq=2)
    return job


def add_samples(device: Device, part: Assignment, count: int) -> None:
    first = Sample.objects.filter(device=device).count()
    now = timezone.now()
    Sample.objects.bulk_create(
        Sample(
            device=device,
            seq=first + number + 1,
            assignment=part,
            at=now + timedelta(seconds=number),
            values={"loss": 2.0 - number / count, "mfu": 0.3},
        )
        for number in range(count)
    )


@pytest.fixture
def fleet(people: dict[str, User]) -> dict[str, Any]:
    """Two devices, one with a credential; a job; an enrolment; an update; a token of the admin."""
    devices = [add_device("pi-kitchen"), add_device("pi-porch")]
    Credential.objects.create(
        device=devices[0],
        token_hash=hashed(DEVICE_TOKEN),
    )
    job = add_job(devices)
    enrolment = Enrolment.objects.create(
        token_hash=hashed("x"),
        name="pi-attic",
        expires_at=timezone.now() + timedelta(hours=1),
        created_by=people["operator"],
    )
    token, _ = create_token(people["admin"], "spare")
    plan = FoldPlan.objects.create(round=Round.objects.get(), members=[])
    FoldShard.objects.create(plan=plan, start=0, stop=2)
    Watch.objects.create(pk=Watch.ONLY, looked_at=timezone.now(), back_at=timezone.now())
    return {
        "devices": devices,
        "job": job,
        "round": Round.objects.get(),
        "assignment": Assignment.objects.first(),
        "event": Event.objects.first(),
        "enrolment": enrolment,
        "artefact": job.global_artefact,
        "update": put_artefact(frame(weight=[9.0]), ArtefactKind.UPDATE),
        "token": token,
        "users": people,
    }
