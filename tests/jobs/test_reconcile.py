"""The reconcile pass repairs crashes, lost messages and broker outages."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from tests.federation import Federation, phase_of
from webapp.common import task_queue as site_broker
from webapp.devices import device_messages
from webapp.jobs.lifecycle import services
from webapp.jobs.models import Assignment, Job
from workers.coordinator import outages, reconcile

pytestmark = pytest.mark.postgresql

NOBODY_LISTENS = "redis://127.0.0.1:1/0"


def test_lost_offer_is_resent(federation: Federation) -> None:
    (kitchen,) = federation.devices("pi-kitchen")
    federation.launch()
    (offer,) = kitchen.offers()
    federation.outbox.devices.clear()
    reconcile.run()
    assert kitchen.offers() == [], "not at once"
    federation.later(16)
    reconcile.run()
    assert kitchen.offers() == [offer]
    reconcile.run()
    assert len(federation.outbox.devices) == 1, "and not all the time"


def test_unsent_offer_is_sent(federation: Federation) -> None:
    (kitchen,) = federation.devices("pi-kitchen")
    federation.launch()
    Assignment.objects.update(sent_at=None)
    federation.outbox.devices.clear()
    reconcile.run()
    assert len(kitchen.offers()) == 1
    assert Assignment.objects.get().sent_at is not None


def test_offline_or_busy_device_gets_no_offer(federation: Federation) -> None:
    kitchen, porch = federation.devices("pi-kitchen", "pi-porch")
    federation.launch()
    federation.later(16)
    federation.outbox.devices.clear()
    federation.lose(kitchen)
    porch.presence("11111111-1111-4111-8111-111111111111")
    reconcile.run()
    assert [kind for kind, *_ in federation.outbox.devices] == ["cancel"]


def test_repeated_offer_is_one_assignment(federation: Federation) -> None:
    (_kitchen,) = federation.devices("pi-kitchen")
    job = federation.launch()
    federation.later(16)
    reconcile.run()
    bodies = [json.loads(envelope["body"]) for _, _, envelope in federation.outbox.devices]
    assert len({body["nonce"] for body in bodies}) == 2
    assert len({body["assignment"] for body in bodies}) == 1
    assert federation.run(job).phase == "completed"


def test_losing_every_message_is_harmless(federation: Federation) -> None:
    """Not one message reaches the coordinator or the aggregation worker by itself."""
    federation.devices("pi-kitchen", "pi-porch")
    job = federation.launch(rounds=2)
    for _ in range(60):
        federation.outbox.site.clear()
        federation.later(61)
        reconcile.run()
        job.refresh_from_db()
        if job.is_over:
            break
        requests = [item for item in federation.outbox.site if item[0] != site_broker.ADVANCE]
        federation.outbox.site[:] = requests
        federation.work_off()
        for pi in federation.pis:
            pi.presence()
            pi.work()
    assert job.phase == "completed"


def test_repeating_every_message_is_harmless(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation.devices("pi-kitchen", "pi-porch")
    once = federation.run(federation.launch(rounds=2))
    box = federation.outbox.site

    def twice(name: str, args: tuple[Any, ...]) -> None:
        box.append((name, args))
        box.append((name, args))

    monkeypatch.setattr(site_broker, "publisher", twice)
    again = federation.run(federation.launch(rounds=2))
    assert again.phase == "completed"
    assert again.global_artefact_id == once.global_artefact_id
    assert again.rounds.count() == once.rounds.count() == 3
    strip = str.maketrans("", "", "0123456789.")
    assert sorted(federation.log(again).translate(strip).split("\n")) == sorted(
        federation.log(once).translate(strip).split("\n")
    )


@pytest.mark.parametrize("what", [site_broker.INITIALISE, site_broker.AGGREGATE])
def test_lost_aggregation_request_is_resent(federation: Federation, what: str) -> None:
    (kitchen,) = federation.devices("pi-kitchen")
    if what == site_broker.INITIALISE:
        job = services.create_job(federation.spec(), None)
    else:
        job = federation.started()
        kitchen.work()
    requests = _requests_for(federation, what)
    assert len(requests) == 1
    reconcile.run()  # sets the mark that a broker without its data would lack
    assert _requests_for(federation, what) == requests
    federation.later(50)
    reconcile.run()
    assert not _requests_for(federation, what), "a worker may still do it"
    federation.later(11)
    reconcile.run()
    assert _requests_for(federation, what) == requests
    federation.outbox.site.append((what, requests[0]))
    assert federation.run(job).phase == "completed"


def _requests_for(federation: Federation, what: str) -> list[tuple[Any, ...]]:
    """Let the coordinator work; take the requests to the other worker out and return them."""
    from workers.coordinator.tasks import advance_job

    result = []
    while federation.outbox.site:
        name, args = federation.outbox.site.pop(0)
        if name == what:
            result.append(args)
        elif name == site_broker.ADVANCE:
            advance_job(*args)
    return result


def test_offer_with_broker_down_is_sent_later(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    kitchen, porch = federation.devices("pi-kitchen", "pi-porch")
    publisher = device_messages.publisher
    monkeypatch.setattr(device_messages, "publisher", device_messages.publish)
    job = federation.launch()
    assert federation.parts(job, "evaluate") == {
        ("pi-kitchen", 1): "offered",
        ("pi-porch", 1): "offered",
    }
    reconcile.run()
    assert set(Assignment.objects.values_list("sent_at", flat=True)) == {None}
    monkeypatch.setattr(device_messages, "publisher", publisher)
    reconcile.run()
    assert len(kitchen.offers()) == len(porch.offers()) == 1
    assert None not in set(Assignment.objects.values_list("sent_at", flat=True))


def test_launch_with_site_broker_down(
    federation: Federation,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The job is queued all the same, a line says what it waits for, and it starts later."""
    federation.devices("pi-kitchen")
    publisher = site_broker.publisher
    monkeypatch.setattr(site_broker.app.conf, "broker_url", NOBODY_LISTENS)
    monkeypatch.setattr(site_broker, "publisher", site_broker.publish)
    with caplog.at_level(logging.WARNING):
        job = services.create_job(federation.spec(), None)
    assert "broker is down, edgewise.advance" in caplog.text
    assert "waits for the reconcile pass" in caplog.text
    job.refresh_from_db()
    assert job.phase == "queued"
    monkeypatch.setattr(site_broker, "publisher", publisher)
    federation.reconcile()
    assert federation.run(job).phase == "completed"


def test_report_with_site_broker_down(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    (kitchen,) = federation.devices("pi-kitchen")
    job = federation.started()
    publisher = site_broker.publisher
    monkeypatch.setattr(site_broker.app.conf, "broker_url", NOBODY_LISTENS)
    monkeypatch.setattr(site_broker, "publisher", site_broker.publish)
    assert kitchen.work() == ["train"]
    monkeypatch.setattr(site_broker, "publisher", publisher)
    assert federation.run(job).phase == "completed"


def test_broken_job_stops_no_other(
    federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    federation.devices("pi-kitchen")
    broken = services.create_job(federation.spec(), None)
    Job.objects.filter(pk=broken.pk).update(spec={"rounds": -1})
    fine = services.create_job(federation.spec(), None)
    federation.outbox.site.clear()
    reconcile.run()
    assert f"job {broken.pk} could not be advanced" in caplog.text
    federation.work_off()
    assert federation.run(fine).phase == "completed"


@pytest.mark.parametrize("phase", ["cancelled", "paused", "failed"])
def test_open_round_of_ended_job_is_closed(federation: Federation, phase: str) -> None:
    (kitchen,) = federation.devices("pi-kitchen")
    job = federation.started()
    assignment = kitchen.take()["assignment"]
    Job.objects.filter(pk=job.pk).update(phase=phase)
    reconcile.run()
    assert federation.round(job).phase == "failed"
    assert phase_of(assignment) == "expired"
    assert kitchen.cancels()[assignment] == f"the job was {phase}"
    assert reconcile.unfinished_jobs() == []


def test_finished_jobs_need_no_queries(
    federation: Federation, django_assert_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "WRITE_EVERY_S", 3600.0)  # a look is noted once a second at most
    federation.devices("pi-kitchen")
    federation.run(federation.launch())
    reconcile.run()
    assert reconcile.unfinished_jobs() == []
    with django_assert_num_queries(3):
        reconcile.run()
