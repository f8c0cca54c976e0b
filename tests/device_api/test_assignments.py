"""Accept, progress, report, fail: repeated, late, or by another device."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection

from fedcore.formats.line_messages import MessageError
from tests.device import SCORES, TRAINED
from tests.device_api.assignments import detail
from tests.federation import Federation, phase_of
from webapp.jobs.lifecycle import services
from webapp.jobs.models import Assignment

pytestmark = pytest.mark.postgresql

VERBS: dict[str, dict[str, Any]] = {
    "accept": {},
    "progress": {"phase": "training"},
    "report": {"update": None, "examples": 1, "metrics": {}},
    "fail": {"reason": "no"},
    "refuse": {"reason": "no"},
}


def test_accepting_again_gives_the_same_work(training: Federation) -> None:
    """The first answer may be lost on its way: the device asks once more."""
    kitchen = training.pis[0]
    offer = kitchen.offers()[-1]
    first = kitchen.accept(offer)
    again = kitchen.accept(offer)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()


def test_started_assignment_is_not_accepted_again(training: Federation) -> None:
    kitchen = training.pis[0]
    work = kitchen.take()
    kitchen.act(work["assignment"], "progress", {"phase": "training"})
    text = detail(kitchen.accept(work["assignment"]), 409)
    assert text == "an assignment that is training cannot become accepted"


def test_acceptance_is_bound_to_boot(training: Federation) -> None:
    kitchen = training.pis[0]
    offer = kitchen.offers()[-1]
    kitchen.boot_id = "an older start"
    assert "say hello" in detail(kitchen.accept(offer), 409)
    assert phase_of(offer) == "offered"


def test_other_device_gets_404(training: Federation, subtests: Any) -> None:
    kitchen, porch = training.pis
    work = kitchen.take()
    for verb, body in VERBS.items():
        with subtests.test(verb):
            detail(porch.act(work["assignment"], verb, body), 404)
    detail(porch.upload(work["assignment"], kitchen.update_for(work)), 404)
    assert phase_of(work["assignment"]) == "accepted"


def test_unknown_assignment_is_404(training: Federation, subtests: Any) -> None:
    for verb, body in VERBS.items():
        with subtests.test(verb):
            detail(training.pis[0].act(str(uuid.uuid4()), verb, body), 404)


@pytest.mark.parametrize("move", ["cancel", "pause"])
def test_calls_after_job_stop_are_refused(training: Federation, move: str, subtests: Any) -> None:
    kitchen = training.pis[0]
    work = kitchen.take()
    services.move(training.job.pk, move, None)
    training.work_off()
    for verb, body in VERBS.items():
        with subtests.test(verb):
            text = detail(kitchen.act(work["assignment"], verb, body), 409)
            assert text == "this assignment is over (expired); wait for the next offer"
    result = kitchen.cancels()[work["assignment"]]
    assert result == ("the job was cancelled" if move == "cancel" else "the job was paused")
    training.outbox.devices.clear()
    kitchen.presence(work["assignment"])
    assert kitchen.cancels() == {work["assignment"]: result}, "measurements repeat it"


def test_offer_of_stopped_job_is_refused(training: Federation) -> None:
    kitchen = training.pis[0]
    services.move(training.job.pk, "cancel", None)
    training.work_off()
    assert "is over" in detail(kitchen.accept(kitchen.offers()[-1]), 409)


def test_report_is_idempotent(training: Federation) -> None:
    kitchen = training.pis[0]
    work = kitchen.take()
    content = kitchen.update_for(work)
    kitchen.upload(work["assignment"], content)
    for _ in range(2):
        assert kitchen.report(work["assignment"], content, bytes_up=5).status_code == 200
    assert training.log(training.job).count("pi-kitchen, round 1: trained") == 1


def test_another_report_is_refused_and_the_first_counts(
    training: Federation, subtests: Any
) -> None:
    kitchen = training.pis[0]
    work = kitchen.take()
    content = kitchen.update_for(work)
    kitchen.upload(work["assignment"], content)
    kitchen.report(work["assignment"], content)
    others: list[dict[str, Any]] = [
        {"examples": 41},
        {"metrics": {**TRAINED, "loss": 1.0}},
        {"update": "0" * 64},
        {"update": None},
    ]
    for other in others:
        with subtests.test(str(other)):
            text = detail(kitchen.report(work["assignment"], content, **other), 409)
            assert "the first result counts" in text
    row = Assignment.objects.get(pk=work["assignment"])
    assert (row.examples, row.metrics["loss"]) == (40, 1.5)


def test_second_evaluation_is_refused(federation: Federation) -> None:
    (pi,) = federation.devices("pi-kitchen")
    federation.launch()
    work = pi.take()
    assert pi.report(work["assignment"], None).status_code == 200
    assert pi.report(work["assignment"], None).status_code == 200
    other = {"metrics": {**SCORES, "rougeL": 99.0}}
    assert "first result" in detail(pi.report(work["assignment"], None, **other), 409)


def test_evaluation_has_no_update(federation: Federation) -> None:
    (pi,) = federation.devices("pi-kitchen")
    federation.launch()
    work = pi.take()
    text = detail(pi.report(work["assignment"], None, update="0" * 64), 409)
    assert text == "an evaluation has no update"
    assert "no update" in detail(pi.upload(work["assignment"], b"weights"), 409)


def test_report_needs_uploaded_update(training: Federation) -> None:
    kitchen = training.pis[0]
    work = kitchen.take()
    content = kitchen.update_for(work)
    assert detail(kitchen.report(work["assignment"], content), 409) == (
        "upload the update before reporting it"
    )
    kitchen.upload(work["assignment"], content)
    other = kitchen.update_for(work, number=9.0)
    assert "upload the update" in detail(kitchen.report(work["assignment"], other), 409)
    assert "upload the update" in detail(kitchen.report(work["assignment"], None, examples=3), 409)
    assert kitchen.report(work["assignment"], content).status_code == 200


def test_report_needs_acceptance(training: Federation) -> None:
    kitchen = training.pis[0]
    offer = kitchen.offers()[-1]
    for phase in ("training", "uploading"):
        text = detail(kitchen.act(offer, "progress", {"phase": phase}), 409)
        assert text == f"an assignment that is offered cannot become {phase}"
    assert "offered" in detail(kitchen.upload(offer, b"weights"), 409)


def test_progress_twice_and_backwards(training: Federation) -> None:
    kitchen = training.pis[0]
    assignment = kitchen.take()["assignment"]
    for phase in ("training", "training", "uploading", "uploading"):
        assert kitchen.act(assignment, "progress", {"phase": phase}).json() == {}
    text = detail(kitchen.act(assignment, "progress", {"phase": "training"}), 409)
    assert text == "an assignment that is uploading cannot become training"
    assert "phase" in detail(kitchen.act(assignment, "progress", {"phase": "reported"}), 400)


def test_retryable_failure_is_offered_again(training: Federation) -> None:
    kitchen = training.pis[0]
    assignment = kitchen.take()["assignment"]
    kitchen.done.add(assignment)
    body = {"reason": "out of memory", "retryable": True, "step": 7}
    assert kitchen.act(assignment, "fail", body).status_code == 200
    assert kitchen.act(assignment, "fail", body).status_code == 200, "reported twice"
    training.work_off()
    assert training.parts(training.job)["pi-kitchen", 2] == "offered"
    assert len(kitchen.offers()) == 1
    log = training.log(training.job)
    assert log.count("pi-kitchen, round 1: failed: out of memory") == 1
    assert "over (failed)" in detail(kitchen.accept(assignment), 409)


def test_refusal_ends_the_assignment(training: Federation) -> None:
    """An unknown dataset or column, too few examples: the device says so, the others go on."""
    kitchen, porch = training.pis
    assignment = kitchen.take()["assignment"]
    reason = "dataset 'law' has no column 'summary'; it has: text"
    assert kitchen.act(assignment, "refuse", {"reason": reason}).status_code == 200
    training.work_off()
    porch.work()
    training.work_off()
    job = training.job
    assert f"pi-kitchen, round 1: refused: {reason}" in training.log(job)
    assert training.round(job).fold["slots"] == [1]


def test_concurrent_reports_store_one(training: Federation) -> None:
    """A report and a failure race: one wins, the other gets a 409, and the log has one line."""
    kitchen = training.pis[0]
    work = kitchen.take()
    content = kitchen.update_for(work)
    kitchen.upload(work["assignment"], content)
    ready = threading.Barrier(2)

    def send(verb: str) -> int:
        ready.wait()
        try:
            if verb == "report":
                return kitchen.report(work["assignment"], content).status_code
            return kitchen.act(work["assignment"], "fail", {"reason": "x"}).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        statuses = sorted(pool.map(send, ["report", "fail"]))
    assert statuses == [200, 409]
    log = training.log(training.job)
    assert ("round 1: trained" in log) != ("round 1: failed" in log)


NONSENSE: list[tuple[str, dict[str, Any]]] = [
    ("report", {}),
    ("report", {"update": "short", "examples": 1}),
    ("report", {"update": None, "examples": 0}),
    ("report", {"update": None, "examples": 10**12}),
    ("report", {"update": None, "examples": 1, "metrics": [1]}),
    ("report", {"update": None, "examples": 1, "metrics": {"loss": "high"}}),
    ("report", {"update": None, "examples": 1, "metrics": {"loss": 10**400}}),
    ("report", {"update": None, "examples": 1, "metrics": {"loss": -1}}),
    ("report", {"update": None, "examples": 1, "metrics": {"loss": True}}),
    ("report", {"update": None, "examples": 1, "metrics": {"rougeL": 101}}),
    ("report", {"update": None, "examples": 1, "metrics": {"phase_s": {"load": "x"}}}),
    ("report", {"update": None, "examples": 1, "metrics": {"phase_s": 3}}),
    ("report", {"update": None, "examples": 1, "metrics": {"new": [16]}}),
    ("report", {"update": None, "examples": 1, "metrics": {"x": "y" * 30_000}}),
    ("progress", {}),
    ("progress", {"phase": "done"}),
    ("fail", {}),
    ("fail", {"reason": "x" * 2001}),
    ("refuse", {}),
    ("refuse", {"reason": 3}),
]


def test_invalid_bodies_are_400(training: Federation, subtests: Any) -> None:
    kitchen = training.pis[0]
    assignment = kitchen.take()["assignment"]
    for verb, body in NONSENSE:
        with subtests.test(f"{verb} {str(body)[:60]}"):
            answer = kitchen.act(assignment, verb, body)
            beginnings = ("the message is not valid: ", "metrics has ", "metrics: ")
            assert detail(answer, 400).startswith(beginnings)
            assert phase_of(assignment) == "accepted"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_nan_and_infinity_are_refused(training: Federation, number: str) -> None:
    kitchen = training.pis[0]
    assignment = kitchen.take()["assignment"]
    metrics = f'{{"loss": {number}}}'
    body = f'{{"assignment": "{assignment}", "update": null, "examples": 3, "metrics": {metrics}}}'
    if number == "1e999":
        detail(kitchen.frame("report", body.encode()), 400)
    else:
        with pytest.raises(MessageError):  # no JSON, which ends the line
            kitchen.frame("report", body.encode())
    assert phase_of(assignment) == "accepted"
