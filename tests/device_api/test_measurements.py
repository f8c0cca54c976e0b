"""Hello and measurements: presence, and samples that are stored once."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from fedcore.formats.line_messages import MessageError
from tests.device import Pi
from tests.device_api.assignments import detail
from tests.federation import Federation, phase_of
from webapp.devices.models import Device
from webapp.telemetry.models import Sample
from webapp.telemetry.report_interval import IDLE_S, interval_s, watch

pytestmark = pytest.mark.postgresql

AT = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)


def sample(seq: int, assignment: str | None = None, **values: Any) -> dict[str, Any]:
    at = (AT + timedelta(seconds=seq % 1000)).isoformat()
    return {"seq": seq, "at": at, "assignment": assignment, "values": values or {"loss": 1.5}}


@pytest.fixture
def pi(federation: Federation) -> Pi:
    return federation.device("pi-kitchen")


def test_samples_are_stored_once(pi: Pi) -> None:
    batch = [sample(1), sample(2, mfu=0.4, tokens_per_s=812.0)]
    for _ in range(2):
        answer = pi.presence(samples=batch)
        assert (answer.status_code, answer.json()) == (200, {"interval_s": IDLE_S})
        assert pi.device.last_sample_seq == 2
    pi.presence(samples=[sample(2, mfu=9e9 / 9e10), sample(3)])
    assert pi.device.last_sample_seq == 3
    rows = Sample.objects.filter(device=pi.device).order_by("seq")
    assert [row.seq for row in rows] == [1, 2, 3]
    assert rows[1].values == {"mfu": 0.4, "tokens_per_s": 812.0}, "the first one counts"


def test_empty_batch_is_presence(pi: Pi, federation: Federation) -> None:
    federation.lose(pi)
    assert pi.device.presence == "offline"
    answer = pi.presence()
    assert answer.status_code == 200
    assert pi.device.presence == "online"
    assert pi.cancels() == {}


def test_sample_numbering_continues_after_restart(pi: Pi) -> None:
    pi.presence(samples=[sample(seq) for seq in range(1, 8)])
    assert pi.hello("another boot").json()["next_sample_seq"] == 8
    pi.presence(samples=[sample(3)])
    assert pi.hello("yet another").json()["next_sample_seq"] == 8, "never counted back"


def test_samples_link_only_own_assignments(federation: Federation) -> None:
    kitchen, porch = federation.devices("pi-kitchen", "pi-porch")
    federation.launch()
    mine, others = kitchen.take()["assignment"], porch.take()["assignment"]
    kitchen.presence(samples=[sample(1, mine), sample(2, others), sample(3, str(uuid.uuid4()))])
    rows = Sample.objects.filter(device=kitchen.device).order_by("seq")
    assert [str(row.assignment_id) if row.assignment_id else None for row in rows] == [
        mine,
        None,
        None,
    ]


def test_activity_shows_the_phase(federation: Federation) -> None:
    (pi,) = federation.devices("pi-kitchen")
    federation.launch()
    work = pi.take()
    pi.presence(work["assignment"])
    activity = pi.device.activity
    assert activity["assignment"] == work["assignment"]
    assert (activity["phase"], activity["step"], activity["steps_total"]) == ("training", 1, 3)
    assert pi.device.presence == "busy"


def test_assignment_follows_activity(federation: Federation) -> None:
    (pi,) = federation.devices("pi-kitchen")
    federation.launch()
    assignment = pi.take()["assignment"]

    def says(phase: str) -> str:
        pi.presence(
            assignment,
            activity={"assignment": assignment, "phase": phase, "step": 0, "steps_total": 0},
        )
        return phase_of(assignment)

    assert says("downloading") == "accepted"
    assert says("evaluating") == "training"
    assert says("uploading") == "uploading"
    assert says("training") == "uploading", "a batch that was overtaken moves nothing back"


@pytest.mark.parametrize("whose", ["nobody's", "another device's"])
def test_foreign_assignment_is_cancelled(federation: Federation, whose: str) -> None:
    kitchen, porch = federation.devices("pi-kitchen", "pi-porch")
    federation.launch()
    assignment = str(uuid.uuid4()) if whose == "nobody's" else porch.take()["assignment"]
    kitchen.presence(assignment)
    assert kitchen.cancels() == {assignment: "the site knows no such assignment"}


def test_reported_assignment_is_not_cancelled(federation: Federation) -> None:
    """A last batch may still name what has just been reported."""
    (pi,) = federation.devices("pi-kitchen")
    federation.launch()
    work = pi.take()
    pi.report(work["assignment"], None)
    pi.presence(work["assignment"])
    assert pi.cancels() == {}


def test_watched_device_reports_each_second(db: None) -> None:
    job = uuid.uuid4()
    assert interval_s(7, None, online=1) == 3.0
    assert interval_s(7, job, online=1) == 2.0
    watch(job)
    assert (interval_s(7, job, online=1), interval_s(7, None, online=1)) == (1.0, 3.0)
    watch(7)
    assert interval_s(7, None, online=1) == 1.0


def test_large_fleet_reports_less_often(pi: Pi, settings: Any) -> None:
    from django.core.cache import cache

    settings.OFFLINE_AFTER_S = 65.0
    cache.set("devices-online", 10_000)
    assert pi.hello().json()["interval_s"] == 50.0


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"samples": [sample(0)]}, "$.samples[0].seq"),
    ({"samples": [sample(2**62 + 1)]}, "$.samples[0].seq"),
    ({"samples": [{**sample(1), "at": "yesterday"}]}, "$.samples[0].at"),
    ({"samples": [{**sample(1), "at": "2026-03-01T12:00:00"}]}, "$.samples[0].at"),
    ({"samples": [{**sample(1), "assignment": "x"}]}, "$.samples[0].assignment"),
    ({"samples": [{**sample(1), "values": [1]}]}, "$.samples[0].values"),
    ({"samples": [sample(1), sample(2, lost=1.0)]}, "sample 2: "),
    ({"samples": [sample(1, loss="high")]}, "sample 1: loss"),
    ({"samples": [sample(1, loss=True)]}, "sample 1: loss"),
    ({"samples": [sample(1, loss=-1.0)]}, "sample 1: loss"),
    ({"samples": [sample(1, loss=10**400)]}, "sample 1: loss"),
    ({"samples": [sample(1, mfu=4.1)]}, "sample 1: mfu"),
    ({"samples": [sample(seq) for seq in range(1, 502)]}, "$.samples"),
    ({"samples": "none"}, "$.samples"),
    ({"activity": {"assignment": "x"}}, "$.activity.assignment"),
    ({"activity": {"step": -1}}, "$.activity.step"),
    ({"activity": []}, "$.activity"),
]


def test_fault_in_batch_stores_nothing(pi: Pi, subtests: Any) -> None:
    for body, where in FAULTS:
        with subtests.test(str(body)[:70]):
            assert where in detail(pi.presence(**body), 400)
    assert not Sample.objects.exists()


NO_JSON = {
    "an open bracket": b"{",
    "nothing": b"",
    "no UTF-8": b'{"activity": {"phase": "\xff"}}',
    "half a surrogate pair": b'{"activity": {"phase": "\\ud800"}}',
    "NUL": b'{"activity": {"phase": "\\u0000"}}',
    "NaN": b'{"samples": [{"seq": 1, "values": {"loss": NaN}}]}',
    "nested beyond reason": b'{"activity": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
}


def test_batch_that_is_no_json_is_refused(pi: Pi, subtests: Any) -> None:
    for case, body in NO_JSON.items():
        with subtests.test(case):
            try:
                answer = pi.frame("measurements", body)
            except MessageError:
                continue  # the line ends
            assert detail(answer, 400)


@pytest.mark.parametrize("body", [b"[1, 2]", b'{"samples": [{"seq": ' + b"9" * 5000 + b"}]}"])
def test_batch_of_another_shape_is_refused(pi: Pi, body: bytes) -> None:
    assert detail(pi.frame("measurements", body), 400)


def test_batch_queries_are_constant(pi: Pi, django_assert_max_num_queries: Any) -> None:
    pi.presence(samples=[sample(1)])
    with django_assert_max_num_queries(12):
        pi.presence(samples=[sample(seq) for seq in range(2, 400)])
    assert Sample.objects.count() == 399


def test_hello_updates_datasets(pi: Pi) -> None:
    data = [{"name": "home", "domain": "home", "examples": 7}, {"name": "law", "examples": 9}]
    answer = pi.hello("next", datasets=data, profile={"cores": 8})
    assert answer.status_code == 200
    device = Device.objects.get(pk=pi.device.pk)
    examples = {row.name: row.examples for row in device.datasets.all()}
    assert examples == {"home": 7, "law": 9}
    assert device.profile == {"cores": 8}
    pi.hello("third")
    assert pi.device.profile == {"cores": 8}, "an agent that has not probed yet keeps the old one"
