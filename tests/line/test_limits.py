"""Limits of one line: messages and bytes a second, with a burst, and the end of patience."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from fedcore.formats.line_messages import TOO_MUCH
from webapp.common.settings_checks import check_line_limits
from webapp.line import limits
from webapp.line.closing import LineClosed
from webapp.line.hub import Hub
from webapp.line.limits import (
    OPENING_BURST_S,
    OPENINGS_PER_S,
    DeviceLimits,
    FrameLimit,
    TokenBucket,
)


class Clock:
    """Time that passes only by ``sleep``."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Clock:
    clock = Clock()
    monkeypatch.setattr(limits, "time", clock)
    monkeypatch.setattr(limits, "asyncio", SimpleNamespace(sleep=clock.sleep))
    settings.LINE_MESSAGES_PER_S, settings.LINE_BYTES_PER_S = 50.0, 1000.0
    settings.LINE_PATIENCE_S = 30.0
    return clock


def spend(limit: FrameLimit, *sizes: int) -> None:
    async def run() -> None:
        for size in sizes:
            await limit.spend(size)

    asyncio.run(run())


def test_bucket_allows_its_burst(clock: Clock) -> None:
    bucket = TokenBucket(per_s=10.0, burst_s=2.0)
    assert [bucket.take(1) for _ in range(20)] == [0.0] * 20
    assert bucket.take(1) == pytest.approx(0.1)
    assert bucket.take(1) == pytest.approx(0.2)


def test_bucket_refills_up_to_its_burst(clock: Clock) -> None:
    bucket = TokenBucket(per_s=10.0, burst_s=2.0)
    bucket.take(20)
    clock.now += 0.5
    assert bucket.take(5) == 0.0
    assert bucket.take(1) == pytest.approx(0.1)
    clock.now += 3600
    assert bucket.take(20) == 0.0, "an hour saves up no more than a burst"
    assert bucket.take(1) == pytest.approx(0.1)


def test_sender_within_the_limit_never_waits(clock: Clock) -> None:
    limit = FrameLimit()
    for _ in range(600):
        clock.now += 0.02
        spend(limit, 10)
    assert clock.slept == []


def test_many_messages_are_slowed_to_the_limit(clock: Clock) -> None:
    start = clock.now
    spend(FrameLimit(), *[1] * 900)
    assert clock.now - start == pytest.approx((900 - 400) / 50.0)


def test_many_bytes_are_slowed_to_the_limit(clock: Clock) -> None:
    start = clock.now
    spend(FrameLimit(), 16_000, 5_000)
    assert clock.slept == [pytest.approx(5.0)]
    assert clock.now - start == pytest.approx(5.0)


def test_flood_ends_the_line(clock: Clock) -> None:
    start = clock.now
    with pytest.raises(LineClosed) as closed:
        spend(FrameLimit(), *[1] * 10_000)
    assert closed.value.code == TOO_MUCH
    assert clock.now - start == pytest.approx(30.0, abs=0.1)


def test_pause_renews_the_patience(clock: Clock) -> None:
    limit = FrameLimit()
    spend(limit, *[1] * 1800)
    clock.now += 60
    spend(limit, *[1] * 1800)
    assert sum(clock.slept) > 30.0


def test_new_line_begins_with_what_is_left(clock: Clock) -> None:
    hub, start = Hub(), clock.now
    spend(hub.limits(7).frames, *[1] * 400)
    assert clock.now == start
    spend(hub.limits(7).frames, 1)
    assert clock.now - start == pytest.approx(1 / 50.0)
    spend(hub.limits(8).frames, *[1] * 400)
    assert clock.now - start == pytest.approx(1 / 50.0), "the limits of another device"


def test_refused_openings_prolong_nothing(clock: Clock) -> None:
    """An agent that tries again and again gets in at the limit's pace."""
    device = DeviceLimits()
    burst = int(OPENINGS_PER_S * OPENING_BURST_S)
    assert [device.may_open() for _ in range(burst)] == [True] * burst
    assert [device.may_open() for _ in range(100)] == [False] * 100
    clock.now += 1 / OPENINGS_PER_S
    assert [device.may_open() for _ in range(3)] == [True, False, False]
    clock.now += 3600
    assert [device.may_open() for _ in range(burst + 1)] == [True] * burst + [False]


@pytest.mark.parametrize("values", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, -1.0)])
def test_limits_that_let_nobody_in(values: tuple[float, float, float]) -> None:
    check_line_limits(0.1, 1.0, 0.0)
    with pytest.raises(ImproperlyConfigured, match="EDGEWISE_LINE_"):
        check_line_limits(*values)
