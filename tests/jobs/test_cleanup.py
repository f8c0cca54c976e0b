"""Periodic cleanup: roll-up of samples, expired rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import Enrolled
from webapp.jobs.lifecycle.event_log import fleet_event
from webapp.jobs.models import Event
from webapp.telemetry import rollup, series
from webapp.telemetry.models import Sample
from workers.coordinator import cleanup

pytestmark = pytest.mark.postgresql

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def measured(enrolled_device: Callable[..., Enrolled]) -> Enrolled:
    """Two minutes of a sample each second."""
    pi = enrolled_device("pi-kitchen")
    Sample.objects.bulk_create(
        Sample(
            device=pi.device,
            seq=second + 1,
            at=START + timedelta(seconds=second),
            values={"loss": float(second), "tokens": 10.0, "step": float(second)},
        )
        for second in range(120)
    )
    return pi


def test_samples_roll_up_to_10_s_and_1_min(measured: Enrolled, settings: Any) -> None:
    settings.KEEP_SAMPLES_H, settings.KEEP_SAMPLES_10S_H = 1.0, 10.0
    assert rollup.roll_up(START + 0.9 * HOUR) == 0
    assert rollup.roll_up(START + 2 * HOUR) == 108
    rows = list(Sample.objects.order_by("seq"))
    assert [row.seq for row in rows] == list(range(10, 121, 10))
    assert rows[0].values == {"loss": 4.5, "tokens": 100.0, "step": 9.0}
    assert {row.span_s for row in rows} == {10}
    assert rollup.roll_up(START + 2 * HOUR) == 0, "doing it twice changes nothing"
    assert rollup.roll_up(START + 11 * HOUR) == 10
    rows = list(Sample.objects.order_by("seq"))
    assert [(row.seq, row.span_s) for row in rows] == [(60, 60), (120, 60)]
    assert sum(row.values["tokens"] for row in rows) == 1200.0


def test_rolled_up_chart_has_no_gaps(
    measured: Enrolled, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.KEEP_SAMPLES_H = 1.0
    fresh = START + 3 * HOUR
    Sample.objects.bulk_create(
        Sample(
            device=measured.device,
            seq=121 + i,
            at=fresh + timedelta(seconds=i),
            values={"loss": 1.0},
        )
        for i in range(20)
    )
    rollup.roll_up(START + 2 * HOUR)
    monkeypatch.setattr(series, "READ_AT_MOST", 8)  # every fourth, of what was not rolled up
    result = series.history(Sample.objects.filter(device=measured.device), [measured.device.pk])
    old = [sample for sample in result.samples if sample["seq"] <= 120]
    assert [sample["seq"] for sample in old] == list(range(10, 121, 10))
    assert {sample["span_s"] for sample in old} == {10}
    assert all("span_s" not in sample for sample in result.samples if sample["seq"] > 120)
    assert result.cursors[measured.device.pk] == result.samples[-1]["seq"]


def test_old_samples_and_fleet_events_are_deleted(measured: Enrolled, settings: Any) -> None:
    settings.KEEP_SAMPLES_1MIN_H = settings.KEEP_EVENTS_H = 24.0
    Sample.objects.filter(seq__lte=50).update(span_s=60)
    Event.objects.all().delete()
    fleet_event("a day ago")
    Event.objects.update(at=START)
    fleet_event("today")
    rollup.prune(START + 25 * HOUR)
    assert Sample.objects.count() == 70
    assert [event.text for event in Event.objects.all()] == ["today"]


def test_failed_cleanup_step_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, db: None, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> int:
        raise OSError("the disk is gone")

    done = []
    parts = {"first": broken, "second": lambda: done.append(1) or 7}
    monkeypatch.setattr(cleanup, "PARTS", parts)
    assert cleanup.run() == {"second": 7}
    assert "could not clean up first" in caplog.text
    assert done == [1]
