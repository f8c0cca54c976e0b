"""What the live pages follow: each reader knows what it told last and tells only what is new.

Readers are plain synchronous objects; ``webapp.pages.live.consumers`` calls them from its sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from fedcore.rounds.job_lifecycle import JobPhase
from webapp.devices.models import Device
from webapp.jobs.analysis import summaries
from webapp.jobs.analysis.snapshot import ClosedRounds, snapshot
from webapp.jobs.models import Event, Job, Participant
from webapp.telemetry import series
from webapp.telemetry.models import Sample

Json = dict[str, Any]
EVENTS_AT_FIRST = 200
# A reader that is further behind gets the rest with its next messages.
SAMPLES_AT_ONCE = 5000


class SubjectDeleted(Exception):
    """What the page follows does not exist any more."""


def told_event(event: Event) -> Json:
    return {
        "seq": event.seq,
        "id": event.pk,
        "at": event.at.isoformat(timespec="milliseconds"),
        "level": event.level,
        "text": event.text,
        "device": event.device_id,
    }


class Changes:
    """Remembers what was told and returns only the parts of a value that differ now."""

    def __init__(self) -> None:
        self._told: Json = {}
        self._rounds: dict[int, Json] = {}

    def of(self, value: Json) -> Json:
        """The keys whose value is new; of ``rounds`` only the rounds that are."""
        news = {k: v for k, v in value.items() if k != "rounds" and self._told.get(k, ...) != v}
        rounds = [row for row in value.get("rounds", ()) if self._rounds.get(row["id"]) != row]
        if rounds or ("rounds" in value and not self._told):
            news["rounds"] = rounds
        self._told.update(news)
        self._rounds.update({row["id"]: row for row in rounds})
        return news


class JobReader:
    """Follows one job: its snapshot, events and samples."""

    def __init__(self, job_id: UUID) -> None:
        self.job_id = job_id
        self.memory = ClosedRounds()
        self.changes = Changes()
        self.events: int | None = None
        self.samples: dict[int, int] = {}
        self.started = False

    def start_at(self, cursors: Mapping[str, Any]) -> None:
        """Begin behind what the browser has."""
        self.events = cursors.get("events")
        self.samples = dict(cursors.get("samples", {}))

    def read(self) -> Json | None:
        """The next message; None where nothing is new."""
        job = (
            Job.objects.select_related("global_artefact", "merged_artefact")
            .filter(pk=self.job_id)
            .first()
        )
        if job is None:
            raise SubjectDeleted("this job does not exist any more")
        told = self.changes.of(snapshot(job, self.memory))
        events = self._events(job)
        found = self._samples(job)
        if not (told or events or found.samples or not self.started):
            return None
        self.started = True
        self.samples = found.cursors
        return {
            "type": "update",
            "snapshot": told,
            "events": events,
            "samples": found.samples,
            "thinned": found.thinned,
            "phase_s": found.phase_s,
            "cursors": {"events": self.events or 0, "samples": found.cursors},
        }

    def _events(self, job: Job) -> list[Json]:
        rows = Event.objects.filter(job=job)
        if self.events is None:
            newest = list(rows.order_by("-seq")[:EVENTS_AT_FIRST])[::-1]
        else:
            newest = list(rows.filter(seq__gt=self.events).order_by("seq")[:500])
        if newest:
            self.events = newest[-1].seq
        return [told_event(event) for event in newest]

    def _samples(self, job: Job) -> series.History:
        rows = series.job_samples(job)
        devices = list(Participant.objects.filter(job=job).values_list("device_id", flat=True))
        if not any(self.samples.get(i) for i in devices):
            return series.history(rows, devices)
        cursors = {i: self.samples.get(i, 0) for i in devices}
        return series.samples_after(rows, cursors, SAMPLES_AT_ONCE)


class DeviceReader:
    """Follows one device: presence, activity, samples, events."""

    def __init__(self, device_id: int) -> None:
        self.device_id = device_id
        self.changes = Changes()
        self.seq = 0
        self.event = 0
        self.started = False

    def start_at(self, cursors: Mapping[str, Any]) -> None:
        self.seq = dict(cursors.get("samples", {})).get(self.device_id, 0)
        self.event = cursors.get("events") or 0

    def read(self) -> Json | None:
        device = Device.objects.filter(pk=self.device_id).first()
        if device is None:
            raise SubjectDeleted("this device does not exist any more")
        told = self.changes.of(summaries.device_summary(device))
        events = self._events()
        rows = Sample.objects.filter(device=device)
        if self.seq:
            found = series.samples_after(rows, {device.pk: self.seq}, SAMPLES_AT_ONCE)
        else:
            recent = rows.filter(seq__gt=device.last_sample_seq - 20_000)
            found = series.history(recent, [device.pk], 3000)
        if not (told or events or found.samples or not self.started):
            return None
        self.started = True
        self.seq = found.cursors[device.pk]
        return {
            "type": "update",
            "snapshot": told,
            "events": events,
            "samples": found.samples,
            "thinned": found.thinned,
            "cursors": {"events": self.event, "samples": found.cursors},
        }

    def _events(self) -> list[Json]:
        rows = Event.objects.filter(device_id=self.device_id, pk__gt=self.event)
        newest = list(rows.order_by("-pk")[:100])[::-1]
        if newest:
            self.event = newest[-1].pk
        return [told_event(event) for event in newest]


def _presence() -> QuerySet[Device]:
    return Device.objects.only("id", "name", "last_seen_at", "revoked_at", "activity")


class FleetReader:
    """Follows the presence of every device and the heads of the jobs under way."""

    def __init__(self) -> None:
        self.devices: dict[int, Json] = {}
        self.jobs: dict[str, Json] = {}
        self.started = False

    def start_at(self, cursors: Mapping[str, Any]) -> None:
        """Nothing to start behind: the first message tells everything."""

    def read(self) -> Json | None:
        devices = {head["id"]: head for head in map(summaries.device_summary, _presence())}
        running = Job.objects.filter(phase__in=[JobPhase.RUNNING.value, "queued"], alone_of=None)
        jobs = {head["id"]: head for head in summaries.job_summaries(running)}
        news = [head for key, head in devices.items() if self.devices.get(key) != head]
        moved = [head for key, head in jobs.items() if self.jobs.get(key) != head]
        left = [key for key in self.jobs if key not in jobs]
        gone = [key for key in self.devices if key not in devices]
        if not (news or moved or left or gone or not self.started):
            return None
        self.devices, self.jobs, self.started = devices, jobs, True
        return {
            "type": "update",
            "devices": news,
            "jobs": moved,
            "left": left,
            "gone": gone,
            "counts": summaries.presence_counts(devices.values()),
        }
