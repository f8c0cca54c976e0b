"""What hello, measurements and health leave in the database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.cache import cache

from tests.device import Pi
from tests.device_api.assignments import detail
from tests.federation import Federation
from tests.line.lines import frame, hello, on_line, opened_by
from webapp.devices.models import Device
from webapp.jobs.models import Event
from webapp.telemetry.models import Sample

pytestmark = pytest.mark.postgresql

HEALTH = {"disk_free_bytes": 7, "disk_full": True, "store_failed": False, "clock_ahead_s": -3.5}


@pytest.fixture
def pi(federation: Federation) -> Pi:
    return federation.device("pi-kitchen")


def send_sample(pi: Pi, seq: int, at: datetime) -> datetime:
    """The time with which the site stores a sample."""
    body = {"seq": seq, "at": at.isoformat(), "values": {"loss": 1.0}}
    assert pi.presence(samples=[body]).status_code == 200
    return Sample.objects.get(device=pi.device, seq=seq).at


@pytest.mark.parametrize("off", [timedelta(hours=13), timedelta(days=-365), timedelta(days=3650)])
def test_wrong_clock_gets_the_sites_time(pi: Pi, off: timedelta) -> None:
    before = datetime.now(UTC)
    stored = send_sample(pi, 1, before + off)
    assert before <= stored <= datetime.now(UTC)


@pytest.mark.parametrize("off", [timedelta(hours=11), timedelta(hours=-11), timedelta(seconds=2)])
def test_late_samples_keep_their_time(pi: Pi, off: timedelta) -> None:
    """A device that was offline for a night sends what it has measured."""
    at = datetime.now(UTC) + off
    assert send_sample(pi, 1, at) == at


def test_overtaken_sample_is_not_stored_again(pi: Pi) -> None:
    now = datetime.now(UTC)
    send_sample(pi, 5, now)
    body = {"seq": 4, "at": now.isoformat(), "values": {"loss": 1.0}}
    pi.presence(samples=[body])
    assert [row.seq for row in Sample.objects.all()] == [5]
    assert pi.device.last_sample_seq == 5


def two_agents_events() -> list[str]:
    rows = Event.objects.filter(job=None, text__contains="two agents")
    return list(rows.values_list("text", flat=True))


def test_alternating_boots_raise_an_event(pi: Pi) -> None:
    pi.hello("aaaaaaaa-1111")
    pi.hello("bbbbbbbb-2222")
    assert two_agents_events() == []
    pi.hello("aaaaaaaa-1111")
    (text,) = two_agents_events()
    assert "pi-kitchen: two agents use this credential" in text
    assert "bbbbbbbb and aaaaaaaa" in text
    for boot in ("bbbbbbbb-2222", "aaaaaaaa-1111"):
        pi.hello(boot)
    assert len(two_agents_events()) == 1, "not one for every turn"
    cache.clear()  # as if ten minutes had passed
    pi.hello("bbbbbbbb-2222")
    assert len(two_agents_events()) == 2


def test_restarts_and_new_lines_are_no_breach(pi: Pi) -> None:
    for number in range(6):
        pi.hello(f"boot-{number}")
        pi.hello(f"boot-{number}")
    assert two_agents_events() == []


def test_health_is_stored(pi: Pi) -> None:
    answer = pi.frame("health", HEALTH)
    assert answer.message.ack
    assert pi.device.health == HEALTH


@pytest.mark.parametrize(
    "wrong",
    [
        {"disk_free_bytes": -1},
        {"disk_free_bytes": 2**63},
        {"clock_ahead_s": 1e11},
        {"disk_full": 1},
    ],
)
def test_impossible_health_is_refused(pi: Pi, wrong: dict[str, Any]) -> None:
    assert detail(pi.frame("health", {**HEALTH, **wrong}), 400)
    assert pi.device.health == {}


def test_restart_forgets_health_and_activity(pi: Pi) -> None:
    pi.frame("health", HEALTH)
    pi.presence()
    pi.hello()
    assert pi.device.health == HEALTH, "the same agent on a new line"
    pi.hello("another boot")
    assert (pi.device.health, pi.device.activity) == ({}, {})


def test_older_line_reports_no_health(pi: Pi) -> None:
    older = opened_by(pi.enrolled)
    on_line(older, hello(boot_id=pi.boot_id))
    on_line(opened_by(pi.enrolled), hello(boot_id=pi.boot_id), frame(2, "health", HEALTH))
    on_line(older, frame(1, "health", {**HEALTH, "disk_full": False}))
    assert pi.device.health == HEALTH


HELLO_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"boot_id": "x" * 65}, "$.boot_id"),
    ({"boot_id": 7}, "$.boot_id"),
    ({"agent_version": "x" * 41}, "$.agent_version"),
    ({"profile": []}, "object"),
    ({"profile": {"cpu": "x" * 20_000}}, "profile has more than 20000 bytes"),
    ({"datasets": {}}, "array"),
    ({"datasets": [{"name": "", "examples": 1}]}, "$[0].name"),
    ({"datasets": [{"name": "a", "examples": -1}]}, "$[0].examples"),
    ({"datasets": [{"name": "a", "examples": 2**31}]}, "$[0].examples"),
    ({"datasets": [{"name": "a", "examples": 1}] * 2}, "name each dataset once"),
    ({"datasets": [{"name": str(n), "examples": 1} for n in range(101)]}, "<= 100"),
    ({"datasets": [{"name": "a", "examples": 1, "columns": ["x" * 200] * 110}]}, "20000 bytes"),
]


def test_fault_in_hello_changes_nothing(pi: Pi, subtests: Any) -> None:
    before = Device.objects.values().get()
    for changes, text in HELLO_FAULTS:
        with subtests.test(str(changes)[:70]):
            body = {"boot_id": "another boot", "agent_version": "9", **changes}
            assert text in detail(pi.frame("hello", body), 400)
    assert Device.objects.values().get() == before
    assert pi.device.datasets.get().name == "law"


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_profile_with_an_infinite_number(pi: Pi, number: str) -> None:
    """No database stores it as JSON, so that the frame would be sent again for ever."""
    body = f'{{"boot_id": "b", "profile": {{"ram": {number}}}}}'
    assert detail(pi.frame("hello", body.encode()), 400)
