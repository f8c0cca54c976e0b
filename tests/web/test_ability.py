"""Pages and REST say why a connected device does no work, and what the site lacks."""

from __future__ import annotations

import html
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.web import factories
from webapp.devices.ability import CHANNEL_WORDS, CONDITIONS, ability
from webapp.devices.models import Device, LineChannel
from webapp.jobs.analysis import summaries
from webapp.jobs.analysis.snapshot import snapshot
from webapp.jobs.models import Job, Watch
from webapp.pages.live.readers import DeviceReader, FleetReader

FULL = {"disk_free_bytes": 12_340_000, "disk_full": True}
HOURS = 3600.0


def device_with(**values: Any) -> Device:
    device = factories.make_device("pi-full")
    Device.objects.filter(pk=device.pk).update(**values)
    return Device.objects.get(pk=device.pk)


def just_now(seconds: float = 0.0) -> Any:
    return timezone.now() - timedelta(seconds=seconds)


CASES = [
    ({"health": FULL}, "connected, but its disk is full (12.3 MB free)", True),
    (
        {"health": {"disk_free_bytes": 9e9, "store_failed": True}},
        "connected, but its state folder cannot be written",
        True,
    ),
    (
        {"line_channel": "poll"},
        "connected by long poll: something on the way lets no WebSocket through",
        False,
    ),
    ({"health": {"clock_ahead_s": 5 * HOURS}}, "its clock is 5 h ahead", False),
    (
        {"line_channel": "poll"},
        "connected by long poll: something on the way lets no WebSocket through",
        False,
    ),
    ({"health": {"clock_ahead_s": -400 * 24 * HOURS}}, "its clock is 400 d behind", False),
]


@pytest.mark.parametrize(("values", "text", "blocks"), CASES)
def test_reason_of_a_connected_device(
    db: None, values: dict[str, Any], text: str, blocks: bool
) -> None:
    device = device_with(**values)
    reason = device.ability
    assert (str(reason), device.can_work) == (text, not blocks)
    Device.objects.filter(pk=device.pk).update(disconnected_at=timezone.now())
    assert Device.objects.get(pk=device.pk).ability is None, "its presence says offline"


def test_two_agents_keep_a_device_from_working_for_some_minutes(db: None) -> None:
    words = "does not take work: two agents use this credential"
    device = device_with(agents_alternated_at=just_now(20))
    assert (str(device.ability), device.can_work) == (f"connected, {words}", False)
    device.disconnected_at = timezone.now()
    assert str(device.ability) == words
    device = device_with_changes(device, agents_alternated_at=just_now(200))
    assert device.ability is None and device.can_work


def device_with_changes(device: Device, **values: Any) -> Device:
    Device.objects.filter(pk=device.pk).update(**values)
    return Device.objects.get(pk=device.pk)


@pytest.mark.parametrize(
    ("refusal", "text"),
    [
        ("too old", "update its agent: this site needs a newer one"),
        ("too new", "update this site: the device's agent is newer"),
    ],
)
def test_refused_agent_is_named_while_it_is_not_connected(
    db: None, refusal: str, text: str
) -> None:
    values = {"agent_refused_at": just_now(60), "agent_refusal": refusal}
    device = device_with(disconnected_at=just_now(90), **values)
    assert str(device.ability) == text
    assert device_with_changes(device, agent_refused_at=just_now(3600)).ability is None
    connected = {"disconnected_at": None, "agent_refused_at": just_now(60)}
    assert device_with_changes(device, **connected).ability is None


def test_healthy_silent_and_revoked_devices_have_no_reason(db: None) -> None:
    assert device_with().can_work
    for number, values in enumerate(
        ({"last_seen_at": None}, {"revoked_at": timezone.now()}, {"last_seen_at": just_now(900)})
    ):
        device = factories.make_device(f"pi-{number}")
        device = device_with_changes(device, health=FULL, **values)
        assert device.ability is None and not device.can_work


def test_every_condition_has_a_case(db: None) -> None:
    """The first condition that applies wins, so each needs a device of its own."""
    devices = [
        {
            "disconnected_at": just_now(9),
            "agent_refused_at": just_now(9),
            "agent_refusal": "too old",
        },
        {"agents_alternated_at": just_now(1)},
        *(values for values, _, _ in CASES[:4]),
    ]
    texts = set()
    for number, values in enumerate(devices):
        device = factories.make_device(f"pi-{number}")
        texts.add(str(ability(device_with_changes(device, **values))))
    assert len(texts) == len(CONDITIONS)


def test_every_channel_has_words() -> None:
    assert set(CHANNEL_WORDS) == set(LineChannel.values)


@pytest.mark.parametrize("channel", LineChannel.values)
def test_device_page_shows_how_it_is_connected(ada: Client, channel: str) -> None:
    address = reverse("device", args=[device_with(line_channel=channel).pk])
    words = CHANNEL_WORDS[channel].removeprefix("connected ")
    assert f"<dt>Connected</dt><dd>{words}</dd>" in ada.get(address).content.decode()
    Device.objects.update(disconnected_at=timezone.now())
    assert "<dt>Connected</dt>" not in ada.get(address).content.decode()


def test_device_pages_show_state_and_reason(ada: Client) -> None:
    factories.run_site()
    device = device_with(health=FULL)
    for address in (reverse("devices"), reverse("device", args=[device.pk])):
        page = html.unescape(ada.get(address).content.decode())
        assert "Connected, but its disk is full (12.3 MB free)</" in page
        assert '<span class="state" data-tone="wait">online</span>' in page
    assert "Free disk" in page
    device_with_changes(device, health={"disk_free_bytes": 9_000_000_000})
    page = ada.get(reverse("devices")).content.decode()
    assert '<span class="sub reason" data-reason hidden></span>' in page
    assert '<span class="state" data-tone="good">online</span>' in page


def test_live_messages_carry_the_reason(db: None) -> None:
    factories.run_site()
    device = device_with()
    fleet, one = FleetReader(), DeviceReader(device.pk)
    first, alone = fleet.read(), one.read()
    assert first is not None and alone is not None
    assert first["devices"][0]["ability"] == {"reason": "", "blocks": False}
    assert first["site"] == alone["snapshot"]["site"] == []
    assert fleet.read() is None and one.read() is None
    device_with_changes(device, health=FULL)
    second, alone = fleet.read(), one.read()
    assert second is not None and alone is not None
    expected = {"reason": "connected, but its disk is full (12.3 MB free)", "blocks": True}
    assert second["devices"][0]["ability"] == alone["snapshot"]["ability"] == expected
    Watch.objects.all().delete()
    third = fleet.read()
    assert third is not None and third["site"] == ["the coordinator has never run: start it"]


def test_rest_gives_the_reason_beside_the_presence(ada: Client) -> None:
    device_with(health=FULL)
    (row,) = ada.get("/api/v1/devices/").json()["results"]
    reason = "connected, but its disk is full (12.3 MB free)"
    assert (row["presence"], row["can_work"], row["reason"]) == ("online", False, reason)


def test_site_faults_are_on_every_page(ada: Client, job: Job, settings: Any) -> None:
    settings.MIN_FREE_BYTES = 10**18
    Watch.objects.create(pk=Watch.ONLY, looked_at=just_now(300), back_at=just_now(900))
    faults = (
        "The server's disk is full: less than 1.00 EB is free. "
        "The coordinator has not run for 5 min: start it. "
        "No aggregation worker is running: start one."
    )
    for name in ("overview", "devices", "jobs", "tokens"):
        assert faults in html.unescape(ada.get(reverse(name)).content.decode())
    job.refresh_from_db()
    headline = snapshot(job)["headline"]
    assert headline.startswith(
        "the server's disk is full: less than 1.00 EB is free; "
        "the coordinator has not run for 5 min: start it; "
    )
    assert "no aggregation worker" not in headline, "this job does not wait for one"
    factories.run_site()
    settings.MIN_FREE_BYTES = 1
    assert 'id="site-state" data-tone="bad" role="status" hidden' in (
        ada.get(reverse("overview")).content.decode()
    )


def test_aggregating_job_waits_for_a_worker(job: Job) -> None:
    Watch.objects.create(pk=Watch.ONLY, looked_at=just_now(), back_at=just_now())
    job.rounds.filter(phase="collecting").update(phase="aggregating")
    headline = "no aggregation worker is running: start one; waiting for an aggregation worker"
    assert snapshot(job)["headline"].startswith(headline)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (lambda: {"health": FULL}, "connected, but its disk is full)"),
        (lambda: {"disconnected_at": just_now()}, "offline, last seen "),
        (
            lambda: {"agents_alternated_at": just_now()},
            "connected, does not take work: two agents use this credential)",
        ),
    ],
    ids=["full", "offline", "two-agents"],
)
def test_sentence_names_why_the_last_device_does_not_work(
    job: Job, values: Callable[[], dict[str, Any]], words: str
) -> None:
    factories.run_site()
    job.rounds.get(phase="collecting").assignments.filter(phase="training").update(phase="offered")
    Device.objects.filter(name="nuc-office").update(activity={}, **values())
    headline = f"waiting for nuc-office ({words}"
    assert snapshot(job)["headline"].startswith(headline)
    (summary,) = summaries.job_summaries(Job.objects.filter(pk=job.pk))
    assert summary["headline"].startswith(headline)


def test_device_that_fills_its_disk_while_it_trains_is_at_work(job: Job) -> None:
    factories.run_site()
    Device.objects.filter(name="nuc-office").update(health=FULL)
    assert snapshot(job)["headline"].startswith("1 of 3 devices still training: nuc-office, last")


def test_overview_lists_devices_that_cannot_work(ada: Client, fleet: list[Device]) -> None:
    Device.objects.update(health=FULL)
    Device.objects.filter(pk=fleet[0].pk).update(health={})
    page = ada.get(reverse("overview")).content.decode()
    assert page.count('<span class="reason" data-tone="wait">connected, but its disk is full') == 2
    assert ada.get(reverse("devices"), {"q": "disk full"}).content.decode().count("<tr class") == 2


def test_sentence_names_other_work(job: Job) -> None:
    factories.run_site()
    job.rounds.get(phase="collecting").assignments.filter(phase="training").update(phase="offered")
    activity = {"assignment": "11111111-1111-4111-8111-111111111111", "phase": "training"}
    Device.objects.filter(name="nuc-office").update(activity=activity)
    assert snapshot(job)["headline"] == "waiting for nuc-office (busy with other work)"


def test_job_between_rounds_shows_what_the_coordinator_noted(job: Job) -> None:
    factories.run_site()
    job.rounds.filter(phase="collecting").delete()
    assert snapshot(job)["headline"] == "waiting for the coordinator to start the next round"
    Job.objects.filter(pk=job.pk).update(reason="waiting for 3 of 3 devices that can work; x: y")
    job.refresh_from_db()
    assert snapshot(job)["headline"] == "waiting for 3 of 3 devices that can work; x: y"


def test_page_says_that_the_database_is_unavailable(
    ada: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OperationalError("server closed the connection")

    ada.raise_request_exception = False
    monkeypatch.setattr("webapp.pages.devices.views.device_history.search_devices", fail)
    answer = ada.get(reverse("devices"))
    assert answer.status_code == 503
    assert "Database unavailable" in answer.content.decode()
