"""Outages, clock jumps and brokers that lost messages: no work is lost."""

from __future__ import annotations

import random
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.db.models import F
from django.utils import timezone

from tests.federation import LEASE_S, Federation, phase_of
from webapp.common import task_queue as site_broker
from webapp.devices.models import Device
from webapp.jobs.lifecycle import transitions
from webapp.jobs.models import Assignment, Event, Watch
from workers.coordinator import outages, reconcile

pytestmark = pytest.mark.postgresql

HOUR_S = 3600.0


def _passes_while_away(federation: Federation, seconds: float) -> None:
    """Time passes in which nobody looks."""
    federation.later(seconds)
    back = timedelta(seconds=seconds)
    Watch.objects.update(looked_at=F("looked_at") - back)


def _training(federation: Federation) -> tuple[Any, dict[str, Any]]:
    """A device in the middle of its training, and its work."""
    (kitchen,) = federation.devices("pi-kitchen")
    federation.started()
    reconcile.run()
    return kitchen, kitchen.take()


def test_long_outage_loses_no_work(federation: Federation) -> None:
    kitchen, work = _training(federation)
    _passes_while_away(federation, 3 * LEASE_S)
    reconcile.run()
    assert phase_of(work["assignment"]) == "accepted"
    assert "the coordinator was down for" in Event.objects.filter(job=None).first().text  # type: ignore[union-attr]
    kitchen.finish(work)
    assert federation.run(federation.job).phase == "completed"
    assert not Assignment.objects.filter(attempt=2).exists()


def test_outage_extends_deadline(federation: Federation) -> None:
    _kitchen, work = _training(federation)
    before = federation.round(federation.job).deadline_at
    _passes_while_away(federation, 3 * HOUR_S)
    reconcile.run()
    row = federation.round(federation.job)
    assert row.phase == "collecting"
    assert abs((row.deadline_at - before).total_seconds()) < 10.0
    assert phase_of(work["assignment"]) == "accepted"


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
def test_clock_jump_leaves_leases_unchanged(federation: Federation, jump_s: float) -> None:
    """The same rows seen by a clock that has jumped: all moments lie off by that much."""
    kitchen, work = _training(federation)
    _passes_while_away(federation, jump_s)
    seen = timezone.now() - timedelta(seconds=jump_s)
    Device.objects.update(last_seen_at=seen)
    reconcile.run()
    row = Assignment.objects.get(pk=work["assignment"])
    assert row.phase == "accepted"
    left_s = (row.lease_until - timezone.now()).total_seconds()
    assert 0 < left_s <= LEASE_S + 5
    left_s = (federation.round(federation.job).deadline_at - timezone.now()).total_seconds()
    assert 0 < left_s <= 7205
    assert Device.objects.get().last_seen_at <= timezone.now()
    kitchen.finish(work)
    assert federation.run(federation.job).phase == "completed"


def test_one_coordinator_handles_an_outage(federation: Federation) -> None:
    _kitchen, work = _training(federation)
    _passes_while_away(federation, HOUR_S)
    until = Assignment.objects.get(pk=work["assignment"]).lease_until
    outages.record_heartbeat()
    outages.record_heartbeat()
    moved = Assignment.objects.get(pk=work["assignment"]).lease_until - until
    assert HOUR_S - 10 < moved.total_seconds() < HOUR_S + 10


def test_outage_makes_no_device_late(federation: Federation) -> None:
    (kitchen,) = federation.devices("pi-kitchen")
    federation.lose(kitchen)
    job = federation.launch()
    reconcile.run()
    _passes_while_away(federation, 3 * HOUR_S)
    reconcile.run()
    job.refresh_from_db()
    assert job.phase == "queued", job.reason


def test_silent_device_resumes_its_work(federation: Federation) -> None:
    """The web process was away while the coordinator was not: leases ran out."""
    kitchen, work = _training(federation)
    federation.lose(kitchen)
    federation.later(LEASE_S + 1)
    reconcile.run()
    assert phase_of(work["assignment"]) == "expired"
    assert kitchen.cancels() == {}, "it would drop its work"
    kitchen.presence(work["assignment"])
    assert kitchen.cancels() == {}
    assert phase_of(work["assignment"]) == "training"
    assert "reconnected, resumes its work" in federation.log(federation.job)
    reconcile.run()
    kitchen.finish(work)
    assert federation.run(federation.job).phase == "completed"
    assert not Assignment.objects.filter(attempt=2).exists()


def test_upload_resumes_expired_work(federation: Federation) -> None:
    kitchen, work = _training(federation)
    federation.lose(kitchen)
    federation.later(LEASE_S + 1)
    reconcile.run()
    answer = kitchen.act(work["assignment"], "progress", {"phase": "uploading"})
    assert answer.status_code == 200
    assert phase_of(work["assignment"]) == "uploading"


def test_previous_agent_start_resumes_nothing(federation: Federation) -> None:
    kitchen, work = _training(federation)
    federation.lose(kitchen)
    federation.later(LEASE_S + 1)
    reconcile.run()
    kitchen.boot_id = "an-older-boot"
    assert kitchen.presence(work["assignment"]).status_code == 409  # say hello again
    assert phase_of(work["assignment"]) == "expired"


def test_only_silent_expiry_can_be_resumed(federation: Federation) -> None:
    _kitchen, work = _training(federation)
    row = Assignment.objects.get(pk=work["assignment"])
    transitions.take_back(row)
    assert phase_of(work["assignment"]) == "accepted"


@pytest.mark.parametrize("seed", range(3))
def test_message_order_and_repetition_are_harmless(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    federation.devices("pi-kitchen", "pi-porch")
    once = federation.run(federation.launch(rounds=2, strategy={"name": "fedadam"}))
    rng, box = random.Random(seed), federation.outbox.site

    def shuffled(name: str, args: tuple[Any, ...]) -> None:
        for _ in range(rng.choice((1, 2))):
            box.insert(rng.randrange(len(box) + 1), (name, args))

    monkeypatch.setattr(site_broker, "publisher", shuffled)
    again = federation.run(federation.launch(rounds=2, strategy={"name": "fedadam"}))
    assert again.phase == "completed"
    assert again.global_artefact_id == once.global_artefact_id
    assert again.rounds.count() == 3


def test_lost_site_messages_are_resent_at_once(federation: Federation) -> None:
    (kitchen,) = federation.devices("pi-kitchen")
    job = federation.started()
    reconcile.run()
    kitchen.work()
    federation.outbox.site[:] = [("edgewise.advance", (str(job.pk),))]
    from workers.coordinator.tasks import advance_job

    federation.outbox.site.clear()
    advance_job(str(job.pk))
    requests = (site_broker.AGGREGATE, (federation.round(job).pk,))
    assert federation.outbox.site == [requests]
    federation.outbox.site.clear()
    reconcile.run()
    assert federation.outbox.site == [], "the broker still has the message"
    cache.clear()
    reconcile.run()
    assert federation.outbox.site == [requests]


def test_new_aggregation_worker_gets_requests(federation: Federation) -> None:
    federation.devices("pi-kitchen")
    reconcile.run()
    job = federation.launch()
    from workers.coordinator.tasks import advance_job

    type(job).objects.filter(pk=job.pk).update(phase="queued", global_artefact=None)
    federation.round(job).delete()
    federation.outbox.site.clear()
    advance_job(str(job.pk))
    assert federation.outbox.site == []
    outages.repeat_requests()
    advance_job(str(job.pk))
    assert federation.outbox.site == [(site_broker.INITIALISE, (str(job.pk),))]


def test_restarted_agent_gets_its_offers(federation: Federation) -> None:
    (kitchen,) = federation.devices("pi-kitchen")
    federation.launch()
    (offer,) = kitchen.offers()
    federation.outbox.devices.clear()
    kitchen.hello(f"boot-{uuid.uuid4().hex}")
    reconcile.run()
    assert kitchen.offers() == [offer]
