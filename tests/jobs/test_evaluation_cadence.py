"""Which rounds are evaluated, and that the others cost devices nothing."""

from __future__ import annotations

from fedcore.rounds.types import Task
from tests.federation import Federation
from webapp.jobs.analysis import snapshot
from webapp.jobs.models import Assignment, Job


def evaluated(job: Job) -> list[int]:
    """Numbers of the rounds that have assignments to evaluate."""
    rows = Assignment.objects.filter(round__job=job, task=Task.EVALUATE.value)
    return sorted(set(rows.values_list("round__number", flat=True)))


def test_evaluation_every_second_round_and_last(federation: Federation) -> None:
    federation.devices("pi-kitchen", "pi-porch")
    job = federation.run(federation.launch(rounds=3, evaluation={"every": 2}))
    assert (job.phase, evaluated(job)) == ("completed", [0, 2, 3])
    assert [row.phase for row in job.rounds.all()] == ["closed"] * 4
    measured = [bool(row.evaluation) for row in job.rounds.all()]
    assert measured == [True, False, True, True]
    assert "round 1 closed\n" in federation.log(job)


def test_evaluation_only_at_end_changes_no_bits(federation: Federation) -> None:
    federation.devices("pi-kitchen", "pi-porch")
    never = {"every": 0, "initial": False}
    seldom = federation.run(federation.launch(rounds=2, evaluation=never))
    assert evaluated(seldom) == [2]
    always = federation.run(federation.launch(rounds=2))
    assert evaluated(always) == [0, 1, 2]
    assert seldom.global_artefact_id == always.global_artefact_id


def test_evaluation_without_baseline_round(federation: Federation) -> None:
    federation.devices("pi-kitchen")
    job = federation.run(federation.launch(rounds=2, evaluation={"initial": False}))
    result = snapshot.snapshot(job)
    assert [row["evaluation"].get("rougeL") for row in result["rounds"]] == [None, 25.0, 25.0]
    assert (result["tiles"]["rougeL"], result["tiles"]["rougeL_base"]) == (25.0, None)
    assert result["progress"] == 1.0
