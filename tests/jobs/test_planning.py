"""Selection of participants, and what a waiting job reports."""

from __future__ import annotations

from typing import Any

import pytest

from tests.federation import DEADLINE_S, Federation
from webapp.devices.models import Device
from webapp.jobs.lifecycle import enrolment as devices
from webapp.jobs.models import Job, Participant


def waiting(job: Job) -> str:
    job.refresh_from_db()
    assert job.phase == "queued"
    return job.reason


def names(job: Job) -> list[str]:
    rows = Participant.objects.filter(job=job).select_related("device")
    return [row.device.name for row in rows]


def test_job_without_devices_waits(federation: Federation) -> None:
    job = federation.launch()
    assert waiting(job) == ("waiting for 1 device with at least 8 examples; 0 enrolled")
    federation.reconcile()
    assert federation.log(job).count("waiting for 1 device ") == 1, "logged once"
    federation.device("pi-kitchen")
    federation.reconcile()
    assert federation.run(job).phase == "completed"


@pytest.mark.parametrize("examples", [0, 7])
def test_device_without_enough_data_is_skipped(federation: Federation, examples: int) -> None:
    federation.device("pi-kitchen", examples=examples)
    federation.device("pi-porch")
    job = federation.launch()
    federation.run(job)
    assert names(job) == ["pi-porch"]


def test_job_without_enough_data_waits(federation: Federation) -> None:
    federation.device("pi-kitchen", examples=7)
    job = federation.launch()
    assert "with at least 8 examples; 0 enrolled" in waiting(job)
    federation.later(DEADLINE_S + 1)
    federation.reconcile()
    job.refresh_from_db()
    assert job.phase == "failed"
    assert "0 enrolled; gave up after 7200 s" in job.reason


def test_unknown_dataset_waits(federation: Federation) -> None:
    federation.devices("pi-kitchen")
    job = federation.launch(data={"dataset": "biology"})
    assert "8 examples of 'biology'; 0 enrolled" in waiting(job)


def test_only_devices_with_dataset_participate(federation: Federation) -> None:
    kitchen, _ = federation.devices("pi-kitchen", "pi-porch")
    kitchen.hello(datasets=[{"name": "home", "examples": 50}, {"name": "law", "examples": 50}])
    job = federation.run(federation.launch(data={"dataset": "home"}))
    assert [(row.device.name, row.dataset) for row in job.participants.all()] == [
        ("pi-kitchen", "home")
    ]


def test_first_large_enough_dataset_is_chosen(federation: Federation) -> None:
    (kitchen,) = federation.devices("pi-kitchen")
    kitchen.hello(
        datasets=[
            {"name": "tiny", "examples": 2},
            {"name": "home", "examples": 50},
            {"name": "law", "examples": 90},
        ]
    )
    job = federation.launch()
    row = job.participants.get()
    # "law" was there since the enrolment, "home" came with the last hello.
    assert (row.dataset, row.examples) == ("law", 90)


def test_revoked_and_aggregator_devices_are_skipped(federation: Federation) -> None:
    for name in ("pi-a", "pi-b", "pi-c", "pi-d"):
        federation.device(name)
    Device.objects.filter(name="pi-a").update(role="aggregator")
    Device.objects.filter(name="pi-b").update(role="both")
    devices.revoke(Device.objects.get(name="pi-c"), None)
    job = federation.launch()
    assert names(job) == ["pi-b", "pi-d"]


def test_only_named_devices_participate(federation: Federation) -> None:
    federation.devices("pi-a", "pi-b", "pi-c")
    job = federation.launch(participation={"devices": ["pi-c", "pi-a"]})
    assert names(job) == ["pi-a", "pi-c"]


def test_job_waits_for_enough_online_devices(federation: Federation) -> None:
    _kitchen, porch = federation.devices("pi-kitchen", "pi-porch")
    federation.lose(porch)
    job = federation.launch(participation={"minimum": 2})
    assert waiting(job) == "waiting for 2 of 2 devices to be online; offline: pi-porch"
    assert names(job) == [], "who takes part is fixed once enough are there"
    porch.presence()
    federation.reconcile()
    assert names(job) == ["pi-kitchen", "pi-porch"]


def test_job_waits_when_all_devices_leave(federation: Federation) -> None:
    (kitchen,) = federation.devices("pi-kitchen")
    job = federation.started(rounds=2)
    kitchen.work()
    federation.work_off()
    kitchen.work()
    federation.lose(kitchen)
    federation.work_off()
    job.refresh_from_db()
    assert federation.round(job).number == 1
    assert job.phase == "running"
    assert job.reason == "waiting for 1 of 1 devices to be online; offline: pi-kitchen"
    federation.later(DEADLINE_S + 1)
    federation.reconcile()
    job.refresh_from_db()
    assert job.phase == "failed"
    assert "gave up after 7200 s" in job.reason


def test_late_device_waits_for_next_job(federation: Federation) -> None:
    federation.devices("pi-kitchen")
    job = federation.started(rounds=2)
    federation.device("pi-late")
    federation.run(job)
    assert names(job) == ["pi-kitchen"]


def test_offline_device_skips_a_round(federation: Federation) -> None:
    kitchen, porch = federation.devices("pi-kitchen", "pi-porch")
    job = federation.launch(rounds=2)
    federation.lose(porch)
    kitchen.work()
    porch.done.update(porch.offers())
    federation.later(DEADLINE_S + 1)
    federation.reconcile()
    first = federation.round(job)
    assert (first.number, first.members, first.evaluators) == (1, [0], [0])


def test_sampling_is_reproducible(federation: Federation) -> None:
    federation.devices("pi-a", "pi-b", "pi-c", "pi-d", "pi-e")
    memberss: list[Any] = []
    for _ in range(2):
        job = federation.launch(rounds=3, seed=4, participation={"fraction": 0.4})
        federation.run(job)
        memberss.append([row.members for row in job.rounds.filter(number__gt=0)])
        assert all(len(members) == 2 for members in memberss[-1])
    assert memberss[0] == memberss[1]
    assert len({tuple(members) for members in memberss[0]}) > 1


@pytest.mark.postgresql
def test_planning_queries_are_constant(
    federation: Federation, django_assert_max_num_queries: Any
) -> None:
    """The reconcile pass looks at every running job every two seconds."""
    from workers.coordinator.advance import advance

    for number in range(12):
        federation.device(f"pi-{number:02}")
    job = federation.launch()
    for pi in federation.pis:
        pi.work()
    federation.outbox.site.clear()
    # Closes one round and offers the next to twelve; now and then the watch writes its row, too.
    with django_assert_max_num_queries(62):
        advance(job.pk)
    assert len(federation.parts(job)) == 12
    with django_assert_max_num_queries(20):
        advance(job.pk)


def timed(federation: Federation, seconds: dict[str, float]) -> None:
    """These devices report that training took so long."""
    for pi in federation.pis:
        pi.seconds = seconds[pi.name]


@pytest.mark.postgresql
def test_deadline_follows_last_durations(federation: Federation) -> None:
    federation.devices("pi-a", "pi-b", "pi-c")
    timed(federation, {"pi-a": 10.0, "pi-b": 20.0, "pi-c": 300.0})
    part = {"deadline_quantile": 0.6, "deadline_slack": 2.0}
    job = federation.run(federation.launch(rounds=2, participation=part))
    first, second = (job.rounds.get(number=number).policy for number in (1, 2))
    assert first["deadline_s"] == DEADLINE_S, "nobody has reported yet"
    assert second["deadline_s"] == 40.0
    assert second["evaluation_s"] == DEADLINE_S
    assert job.rounds.get(number=2).fold["slots"] == [0, 1, 2]


def test_too_slow_device_is_excluded(federation: Federation) -> None:
    federation.devices("pi-a", "pi-b", "pi-c")
    timed(federation, {"pi-a": 10.0, "pi-b": 20.0, "pi-c": 300.0})
    part = {"deadline_quantile": 0.6, "deadline_slack": 2.0}
    job = federation.started(rounds=2, participation=part)
    for _ in range(2):  # train and evaluate
        for pi in federation.pis:
            pi.work()
        federation.work_off()
    assert federation.round(job).number == 2
    slow = federation.pis[2].take()["assignment"]
    for pi in federation.pis[:2]:
        pi.work()
    federation.later(41)
    federation.reconcile()
    assert federation.round(job).phase == "evaluating"
    assert federation.pis[2].cancels() == {slow: "the round closed without it"}


def test_rounds_draw_from_one_tier(federation: Federation) -> None:
    federation.devices("pi-a", "pi-b", "pi-c", "pi-d")
    timed(federation, {"pi-a": 1.0, "pi-b": 50.0, "pi-c": 2.0, "pi-d": 40.0})
    job = federation.launch(rounds=8, seed=1, participation={"fraction": 0.5, "tiers": 2})
    federation.run(job)
    members = [tuple(row.members) for row in job.rounds.filter(number__gte=1)]
    assert set(members[0]) | set(members[1]) == {0, 1, 2, 3}, "everybody is timed first"
    assert set(members[2:]) == {(0, 2), (1, 3)}
