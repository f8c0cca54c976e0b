"""A device that ran out of memory trains fewer examples at a time in its next attempt."""

from __future__ import annotations

from typing import Any

import pytest

from tests.device import Pi
from tests.federation import Federation
from webapp.jobs.models import Assignment, Job, Participant

ADVICE = "lower the batch size or the source length, or take a smaller model"


def run_out(pi: Pi, micro_batch: int) -> Assignment:
    """The device accepts its newest offer and fails for lack of memory."""
    work = pi.take()
    pi.done.add(work["assignment"])
    body = {"reason": "out of memory on this device", "out_of_memory": True}
    answer = pi.act(work["assignment"], "fail", {**body, "step": 3, "micro_batch": micro_batch})
    assert answer.message.ack
    return Assignment.objects.get(pk=work["assignment"])


def overrides(job: Job, name: str) -> dict[str, Any]:
    tailoring: dict[str, Any] = Participant.objects.get(job=job, device__name=name).tailoring
    return tailoring


def test_micro_batch_is_halved_for_the_retry(federation: Federation) -> None:
    kitchen, porch = federation.devices("pi-kitchen", "pi-porch")
    job = federation.started(rounds=2)
    failed = run_out(porch, 8)
    assert failed.reason == (
        "out of memory on this device (at step 3); "
        "from now on it trains 4 instead of 8 examples at a time"
    )
    assert f"pi-porch, round 1: failed: {failed.reason}" in federation.log(job)
    federation.work_off()
    retry = porch.take()
    assert (retry["attempt"], retry["tailoring"]) == (2, {"train.micro_batch": 4})
    assert overrides(job, "pi-kitchen") == {}
    porch.done.add(retry["assignment"])
    porch.finish(retry)
    kitchen.work()
    federation.work_off()
    for pi in federation.pis:
        pi.work()
    federation.work_off()
    assert porch.take()["tailoring"] == {"train.micro_batch": 4}, "in later rounds, too"


def test_it_is_halved_again_and_again(federation: Federation) -> None:
    (kitchen,) = federation.devices("pi-kitchen")
    job = federation.started(participation={"max_attempts": 5})
    for micro_batch in (5, 2):
        assert run_out(kitchen, micro_batch).retryable
        federation.work_off()
        assert overrides(job, "pi-kitchen") == {"train.micro_batch": micro_batch // 2}
    failed = run_out(kitchen, 1)
    assert not failed.retryable
    assert failed.reason == f"out of memory on this device (at step 3); {ADVICE}"
    assert federation.run(job).phase == "failed"


def test_unknown_size_cannot_be_halved(federation: Federation) -> None:
    (kitchen,) = federation.devices("pi-kitchen")
    federation.started()
    failed = run_out(kitchen, 0)
    assert not failed.retryable and failed.reason.endswith(ADVICE)


def test_evaluation_has_no_micro_batch(federation: Federation) -> None:
    (kitchen,) = federation.devices("pi-kitchen")
    federation.launch()
    failed = run_out(kitchen, 8)
    assert failed.task == "evaluate" and not failed.retryable


def test_deterministic_job_fails_with_the_advice(federation: Federation) -> None:
    (kitchen,) = federation.devices("pi-kitchen")
    job = federation.started(deterministic=True)
    failed = run_out(kitchen, 8)
    assert not failed.retryable
    assert failed.reason == (
        "out of memory on this device (at step 3); it trained 8 examples at a time, on which the "
        "bits of this deterministic job depend: start it again with train.micro_batch 4, "
        f"or {ADVICE}"
    )
    assert overrides(job, "pi-kitchen") == {}
    federation.work_off()
    job.refresh_from_db()
    assert job.phase == "failed" and "train.micro_batch 4" in job.reason


@pytest.mark.parametrize("wrong", [-1, 1.5, "8", 2**31])
def test_impossible_sizes_are_refused(federation: Federation, wrong: Any) -> None:
    (kitchen,) = federation.devices("pi-kitchen")
    federation.launch()
    work = kitchen.take()
    body = {"reason": "x", "out_of_memory": True, "micro_batch": wrong}
    assert kitchen.act(work["assignment"], "fail", body).status_code == 400
