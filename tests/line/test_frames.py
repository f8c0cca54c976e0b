"""Frames of many devices that are applied together: a fault is that of one device alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from django.db import DataError, OperationalError, transaction

from fedcore.formats import line_bodies as bodies
from fedcore.formats.line_messages import Message, decode
from tests.device import Pi
from tests.federation import Federation, phase_of
from tests.line.lines import frame
from webapp.line import frames
from webapp.line.calls import Call, Origin
from webapp.line.frames import INTERNAL, LATER, NOT_FOUND, UNFIT, apply_frames
from webapp.telemetry.models import Sample

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgresql]

BAD = "pi-bad"
FAULTS = [(DataError("too long"), 400, UNFIT), (RuntimeError("a fault"), 500, INTERNAL)]
SAMPLES = [{"seq": seq, "at": "2026-03-01T12:00:00Z", "values": {"loss": 1.0}} for seq in (1, 2)]
HEALTH = {"disk_free_bytes": 7}


@pytest.fixture
def pis(federation: Federation) -> list[Pi]:
    """The first and the last are innocent."""
    return federation.devices("pi-kitchen", BAD, "pi-porch")


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[type, Exception], list[int]]:
    """Have a handler fail for BAD after its work; returns the number of calls of each try."""

    def spoil(kind: type, error: Exception) -> list[int]:
        handler, tries = frames.HANDLERS[kind], list[int]()

        def spoiled(calls: Sequence[Call]) -> list[Any]:
            tries.append(len(calls))
            with transaction.atomic():
                outcomes = handler(calls)
                if any(call.device.name == BAD for call in calls):
                    raise error
            return outcomes

        monkeypatch.setitem(frames.HANDLERS, kind, spoiled)  # type: ignore[arg-type]
        return tries

    return spoil


def together(pis: Sequence[Pi], kind: str, *each: Mapping[str, Any]) -> list[Message]:
    """The answers to a frame of each device; ``each`` is one body for all, or a body per device."""
    all_bodies = each if len(each) > 1 else each * len(pis)
    received = [
        (Origin(pi.device.pk, pi.device.line_epoch, pi.boot_id), decode(frame(7, kind, body)))
        for pi, body in zip(pis, all_bodies, strict=True)
    ]
    answers = apply_frames(received)
    assert all(isinstance(answer, Message) for answer in answers)
    return [answer for answer in answers if isinstance(answer, Message)]


def reason(answer: Message) -> str:
    return bodies.REFUSAL.decode(answer.body).detail


@pytest.mark.parametrize(("error", "status", "text"), FAULTS)
def test_fault_in_measurements_hinders_no_other(
    pis: list[Pi], spoil: Any, error: Exception, status: int, text: str
) -> None:
    tries = spoil(bodies.MeasurementsBody, error)
    first, bad, last = together(pis, "measurements", {"samples": SAMPLES})
    assert (bad.re, bad.status, reason(bad)) == (7, status, text)
    assert (first.status, last.status) == (200, 200)
    assert tries == [3, 1, 1, 1]
    stored = Sample.objects.order_by("device__name", "seq").values_list("device__name", "seq")
    assert list(stored) == [("pi-kitchen", 1), ("pi-kitchen", 2), ("pi-porch", 1), ("pi-porch", 2)]
    assert [pi.device.last_sample_seq for pi in pis] == [2, 0, 2]


@pytest.mark.parametrize(("error", "status", "text"), FAULTS)
def test_fault_in_health_hinders_no_other(
    pis: list[Pi], spoil: Any, error: Exception, status: int, text: str
) -> None:
    spoil(bodies.HealthBody, error)
    first, bad, last = together(pis, "health", HEALTH)
    assert (bad.re, bad.status, reason(bad)) == (7, status, text)
    assert (first.ack, last.ack) == (7, 7)
    assert [bool(pi.device.health) for pi in pis] == [True, False, True]


@pytest.mark.parametrize(("error", "status", "text"), FAULTS)
def test_fault_in_hello_hinders_no_other(
    pis: list[Pi], spoil: Any, error: Exception, status: int, text: str
) -> None:
    spoil(bodies.Hello, error)
    first, bad, last = together(pis, "hello", {"boot_id": "another"})
    assert (bad.re, bad.status, reason(bad)) == (7, status, text)
    assert (first.status, last.status) == (200, 200)
    assert [pi.device.boot_id for pi in pis] == ["another", f"boot-{BAD}", "another"]


@pytest.mark.parametrize(("error", "status", "text"), FAULTS)
def test_fault_in_an_assignment_hinders_no_other(
    federation: Federation, pis: list[Pi], spoil: Any, error: Exception, status: int, text: str
) -> None:
    """They are assignments of one round, whose job was locked for all of them."""
    federation.launch()
    keys = [pi.offers()[-1] for pi in pis]
    each = [{"assignment": key} for key in keys]
    spoil(bodies.Accept, error)
    first, bad, last = together(pis, "accept", *each)
    assert (bad.status, reason(bad)) == (status, text)
    assert (first.status, last.status) == (200, 200)
    assert [phase_of(key) for key in keys] == ["accepted", "offered", "accepted"]
    spoil(bodies.FailBody, error)
    answers = together(pis, "fail", *({**body, "reason": "x"} for body in each))
    assert [answer.status for answer in answers] == [200, status, 200]
    assert [phase_of(key) for key in keys] == ["failed", "offered", "failed"]


def test_fault_is_logged(pis: list[Pi], spoil: Any, caplog: pytest.LogCaptureFixture) -> None:
    spoil(bodies.HealthBody, RuntimeError("a fault of the code"))
    together(pis, "health", HEALTH)
    assert "RuntimeError: a fault of the code" in caplog.text


def test_unreachable_database_is_asked_once(pis: list[Pi], spoil: Any) -> None:
    """Each further try would wait for the same time-out."""
    tries = spoil(bodies.HealthBody, OperationalError("away"))
    answers = together(pis, "health", HEALTH)
    assert [(answer.status, reason(answer)) for answer in answers] == [(503, LATER)] * 3
    assert tries == [3]


def test_refusals_are_those_of_one_device(federation: Federation, pis: list[Pi]) -> None:
    """Bodies and phases that a handler refuses do not end the transaction of the others."""
    federation.launch()
    kitchen, bad, porch = [{"assignment": pi.offers()[-1]} for pi in pis]
    wrong = [(kitchen, 404, NOT_FOUND), ({"assignment": "x"}, 400, "$.assignment")]
    for body, status, text in wrong:
        answers = together(pis, "accept", kitchen, body, porch)
        assert [answer.status for answer in answers] == [200, status, 200]
        assert text in reason(answers[1])
    assert phase_of(bad["assignment"]) == "offered"


def test_invalid_metrics_are_refused_alone(
    federation: Federation, pis: list[Pi], monkeypatch: pytest.MonkeyPatch
) -> None:
    federation.launch()
    tries, report = list[int](), frames.HANDLERS[bodies.ReportBody]

    def counted(calls: Sequence[Call]) -> list[Any]:
        tries.append(len(calls))
        return report(calls)

    monkeypatch.setitem(frames.HANDLERS, bodies.ReportBody, counted)  # type: ignore[arg-type]
    each = []
    for pi, metrics in zip(pis, ({"loss": 1.0}, [], {"loss": 1.0}), strict=True):
        work = pi.take()
        each.append({"assignment": work["assignment"], "update": None, "examples": 6})
        each[-1]["metrics"] = metrics
    assert [answer.status for answer in together(pis, "report", *each)] == [200, 400, 200]
    assert tries == [3], "nobody's report is applied a second time"
