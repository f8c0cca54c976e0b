"""Creates database rows for the browser tests, in the server's environment.

One JSON line per request and per answer.

The tests' own process has another database; this one shares the server's. A request is a JSON list
``[name, arguments]`` naming a function below.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from datetime import timedelta
from typing import Any

import django

django.setup()

from django.utils import timezone  # noqa: E402

from tests.web import factories, measured  # noqa: E402
from webapp.accounts.models import Role  # noqa: E402
from webapp.common.wake import wake_device, wake_fleet, wake_job  # noqa: E402
from webapp.devices.models import Device, Enrolment  # noqa: E402
from webapp.jobs.models import Job, Watch  # noqa: E402

BEAT_S = 10.0
running = threading.Event()


def user(name: str, role: str = "admin") -> None:
    factories.make_user(name, Role(role))


def fleet(count: int, first: int = 0) -> list[int]:
    return [device.pk for device in factories.make_fleet(count, first)]


def running_job(devices: list[int], **options: Any) -> str:
    rows = [Device.objects.get(pk=key) for key in devices]
    return str(factories.running_job(rows, **options).pk)


def measured_job(devices: list[int], **options: Any) -> str:
    """A job whose devices were probed and report phases, energy and traffic."""
    rows = [Device.objects.get(pk=key) for key in devices]
    for device in rows:
        measured.probe(device)
    return str(measured.measured_job(rows, **options).pk)


def rewarded_job(devices: list[int], **options: Any) -> str:
    rows = [Device.objects.get(pk=key) for key in devices]
    return str(measured.rewarded_job(rows, **options).pk)


def finished_job(devices: list[int]) -> str:
    """A completed job of one round whose last model was evaluated by every device."""
    job = factories.make_job([Device.objects.get(pk=key) for key in devices], rounds=1)
    for number in range(2):
        factories.add_round(job, number, job.created_at)
    factories.finish(job)
    return str(job.pk)


def train_alone(job: str, fails: str = "") -> None:
    """Finish the local-only baselines of a job; the first fails if ``fails`` gives a reason."""
    for number, child in enumerate(Job.objects.filter(alone_of=job).order_by("created_at")):
        factories.add_round(child, 1, child.created_at)
        failed = fails and not number
        factories.finish(child, "failed" if failed else "completed", fails if failed else "")


def queued_job(**options: Any) -> str:
    return str(factories.make_job([], "queued", **options).pk)


def finish(job: str, phase: str, reason: str = "") -> None:
    factories.finish(Job.objects.get(pk=job), phase, reason)
    wake_job(Job.objects.get(pk=job).pk)


def grow(job: str, count: int = 5) -> None:
    factories.grow(Job.objects.get(pk=job), count)


def event(job: str, text: str, level: str = "info") -> None:
    row = Job.objects.get(pk=job)
    factories.add_event(row, text, level)
    wake_job(row.pk)


def touch(devices: list[int]) -> None:
    """The devices have just called."""
    Device.objects.filter(pk__in=devices).update(last_seen_at=timezone.now())
    wake_fleet()


def report_health(device: int, **health: Any) -> None:
    """The device reports its own state."""
    Device.objects.filter(pk=device).update(health=health)
    wake_device(device)


def change_device(device: int, channel: str = "websocket", **seconds_ago: float) -> None:
    """Moments in a device's row, as seconds ago; ``agent_refusal`` follows ``agent_refused_at``."""
    moments = {key: timezone.now() - timedelta(seconds=value) for key, value in seconds_ago.items()}
    refusal = "too old" if "agent_refused_at" in moments else ""
    Device.objects.filter(pk=device).update(**moments, agent_refusal=refusal, line_channel=channel)
    wake_device(device)


def stop_coordinator(seconds_ago: float) -> None:
    """The coordinator last ran so long ago; ``run_coordinator`` starts it again."""
    running.clear()
    at = timezone.now() - timedelta(seconds=seconds_ago)
    Watch.objects.update_or_create(pk=Watch.ONLY, defaults={"looked_at": at, "back_at": at})
    wake_fleet()


def run_coordinator() -> None:
    running.set()
    factories.run_site()
    wake_fleet()


def keep_running() -> None:
    """Signs of life of the coordinator and an aggregation worker."""
    while True:
        if running.is_set():
            factories.run_site()
        time.sleep(BEAT_S)


def arrive(enrolment: str) -> int:
    """The machine uses its enrolment."""
    row = Enrolment.objects.filter(name=enrolment).latest("created_at")
    device = factories.make_device(row.name, seen_s_ago=0)
    Enrolment.objects.filter(pk=row.pk).update(used_at=timezone.now(), device=device)
    wake_device(device.pk)
    return device.pk


def main() -> None:
    running.set()
    threading.Thread(target=keep_running, daemon=True).start()
    for line in sys.stdin:
        name, arguments = json.loads(line)
        result = globals()[name](**arguments)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
