"""What the sockets of the live pages send: each reader remembers its last message and returns news.

Readers are plain synchronous objects; ``webapp.pages.live.consumers`` calls them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict
from uuid import UUID

from fedcore.rounds.job_lifecycle import JobPhase
from webapp.devices.models import Device
from webapp.jobs.analysis import summaries
from webapp.jobs.analysis.json_types import DeviceSummary, JobSummary
from webapp.jobs.analysis.snapshot import ClosedRounds, snapshot
from webapp.jobs.lifecycle.site_state import site_faults
from webapp.jobs.models import Event, Job, Participant
from webapp.telemetry import series
from webapp.telemetry.models import Sample
from webapp.telemetry.series import PhaseSumsJson, SampleJson

Json = dict[str, Any]
FIRST_EVENTS = 200
# A reader that is further behind gets the rest with its next messages.
MAX_SAMPLES = 5000


class SubjectDeleted(Exception):
    """The job or device of the page has been deleted."""


class Cursors(TypedDict, total=False):
    """What a browser already has: the newest event, and the newest sample of each device."""

    events: int | None
    samples: dict[int, int]


class EventJson(TypedDict):
    """One line of an event log."""

    seq: int
    id: int
    at: str
    level: str
    text: str
    device: int | None


class PageUpdate(TypedDict):
    """A message to the page of a job or a device; ``snapshot`` holds only what has changed."""

    type: str
    snapshot: Json
    events: list[EventJson]
    samples: list[SampleJson]
    thinned: bool
    phase_s: NotRequired[dict[int, PhaseSumsJson]]
    cursors: Cursors


class FleetUpdate(TypedDict):
    """A message to pages that list devices or jobs; ``left`` and ``gone`` are ids no longer there.

    ``left``: jobs that are not running any more; ``gone``: devices that were deleted. ``site``:
    what the site itself lacks.
    """

    type: str
    devices: list[DeviceSummary]
    jobs: list[JobSummary]
    left: list[str]
    gone: list[int]
    counts: dict[str, int]
    site: list[str]


def event_json(event: Event) -> EventJson:
    return {
        "seq": event.seq,
        "id": event.pk,
        "at": event.at.isoformat(timespec="milliseconds"),
        "level": event.level,
        "text": event.text,
        "device": event.device_id,
    }


class ChangeTracker:
    """Remembers the values sent so far and returns the parts of a new one that differ."""

    def __init__(self) -> None:
        self._sent: Json = {}
        self._rounds: dict[int, Json] = {}

    def changes(self, value: Mapping[str, Any]) -> Json:
        """The keys whose value has changed; of ``rounds``, the rounds that have."""
        changed = {k: v for k, v in value.items() if k != "rounds" and self._sent.get(k, ...) != v}
        rounds = [row for row in value.get("rounds", ()) if self._rounds.get(row["id"]) != row]
        if rounds or ("rounds" in value and not self._sent):
            changed["rounds"] = rounds
        self._sent.update(changed)
        self._rounds.update({row["id"]: row for row in rounds})
        return changed


class JobReader:
    """Follows one job: its snapshot, events and samples."""

    def __init__(self, job_id: UUID) -> None:
        self.job_id = job_id
        self.memory = ClosedRounds()
        self.tracker = ChangeTracker()
        self.events: int | None = None
        self.samples: dict[int, int] = {}
        self.started = False

    def start_at(self, cursors: Cursors) -> None:
        """Skip what the browser already has."""
        self.events = cursors.get("events")
        self.samples = dict(cursors.get("samples", {}))

    def read(self) -> PageUpdate | None:
        """The next message; None if nothing is new."""
        job = (
            Job.objects.select_related("global_artefact", "merged_artefact")
            .filter(pk=self.job_id)
            .first()
        )
        if job is None:
            raise SubjectDeleted("this job has been deleted")
        changes = self.tracker.changes(snapshot(job, self.memory))
        events = self._new_events(job)
        rows = series.job_samples(job)
        devices = list(Participant.objects.filter(job=job).values_list("device_id", flat=True))
        if any(self.samples.get(i) for i in devices):
            cursors = {i: self.samples.get(i, 0) for i in devices}
            history = series.samples_after(rows, cursors, MAX_SAMPLES)
        else:
            history = series.history(rows, devices)
        if not (changes or events or history.samples or not self.started):
            return None
        self.started = True
        self.samples = history.cursors
        return {
            "type": "update",
            "snapshot": changes,
            "events": events,
            "samples": history.samples,
            "thinned": history.thinned,
            "phase_s": history.phase_s,
            "cursors": {"events": self.events or 0, "samples": history.cursors},
        }

    def _new_events(self, job: Job) -> list[EventJson]:
        rows = Event.objects.filter(job=job)
        if self.events is None:
            newest = list(rows.order_by("-seq")[:FIRST_EVENTS])[::-1]
        else:
            newest = list(rows.filter(seq__gt=self.events).order_by("seq")[:500])
        if newest:
            self.events = newest[-1].seq
        return [event_json(event) for event in newest]


class DeviceReader:
    """Follows one device: presence, activity, samples, events."""

    def __init__(self, device_id: int) -> None:
        self.device_id = device_id
        self.tracker = ChangeTracker()
        self.seq = 0
        self.event = 0
        self.started = False

    def start_at(self, cursors: Cursors) -> None:
        """Skip what the browser already has."""
        self.seq = dict(cursors.get("samples", {})).get(self.device_id, 0)
        self.event = cursors.get("events") or 0

    def read(self) -> PageUpdate | None:
        """The next message; None if nothing is new."""
        device = Device.objects.filter(pk=self.device_id).first()
        if device is None:
            raise SubjectDeleted("this device has been deleted")
        site = [fault.text for fault in site_faults()]
        changes = self.tracker.changes({**summaries.device_summary(device), "site": site})
        events = self._new_events()
        rows = Sample.objects.filter(device=device)
        if self.seq:
            history = series.samples_after(rows, {device.pk: self.seq}, MAX_SAMPLES)
        else:
            recent = rows.filter(seq__gt=device.last_sample_seq - 20_000)
            history = series.history(recent, [device.pk], 3000)
        if not (changes or events or history.samples or not self.started):
            return None
        self.started = True
        self.seq = history.cursors[device.pk]
        return {
            "type": "update",
            "snapshot": changes,
            "events": events,
            "samples": history.samples,
            "thinned": history.thinned,
            "cursors": {"events": self.event, "samples": history.cursors},
        }

    def _new_events(self) -> list[EventJson]:
        rows = Event.objects.filter(device_id=self.device_id, pk__gt=self.event)
        newest = list(rows.order_by("-pk")[:100])[::-1]
        if newest:
            self.event = newest[-1].pk
        return [event_json(event) for event in newest]


class FleetReader:
    """Follows the presence of every device and the running and queued jobs."""

    def __init__(self) -> None:
        self.devices: dict[int, DeviceSummary] = {}
        self.jobs: dict[str, JobSummary] = {}
        self.site: list[str] = []
        self.started = False

    def start_at(self, cursors: Cursors) -> None:
        """Nothing to skip: the first message holds everything."""

    def read(self) -> FleetUpdate | None:
        """The next message; None if nothing is new."""
        rows = Device.for_presence()
        devices = {head["id"]: head for head in map(summaries.device_summary, rows)}
        running = Job.objects.filter(phase__in=[JobPhase.RUNNING.value, "queued"], alone_of=None)
        jobs = {head["id"]: head for head in summaries.job_summaries(running)}
        update: FleetUpdate = {
            "type": "update",
            "devices": [head for key, head in devices.items() if self.devices.get(key) != head],
            "jobs": [head for key, head in jobs.items() if self.jobs.get(key) != head],
            "left": [key for key in self.jobs if key not in jobs],
            "gone": [key for key in self.devices if key not in devices],
            "counts": summaries.presence_counts(head["presence"] for head in devices.values()),
            "site": [fault.text for fault in site_faults()],
        }
        is_news = update["devices"] or update["jobs"] or update["left"] or update["gone"]
        if self.started and not is_news and update["site"] == self.site:
            return None
        self.devices, self.jobs, self.site, self.started = devices, jobs, update["site"], True
        return update
