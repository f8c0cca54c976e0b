"""Concurrent calls. The part "postgresql" runs them there too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection

from tests.device import Pi
from tests.federation import Federation, phase_of
from webapp.jobs.lifecycle import enrolment as devices
from webapp.jobs.lifecycle import services
from webapp.jobs.lifecycle.transitions import AssignmentRefused
from webapp.jobs.models import Assignment, Event, Job, Round
from workers.aggregate.round_fold import fold_round
from workers.coordinator import reconcile
from workers.coordinator.advance import advance

pytestmark = pytest.mark.postgresql

SIMULTANEOUS = 4


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run each call in a thread of its own, all released together; raises what they raise."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        try:
            barrier.wait(30)
            return call()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(60) for future in [pool.submit(run, call) for call in calls]]


def assert_sound(job: Job) -> None:
    """What must be true of every job at every moment."""
    rounds = list(job.rounds.values_list("number", "attempt"))
    assert len(set(rounds)) == len(rounds)
    seqs = list(Event.objects.filter(job=job).order_by("seq").values_list("seq", flat=True))
    assert seqs == list(range(1, len(seqs) + 1))
    for row in Assignment.objects.filter(round__job=job):
        ended = row.phase in ("reported", "folded", "failed", "expired", "refused")
        assert (row.ended_at is not None) == ended, row.phase


def test_coordinators_start_a_round_once(federation: Federation) -> None:
    federation.devices("pi-a", "pi-b")
    job = services.create_job(federation.spec(), None)
    from workers.aggregate.initial_model import initialise_job

    initialise_job(job.pk)
    federation.outbox.site.clear()
    at_once([lambda: advance(job.pk)] * SIMULTANEOUS)
    assert Round.objects.filter(job=job).count() == 1
    assert Assignment.objects.filter(round__job=job).count() == 2
    assert len(federation.outbox.devices) == 2, "one offer each"
    assert job.participants.count() == 2
    assert federation.log(job).count("round 0 started") == 1
    assert_sound(job)


def test_coordinators_close_a_round_once(federation: Federation) -> None:
    federation.devices("pi-a", "pi-b")
    job = federation.started()
    for pi in federation.pis:
        pi.work()
    federation.outbox.site.clear()
    at_once([lambda: advance(job.pk)] * SIMULTANEOUS)
    assert federation.round(job).phase == "aggregating"
    requests = [item for item in federation.outbox.site if item[0] == "edgewise.aggregate"]
    assert len(requests) == 1
    assert_sound(job)
    assert federation.run(job).phase == "completed"


def test_workers_fold_a_round_once(federation: Federation) -> None:
    federation.devices("pi-a", "pi-b")
    job = federation.started()
    for pi in federation.pis:
        pi.work()
    advance(job.pk)
    federation.outbox.site.clear()
    current = federation.round(job)
    at_once([lambda: fold_round(current.pk)] * 3)
    current.refresh_from_db()
    assert current.phase == "evaluating"
    assert federation.log(job).count("folded 2 updates") == 1
    evaluations = Assignment.objects.filter(round=current, task="evaluate")
    assert evaluations.count() == 2
    assert_sound(job)
    assert federation.run(job).phase == "completed"


def test_offer_is_accepted_once(federation: Federation) -> None:
    (pi,) = federation.devices("pi-a")
    federation.launch()
    offer = pi.offers()[0]
    answers = at_once([lambda: pi.accept(offer)] * SIMULTANEOUS)
    assert {answer.status_code for answer in answers} <= {200, 409}
    works = [answer.json() for answer in answers if answer.status_code == 200]
    assert works
    assert all(work == works[0] for work in works)
    assert Assignment.objects.get().phase == "accepted"


def test_reports_race_with_coordinators(federation: Federation) -> None:
    """No deadlock, no lost answer, no line twice."""
    pis = federation.devices("pi-a", "pi-b", "pi-c", "pi-d")
    job = federation.started()
    accepted = [(pi, pi.take()) for pi in pis]
    federation.outbox.site.clear()
    looks: list[Callable[[], Any]] = [lambda: advance(job.pk), reconcile.run]
    at_once([*(_finisher(pi, work) for pi, work in accepted), *looks])
    advance(job.pk)
    assert federation.round(job).phase == "aggregating"
    assert set(federation.parts(job).values()) == {"reported"}
    for pi in pis:
        assert federation.log(job).count(f"{pi.name}, round 1: trained") == 1
    assert_sound(job)
    assert federation.run(job).phase == "completed"


def _finisher(pi: Pi, work: dict[str, Any]) -> Callable[[], Any]:
    return lambda: pi.finish(work)


@pytest.mark.parametrize("move", ["pause", "cancel"])
def test_cancel_races_with_reports(federation: Federation, move: str) -> None:
    pis = federation.devices("pi-a", "pi-b", "pi-c")
    job = federation.started()
    accepted = [(pi, pi.take()) for pi in pis]
    contents = {pi.name: pi.update_for(work) for pi, work in accepted}
    for pi, work in accepted:
        pi.upload(work["assignment"], contents[pi.name])
    federation.outbox.site.clear()

    def report(pi: Pi, work: dict[str, Any]) -> int:
        return pi.report(work["assignment"], contents[pi.name]).status_code

    def stop() -> None:
        services.move(job.pk, move, None)
        advance(job.pk)

    reports = [lambda pi=pi, work=work: report(pi, work) for pi, work in accepted]
    statuses = at_once([*reports, stop, lambda: advance(job.pk)])[: len(reports)]
    assert set(statuses) <= {200, 409}
    federation.work_off()
    federation.reconcile()
    job.refresh_from_db()
    assert job.phase == ("paused" if move == "pause" else "cancelled")
    assert federation.round(job).phase in ("failed", "closed")
    phases = set(federation.parts(job).values())
    assert phases <= {"reported", "expired", "folded"}
    assert_sound(job)


def test_restart_races_with_expiry(federation: Federation) -> None:
    """The agent says hello while the coordinator gives its silence up."""
    (pi, _) = federation.devices("pi-a", "pi-b")
    job = federation.started()
    for number in range(4):
        pi.take()
        federation.later(601)
        federation.outbox.site.clear()
        calls = [lambda n=number: pi.hello(f"boot-{n}"), lambda: advance(job.pk)]
        hello, _ = at_once(calls)
        assert hello.status_code == 200
        federation.work_off()
        attempts = {
            key[1]: phase for key, phase in federation.parts(job).items() if key[0] == "pi-a"
        }
        assert attempts[number + 1] == "expired"
        assert attempts[number + 2] == "offered"
    assert_sound(job)


def test_revocation_races_with_report(federation: Federation) -> None:
    pi, other = federation.devices("pi-a", "pi-b")
    job = federation.started()
    work = pi.take()
    other.work()
    content = pi.update_for(work)
    pi.upload(work["assignment"], content)
    federation.outbox.site.clear()
    answers = at_once(
        [
            lambda: pi.report(work["assignment"], content).status_code,
            lambda: devices.revoke(pi.device, None),
            lambda: advance(job.pk),
        ]
    )
    assert answers[0] in (200, 401, 409)
    federation.work_off()
    federation.reconcile()
    other.work()
    federation.run(job)
    assert job.phase == "completed"
    assert_sound(job)


def test_pause_races_with_resume(federation: Federation) -> None:
    federation.devices("pi-a")
    job = federation.started()

    def press(name: str) -> str:
        try:
            return services.move(job.pk, name, None).phase
        except services.MoveRefused as refusal:
            return str(refusal)

    answers = at_once([lambda: press("pause")] * SIMULTANEOUS)
    assert answers.count("paused") == 1
    assert all("a paused job cannot pause" in text for text in answers if text != "paused")
    assert federation.log(job).count("paused by the system") == 1
    assert_sound(job)


def test_stale_assignment_is_read_again(federation: Federation) -> None:
    """A measurement may move an assignment between what an upload reads and what it writes."""
    from fedcore.rounds.types import AssignmentPhase
    from webapp.jobs.lifecycle.transitions import move_assignment

    (pi,) = federation.devices("pi-a")
    federation.launch()
    stale = Assignment.objects.get()
    pi.accept(pi.offers()[0])
    with pytest.raises(AssignmentRefused, match="already accepted"):
        move_assignment(stale, AssignmentPhase.ACCEPTED)
    stale = Assignment.objects.get()
    pi.act(str(stale.pk), "progress", {"phase": "training"})
    move_assignment(stale, AssignmentPhase.UPLOADING)
    assert Assignment.objects.get().phase == "uploading"


def test_upload_races_with_measurement(federation: Federation) -> None:
    """A measurement of the training moves back no assignment that is uploading."""
    (pi,) = federation.devices("pi-a")
    federation.launch()
    pi.accept(pi.offers()[0])
    key = str(Assignment.objects.get().pk)
    answers = at_once(
        [lambda: pi.presence(key).status_code] * SIMULTANEOUS
        + [lambda: pi.act(key, "progress", {"phase": "uploading"}).status_code]
    )
    assert answers == [200] * (SIMULTANEOUS + 1)
    assert phase_of(key) == "uploading"
    assert pi.act(key, "progress", {"phase": "training"}).status_code == 409
