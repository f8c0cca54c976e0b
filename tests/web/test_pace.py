"""Report interval of devices: every second while watched, slower otherwise."""

from __future__ import annotations

from uuid import uuid4

import pytest

from webapp.telemetry.report_interval import BATCHES_PER_S, WATCHED_S, interval_s, watch


def test_watched_devices_sample_every_second() -> None:
    job, device = uuid4(), 7
    relaxed = interval_s(device, job, online=3)
    assert relaxed > WATCHED_S
    watch(job)
    assert interval_s(device, job, online=3) == WATCHED_S
    assert interval_s(8, None, online=3) > WATCHED_S
    watch(8)
    assert interval_s(8, None, online=3) == WATCHED_S


def test_large_fleet_samples_less_often() -> None:
    fleet = 10_000
    watch(1)
    for device in (1, 2):
        assert fleet / interval_s(device, None, fleet) <= BATCHES_PER_S


@pytest.mark.parametrize("online", [0, 1, 100])
def test_idle_device_calls_before_it_counts_as_offline(online: int) -> None:
    from django.conf import settings

    assert interval_s(1, None, online) * 3 <= settings.OFFLINE_AFTER_S
