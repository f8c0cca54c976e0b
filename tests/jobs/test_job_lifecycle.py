"""The life of a job: pause, resume, cancel, retry, deadlines."""

from __future__ import annotations

from typing import Any

import pytest

from tests.federation import DEADLINE_S, LEASE_S, Federation, phase_of
from webapp.jobs.lifecycle import services
from webapp.jobs.models import Assignment, Job

pytestmark = pytest.mark.postgresql

PAUSE_AND_ON = ("pause", "resume")


def move(federation: Federation, job: Job, *names: str) -> None:
    for name in names:
        services.move(job.pk, name, None)
        federation.work_off()
    job.refresh_from_db()


def test_resume_restarts_the_round(federation: Federation) -> None:
    kitchen, porch = federation.devices("pi-kitchen", "pi-porch")
    job = federation.started(rounds=2)
    porch.work()
    assignment = kitchen.take()["assignment"]
    before = federation.round(job)
    move(federation, job, "pause")
    assert job.phase == "paused"
    before.refresh_from_db()
    assert (before.phase, before.reason) == ("failed", "the job was paused")
    assert before.ended_at is not None
    assert phase_of(assignment) == "expired"
    federation.reconcile()
    assert federation.round(job) == before, "nothing happens to a paused job"
    move(federation, job, "resume")
    again = federation.round(job)
    assert (job.phase, job.resumed) == ("running", False)
    assert (again.number, again.attempt) == (1, 2)
    assert again.members == before.members
    assert again.base_artefact_id == before.base_artefact_id
    assert federation.run(job).phase == "completed"


def test_pause_changes_no_bits(federation: Federation) -> None:
    federation.devices("pi-kitchen", "pi-porch")
    smooth = federation.run(federation.launch(rounds=2))
    bumpy = federation.started(rounds=2)
    federation.pis[0].work()
    move(federation, bumpy, *PAUSE_AND_ON)
    federation.run(bumpy)
    assert bumpy.global_artefact_id == smooth.global_artefact_id


def test_aggregated_round_survives_pause(federation: Federation) -> None:
    federation.devices("pi-kitchen", "pi-porch")
    job = federation.started(rounds=2)
    for pi in federation.pis:
        pi.work()
    federation.work_off()
    assert federation.round(job).phase == "evaluating"
    federation.pis[0].work()
    move(federation, job, "pause")
    closed = federation.round(job)
    assert (closed.phase, closed.number) == ("closed", 1)
    assert closed.evaluation["devices"] == 1
    move(federation, job, "resume")
    assert federation.round(job).number == 2
    assert federation.run(job).phase == "completed"


def test_resume_before_pause_is_noticed(federation: Federation) -> None:
    """Both messages come late: the round just goes on, and the job says that it runs."""
    federation.devices("pi-kitchen", "pi-porch")
    job = federation.started()
    services.move(job.pk, "pause", None)
    services.move(job.pk, "resume", None)
    federation.work_off()
    job.refresh_from_db()
    assert (job.phase, job.resumed) == ("running", False)
    assert federation.round(job).attempt == 1
    assert federation.run(job).phase == "completed"


def test_pause_before_first_round(federation: Federation) -> None:
    federation.devices("pi-kitchen")
    job = services.create_job(federation.spec(), None)
    move(federation, job, "pause")
    assert not job.rounds.exists()
    move(federation, job, "resume")
    assert federation.run(job).phase == "completed"


def test_cancel_stops_devices_and_is_final(federation: Federation) -> None:
    kitchen, porch = federation.devices("pi-kitchen", "pi-porch")
    job = federation.started()
    assignment, offered = kitchen.take()["assignment"], porch.offers()[-1]
    move(federation, job, "cancel")
    assert (job.phase, job.reason) == ("cancelled", "cancelled by the system")
    assert job.ended_at is not None
    assert kitchen.cancels() == {assignment: "the job was cancelled"}
    assert porch.cancels() == {offered: "the job was cancelled"}
    assert federation.round(job).phase == "failed"
    for name in ("pause", "resume", "retry", "launch", "cancel"):
        with pytest.raises(services.MoveRefused, match=f"a cancelled job cannot {name}"):
            services.move(job.pk, name, None)
    federation.reconcile()
    assert kitchen.work() == porch.work() == []


def test_draft_waits_for_launch(federation: Federation, operator: Any) -> None:
    federation.devices("pi-kitchen")
    job = services.create_job(federation.spec(), operator, launch=False)
    federation.work_off()
    federation.reconcile()
    job.refresh_from_db()
    assert (job.phase, job.queued_at) == ("draft", None)
    services.move(job.pk, "launch", operator)
    assert federation.run(job).phase == "completed"
    log = federation.log(job)
    assert "saved by operator" in log
    assert "launched by operator" in log


def test_quorum_suffices_at_deadline(federation: Federation) -> None:
    kitchen, porch, attic = federation.devices("pi-kitchen", "pi-porch", "pi-attic")
    job = federation.started()
    slow = attic.take()["assignment"]
    kitchen.work()
    porch.work()
    federation.work_off()
    assert federation.round(job).phase == "collecting"
    federation.later(DEADLINE_S + 1)
    federation.reconcile()
    assert federation.round(job).phase == "evaluating"
    assert federation.round(job).fold["slots"] == [1, 2]
    assert phase_of(slow) == "expired"
    attic.presence(slow)
    assert "lease" in attic.cancels()[slow]


def test_missed_quorum_fails_the_job(federation: Federation) -> None:
    kitchen, porch = federation.devices("pi-kitchen", "pi-porch")
    job = federation.started(participation={"quorum": 1.0})
    kitchen.work()
    federation.work_off()
    federation.later(DEADLINE_S + 1)
    federation.reconcile()
    job.refresh_from_db()
    assert job.phase == "failed"
    assert job.reason == "1 of 2 needed devices reported by the deadline"
    assert job.ended_at is not None
    assert list(porch.cancels().values()) == ["the round failed"]
    # A person tries again once the other device is back.
    move(federation, job, "retry")
    assert (federation.round(job).number, federation.round(job).attempt) == (1, 2)
    assert federation.run(job).phase == "completed"
    assert job.reason == ""


def test_extra_devices_are_not_waited_for(federation: Federation) -> None:
    pis = federation.devices("pi-a", "pi-b", "pi-c", "pi-d")
    job = federation.started(participation={"fraction": 0.5, "over_selection": 0.5})
    newest = federation.round(job)
    assert (len(newest.members), newest.policy["target"]) == (3, 2)
    requests = [pi for pi in pis if pi.offers()]
    slow = requests[0].take()["assignment"]
    for pi in requests[1:]:
        pi.work()
    federation.work_off()
    assert federation.round(job).phase == "evaluating"
    assert requests[0].cancels() == {slow: "the round closed without it"}
    late = requests[0].upload(slow, b"late")
    assert (late.status_code, "is over (expired)" in late.json()["detail"]) == (409, True)
    answer = requests[0].report(slow, b"late")
    assert (answer.status_code, "is over (expired)" in answer.json()["detail"]) == (409, True)
    federation.outbox.devices.clear()
    requests[0].presence(slow)
    assert list(requests[0].cancels()) == [slow], "measurements repeat the cancellation"


def test_returning_device_gets_new_attempt(federation: Federation) -> None:
    kitchen, porch = federation.devices("pi-kitchen", "pi-porch")
    job = federation.started()
    assignment = kitchen.take()["assignment"]
    porch.work()
    federation.work_off()
    federation.lose(kitchen)
    federation.later(LEASE_S + 1)
    federation.reconcile()
    assert phase_of(assignment) == "expired"
    assert ("pi-kitchen", 2) not in federation.parts(job), "nothing is offered to who is away"
    assert federation.round(job).phase == "collecting"
    kitchen.presence()  # without its work: it went on to something else
    federation.reconcile()
    assert federation.parts(job)["pi-kitchen", 2] == "offered"
    assert federation.run(job).phase == "completed"
    assert job.rounds.get(number=1).fold["slots"] == [0, 1]


def test_lost_device_is_given_up(federation: Federation) -> None:
    kitchen, porch = federation.devices("pi-kitchen", "pi-porch")
    job = federation.started()
    kitchen.take()
    porch.work()
    federation.lose(kitchen)
    federation.later(DEADLINE_S + 1)
    federation.work_off()
    federation.reconcile()
    porch.work()
    federation.work_off()
    federation.later(DEADLINE_S + 1)
    federation.reconcile()
    job.refresh_from_db()
    assert job.phase == "completed"
    last = job.rounds.get(number=1)
    assert last.fold["slots"] == [1]
    assert last.reason == "1 evaluation is missing"


def test_failing_device_is_given_up(federation: Federation) -> None:
    (kitchen,) = federation.devices("pi-kitchen")
    job = federation.started(participation={"max_attempts": 3})
    for _ in range(3):
        assignment = kitchen.take()["assignment"]
        kitchen.act(assignment, "fail", {"reason": "disk full there", "retryable": True})
        federation.work_off()
    job.refresh_from_db()
    assert job.phase == "failed"
    assert job.reason == (
        "0 of 1 needed devices reported and no other device can: pi-kitchen: disk full there"
    )
    assert Assignment.objects.filter(round__job=job, task="train").count() == 3


def test_round_without_evaluations_closes(federation: Federation) -> None:
    """A column the dataset lacks: the device says which, and the job ends with these words."""
    (kitchen,) = federation.devices("pi-kitchen")
    job = federation.launch()
    reason = "dataset 'law' has no column 'abstract'; it has: text, summary"
    kitchen.act(kitchen.take()["assignment"], "refuse", {"reason": reason})
    federation.work_off()
    job.refresh_from_db()
    assert job.phase == "failed"
    assert job.reason == f"no device could evaluate the model: pi-kitchen: {reason}"


def test_missing_aggregation_worker_is_reported(federation: Federation) -> None:
    (kitchen,) = federation.devices("pi-kitchen")
    job = federation.started()
    kitchen.work()
    name, args = federation.outbox.site.pop()
    assert name == "edgewise.advance"
    from workers.coordinator.tasks import advance_job

    advance_job(*args)
    federation.outbox.site.clear()
    assert federation.round(job).phase == "aggregating"
    federation.later(1801)
    advance_job(*args)
    job.refresh_from_db()
    assert job.phase == "failed"
    assert job.reason == "no worker aggregated the updates within 1800 s"


def test_missing_initial_model_is_reported(federation: Federation) -> None:
    federation.devices("pi-kitchen")
    job = services.create_job(federation.spec(), None)
    from workers.coordinator.advance import advance

    advance(job.pk)
    job.refresh_from_db()
    assert job.reason == "waiting for an aggregation worker to write the initial model"
    federation.later(6 * 3600 + 1)
    advance(job.pk)
    job.refresh_from_db()
    assert job.phase == "failed"
    assert "no aggregation worker wrote the initial model within 6 h" in job.reason


@pytest.mark.parametrize(
    ("name", "text"),
    [("/nowhere/at/all", "/nowhere/at/all"), ("nobody/no-such-model-here", "--local-dir FOLDER")],
)
def test_unknown_model_fails_job(federation: Federation, name: str, text: str) -> None:
    federation.devices("pi-kitchen")
    job = federation.launch(model={"name": name})
    job.refresh_from_db()
    assert job.phase == "failed"
    assert text in job.reason
    assert f"failed: {job.reason}" in federation.log(job)
    assert not job.rounds.exists()


def test_folder_without_model_fails_job(federation: Federation, tmp_path: Any) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "t5", "d_model": "wide"}')
    (folder / "model.safetensors").write_bytes(b"nothing of the kind")
    federation.devices("pi-kitchen")
    job = federation.launch(model={"name": str(folder)})
    job.refresh_from_db()
    assert job.phase == "failed"
    assert str(folder) in job.reason


def test_unknown_devices_are_refused(federation: Federation) -> None:
    from fedcore.errors import SpecError

    federation.devices("pi-kitchen")
    spec = federation.spec(participation={"devices": ["pi-kitchen", "pi-x", "pi-y"]})
    with pytest.raises(SpecError) as caught:
        services.create_job(spec, None)
    (fault,) = caught.value.faults
    assert fault.path == "participation.devices"
    assert "no device is called pi-x, pi-y" in fault.message
    assert not Job.objects.exists()
