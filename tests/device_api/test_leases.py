"""Leases of assignments, restarted agents and revoked devices."""

from __future__ import annotations

import pytest

from tests.device_api.assignments import detail
from tests.federation import LEASE_S, Federation, phase_of
from webapp.jobs.lifecycle import enrolment as devices

pytestmark = pytest.mark.postgresql

UNENROL = "/api/v1/device/unenrol/"


def test_expired_lease_refuses_calls(training: Federation) -> None:
    kitchen = training.pis[0]
    work = kitchen.take()
    training.later(LEASE_S + 1)
    training.reconcile()
    job = training.job
    assert training.parts(job) == {
        ("pi-kitchen", 1): "expired",
        ("pi-kitchen", 2): "offered",
        ("pi-porch", 1): "offered",
    }
    assert "silent for longer than its lease" in kitchen.cancels()[work["assignment"]]
    assert "pi-kitchen, round 1: silent for longer than its lease" in training.log(job)
    assert "is over (expired)" in detail(
        kitchen.upload(work["assignment"], kitchen.update_for(work)), 409
    )


@pytest.mark.parametrize("sign", ["progress", "measurements", "upload"])
def test_measurements_renew_the_lease(training: Federation, sign: str) -> None:
    kitchen = training.pis[0]
    work = kitchen.take()
    training.later(LEASE_S - 5)
    if sign == "progress":
        kitchen.act(work["assignment"], "progress", {"phase": "training"})
    elif sign == "measurements":
        kitchen.presence(work["assignment"])
    else:
        kitchen.upload(work["assignment"], kitchen.update_for(work))
    training.later(LEASE_S - 5)
    training.reconcile()
    assert phase_of(work["assignment"]) in ("accepted", "training", "uploading")


def test_measurements_without_assignment_renew_nothing(training: Federation) -> None:
    kitchen, porch = training.pis
    work = kitchen.take()
    training.later(LEASE_S + 1)
    kitchen.presence(None)
    porch.presence(work["assignment"])
    training.reconcile()
    assert phase_of(work["assignment"]) == "expired"


def test_restart_expires_assignments(training: Federation) -> None:
    kitchen = training.pis[0]
    work = kitchen.take()
    kitchen.act(work["assignment"], "progress", {"phase": "training"})
    answer = kitchen.hello("boot-after-a-crash")
    assert answer.json()["name"] == "pi-kitchen"
    training.work_off()
    job = training.job
    assert training.parts(job)["pi-kitchen", 1] == "expired"
    assert training.parts(job)["pi-kitchen", 2] == "offered"
    assert "pi-kitchen, round 1: the agent was restarted" in training.log(job)
    second = kitchen.take()
    assert (second["attempt"], second["assignment"]) == (2, kitchen.offers()[-1])


def test_repeated_hello_expires_nothing(training: Federation) -> None:
    kitchen = training.pis[0]
    work = kitchen.take()
    kitchen.hello()
    training.work_off()
    assert phase_of(work["assignment"]) == "accepted"


def test_revoked_device_is_refused(training: Federation) -> None:
    kitchen, porch = training.pis
    work = kitchen.take()
    devices.revoke(kitchen.device, None)
    training.work_off()
    assert kitchen.enrolled.client.post(UNENROL).status_code == 401
    assert kitchen.upload(work["assignment"], b"x").status_code == 401
    job = training.job
    assert training.parts(job) == {("pi-kitchen", 1): "expired", ("pi-porch", 1): "offered"}
    assert "pi-kitchen, round 1: the device was revoked" in training.log(job)
    # The round goes on without it, and so does the evaluation, which nobody offers to it.
    porch.work()
    training.work_off()
    assert training.round(job).phase == "evaluating"
    porch.work()
    training.work_off()
    training.reconcile()
    job.refresh_from_db()
    assert job.phase == "completed", training.parts(job, "evaluate")


def test_device_unenrols_itself(training: Federation) -> None:
    kitchen = training.pis[0]
    assert kitchen.enrolled.client.post(UNENROL).status_code == 204
    assert kitchen.enrolled.client.post(UNENROL).status_code == 401
    assert kitchen.device.revoked_at is not None
