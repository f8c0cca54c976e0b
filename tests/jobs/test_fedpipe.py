"""FedPipe in a launched job: scores from round 0, then one plan per device."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from django.db import transaction
from django.template.loader import render_to_string

from fedcore.architecture.matrices import matrices
from fedcore.architecture.sizes import Architecture, architecture_of
from fedcore.hardware.profile import Hardware
from fedcore.plan.fedpipe.allocate import allocate, allocate_fleet
from fedcore.plan.fedpipe.budget import Budget
from fedcore.simulate.fedpipe_allocation import candidate_of
from fedcore.spec.options.adapter import LORA_TARGETS
from fedcore.spec.options.method import FEDPIPE_SCORES
from fedcore.spec.parse import parse_spec
from tests.device import SCORES as EVALUATED
from tests.device import Pi
from tests.federation import Federation
from webapp.jobs.models import Assignment, Job, Participant
from webapp.jobs.planning import fedpipe_plans
from workers.agent.assignment.assigned_work import AssignedWork

CHANGES: dict[str, Any] = {
    "adapter": {"rank": 8, "targets": list(LORA_TARGETS), "aggregation": "flexlora"},
    "train": {"local_steps": 2, "precision": "fp32"},
}


def sizes_of(job: Job) -> Architecture:
    job.refresh_from_db()
    return Architecture(**job.model_info["architecture"])


def budget_mb(federation: Federation) -> float:
    """Less than all adapters need in the cheapest setting, more than one of them does."""
    job = federation.spec(**CHANGES)
    sizes = architecture_of(job.model.name)
    assert sizes is not None
    device = candidate_of(job, "any", Hardware())
    tight = replace(job, model=replace(job.model, base="nf4"))
    most = allocate(
        replace(tight, train=replace(tight.train, micro_batch=1)), sizes, device, {}, Budget()
    )
    weights = 16 * 8 * sum(row.per_rank for row in matrices(sizes))
    return (most.memory - 0.5 * weights) / 1e6


def launch(federation: Federation, megabytes: float | None = None, **changes: Any) -> Job:
    budget = budget_mb(federation) if megabytes is None else megabytes
    method = {"name": "fedpipe", "memory_budget_mb": budget}
    return federation.launch(**{**CHANGES, "method": method, **changes})


def scores(seed: int, sizes: Architecture) -> dict[str, float]:
    rng = random.Random(seed)
    return {row.key: rng.lognormvariate(0, 1) for row in matrices(sizes)}


def evaluate(pi: Pi, scores: dict[str, Any] | None) -> int:
    """Answer the first evaluation, with these scores; returns the server's status."""
    (assignment,) = pi.offers()
    assert pi.accept(assignment).json()["tailoring"] == {}
    metrics = {**EVALUATED, **({FEDPIPE_SCORES: scores} if scores is not None else {})}
    answer = pi.report(assignment, None, metrics=metrics)
    if answer.status_code == 200:
        pi.done.add(assignment)
    return int(answer.status_code)


def tailorings(job: Job) -> dict[str, dict[str, Any]]:
    rows = Participant.objects.filter(job=job).select_related("device")
    return {row.device.name: row.tailoring for row in rows}


def test_job_and_simulation_plans_are_equal(federation: Federation) -> None:
    pis = federation.devices("pi-a", "pi-b", "pi-c")
    job = launch(federation)
    sizes = sizes_of(job)
    result = {pi.name: scores(i, sizes) for i, pi in enumerate(pis[:2])}
    for pi in pis:
        assert evaluate(pi, result.get(pi.name)) == 200
    federation.work_off()
    assert federation.round(job).number == 1
    spec = job.job_spec
    devices = [candidate_of(spec, pi.name, Hardware()) for pi in pis]
    expected = allocate_fleet(spec, sizes, devices, result)
    assert tailorings(job) == {name: one.overrides(spec) for name, one in expected.items()}
    assert expected["pi-a"].ranks != expected["pi-b"].ranks
    assert all(one.score < 1 for one in expected.values())
    for name, one in expected.items():
        assert f"{name}: planned: {one.why}" in federation.log(job)
    page = render_to_string("jobs/_planned.html", {"planned": fedpipe_plans.plan_texts(job)})
    assert page.count('scope="row"') == 3 and "of training" not in page  # no speed is known
    assert f"{expected['pi-a'].why}; at most " in page


def test_fedpipe_plans_once(federation: Federation) -> None:
    (pi,) = federation.devices("pi-a")
    job = launch(federation)
    evaluate(pi, scores(1, sizes_of(job)))
    federation.work_off()
    before = tailorings(job)
    assert before["pi-a"]["adapter.pattern"]
    Assignment.objects.filter(round__job=job, task="evaluate").update(metrics=EVALUATED)
    with transaction.atomic():
        fedpipe_plans.assign_plans(Job.objects.get(pk=job.pk), 1, list(job.participants.all()))
    assert tailorings(job) == before


def test_overrides_apply_to_training_only(federation: Federation) -> None:
    (pi,) = federation.devices("pi-a")
    job = launch(federation)
    evaluate(pi, scores(1, sizes_of(job)))
    federation.work_off()
    handed = pi.take()
    train = AssignedWork.read(handed)
    assert train.spec.adapter.pattern and train.spec.model.base != "auto"
    measured = AssignedWork.read({**handed, "task": "evaluate"})
    assert measured.spec.adapter == parse_spec(handed["spec"]).adapter
    assert measured.spec.model.base == train.spec.model.base


def test_impossible_budget_fails_job_at_start(federation: Federation) -> None:
    federation.devices("pi-a", "pi-b")
    job = launch(federation, megabytes=1.0)
    job.refresh_from_db()
    assert job.phase == "failed"
    assert job.reason.startswith("pi-a, pi-b: needs at least")
    assert "may use 1 MB" in job.reason
    assert not job.rounds.exists()


@pytest.mark.parametrize(
    ("scores", "status"),
    [
        ({"e0.q": -1.0}, 400),
        ({"e0.q": "much"}, 400),
        ({"e0.q": 1e31}, 400),
        ([1.0], 400),
        ({"x" * 30_000: 1.0}, 400),
        ({"unknown": 5.0}, 200),
        ({"e0.q": 0.0}, 200),
        ({}, 200),
    ],
)
def test_invalid_scores_are_ignored(federation: Federation, scores: Any, status: int) -> None:
    (pi,) = federation.devices("pi-a")
    job = launch(federation)
    assert evaluate(pi, scores) == status
    if status != 200:
        assert evaluate(pi, None) == 200
    federation.work_off()
    assert federation.round(job).number == 1
    device = candidate_of(job.job_spec, "pi-a", Hardware())
    alike = allocate_fleet(job.job_spec, sizes_of(job), [device])
    assert tailorings(job)["pi-a"] == alike["pi-a"].overrides(job.job_spec)


def test_device_memory_bounds_its_plan(federation: Federation) -> None:
    kitchen, porch = federation.devices("pi-a", "pi-b")
    small = (budget_mb(federation) * 1e6) / 0.9
    kitchen.hello(profile={"memory_bytes": small})
    job = launch(federation, megabytes=0.0)
    for pi in (kitchen, porch):
        evaluate(pi, scores(3, sizes_of(job)))
    federation.work_off()
    result = tailorings(job)
    assert result["pi-a"]["adapter.pattern"] and not result["pi-b"]["adapter.pattern"]


def test_other_methods_get_no_plans(federation: Federation) -> None:
    federation.devices("pi-a")
    job = federation.run(federation.launch())
    assert job.phase == "completed" and tailorings(job) == {"pi-a": {}}
