"""How often devices report: each second while a page shows them, slower otherwise."""

from __future__ import annotations

from uuid import uuid4

import pytest

from webapp.telemetry.report_interval import BATCHES_PER_S, WATCHED_S, interval_s, watch


def test_watching_a_job_or_device_asks_for_a_sample_each_second() -> None:
    job, device = uuid4(), 7
    relaxed = interval_s(device, job, online=3)
    assert relaxed > WATCHED_S
    watch(job)
    assert interval_s(device, job, online=3) == WATCHED_S
    assert interval_s(8, None, online=3) > WATCHED_S
    watch(8)
    assert interval_s(8, None, online=3) == WATCHED_S


def test_a_large_fleet_is_asked_less_often_than_it_can_drown_the_server() -> None:
    fleet = 10_000
    watch(1)
    for device in (1, 2):
        assert fleet / interval_s(device, None, fleet) <= BATCHES_PER_S


@pytest.mark.parametrize("online", [0, 1, 100])
def test_an_idle_device_is_heard_of_before_it_counts_as_offline(online: int) -> None:
    from django.conf import settings

    assert interval_s(1, None, online) * 3 <= settings.OFFLINE_AFTER_S
