"""The coordinator chooses devices that are able, and its sentence says why others are not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from tests.device import Pi
from tests.disk import SmallDisk, small_disk
from tests.federation import DEADLINE_S, Federation
from webapp.devices.models import Device
from webapp.jobs.models import Event, Job

__all__ = ["small_disk"]

OK: dict[str, Any] = {"disk_free_bytes": 9_000_000_000}
FULL: dict[str, Any] = {"disk_free_bytes": 0, "disk_full": True}


def reason_of(job: Job) -> str:
    job.refresh_from_db()
    return job.reason


def fleet_events() -> list[str]:
    return list(Event.objects.filter(job=None).order_by("pk").values_list("text", flat=True))


def report(pi: Pi, health: dict[str, Any]) -> None:
    assert pi.frame("health", health).message.ack


def test_unable_device_is_chosen_once_it_is_mended(federation: Federation) -> None:
    kitchen, porch = federation.devices("pi-kitchen", "pi-porch")
    report(porch, FULL)
    job = federation.launch(participation={"minimum": 2})
    assert reason_of(job) == (
        "waiting for 2 of 2 devices that can work; pi-porch: connected, but its disk is full"
    )
    federation.lose(kitchen)
    federation.reconcile()
    assert reason_of(job) == (
        "waiting for 2 of 2 devices that can work; offline: pi-kitchen; "
        "pi-porch: connected, but its disk is full"
    )
    kitchen.presence()
    report(porch, OK)
    federation.reconcile()
    assert federation.run(job).phase == "completed"
    assert fleet_events()[-2:] == [
        "pi-porch takes no work: connected, but its disk is full (0 B free)",
        "pi-porch takes work again",
    ]


def test_device_that_stays_unable_is_given_up(federation: Federation) -> None:
    (kitchen,) = federation.devices("pi-kitchen")
    report(kitchen, FULL)
    job = federation.launch()
    federation.later(DEADLINE_S + 1)
    federation.reconcile()
    assert reason_of(job).endswith(
        "pi-kitchen: connected, but its disk is full; gave up after 7200 s"
    )


def test_unable_device_skips_a_round(federation: Federation) -> None:
    kitchen, porch = federation.devices("pi-kitchen", "pi-porch")
    job = federation.launch(rounds=3)
    for pi in federation.pis:
        pi.work()
    report(porch, FULL)
    federation.work_off()
    assert federation.round(job).members == [0]
    kitchen.work()
    report(porch, OK)
    federation.work_off()
    kitchen.work()
    federation.work_off()
    assert federation.round(job).members == [0, 1]


def test_unable_device_gets_no_second_attempt(federation: Federation) -> None:
    _, porch = federation.devices("pi-kitchen", "pi-porch")
    job = federation.started()
    work = porch.take()
    porch.act(work["assignment"], "fail", {"reason": "no space left", "retryable": True})
    report(porch, FULL)
    federation.work_off()
    assert federation.parts(job)["pi-porch", 1] == "failed"
    assert ("pi-porch", 2) not in federation.parts(job)
    report(porch, OK)
    federation.reconcile()
    assert federation.parts(job)["pi-porch", 2] == "offered"


def test_lost_offers_are_resent_to_able_devices_only(federation: Federation) -> None:
    (kitchen,) = federation.devices("pi-kitchen")
    federation.launch()
    report(kitchen, FULL)
    federation.outbox.devices.clear()
    federation.later(60)
    federation.reconcile()
    assert kitchen.offers() == []
    report(kitchen, OK)
    federation.reconcile()
    assert len(kitchen.offers()) == 1


def test_two_agents_with_one_credential_get_no_work(federation: Federation) -> None:
    kitchen, _ = federation.devices("pi-kitchen", "pi-porch")
    for boot in ("boot-a", "boot-b", "boot-a"):
        kitchen.hello(boot)
    job = federation.launch(participation={"minimum": 2})
    assert reason_of(job) == (
        "waiting for 2 of 2 devices that can work; "
        "pi-kitchen: connected, does not take work: two agents use this credential"
    )
    event = next(text for text in fleet_events() if "two agents" in text)
    assert "boot-a" in event and "boot-b" in event, "names both boots"
    earlier = timezone.now() - timedelta(minutes=5)
    Device.objects.update(agents_alternated_at=earlier)
    federation.reconcile()
    assert federation.run(job).phase == "completed"


def test_restarted_agent_is_not_two_agents(federation: Federation) -> None:
    (kitchen,) = federation.devices("pi-kitchen")
    for boot in ("boot-a", "boot-b", "boot-c", "boot-d"):
        kitchen.hello(boot)
    assert kitchen.device.can_work


def test_repeated_health_is_one_event(federation: Federation) -> None:
    (kitchen,) = federation.devices("pi-kitchen")
    for health in (OK, FULL, {**FULL, "store_failed": True}, FULL, OK, OK):
        report(kitchen, health)
    assert sum("takes" in text for text in fleet_events()) == 2


def test_no_round_starts_on_a_full_server(
    federation: Federation, small_disk: SmallDisk, settings: Any
) -> None:
    federation.devices("pi-kitchen")
    settings.MIN_FREE_BYTES = 1_000_000
    job = federation.launch(rounds=1)
    small_disk.fill()
    federation.pis[0].work()
    federation.work_off()
    waiting = "waiting: the server's disk is full: less than 1.00 MB is free"
    assert reason_of(job) == waiting
    federation.later(DEADLINE_S + 1)
    federation.reconcile()
    assert reason_of(job) == waiting, "the site's own fault fails no job"
    small_disk.free()
    federation.reconcile()
    assert federation.run(job).phase == "completed"
