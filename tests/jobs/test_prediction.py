"""The planner's prediction of a finished job beside the measured values."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.template.loader import render_to_string
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.web import factories
from webapp.devices.models import Device
from webapp.jobs.models import Assignment, Job
from webapp.jobs.planning.prediction import PredictionError, prediction

MEASURED = {"seconds": 12.0, "steps": 24, "peak_memory_bytes": 9e8, "energy_j": 77.0}


@pytest.fixture
def fleet(db: None) -> list[Device]:
    return factories.make_fleet(3)


@pytest.fixture
def done(fleet: list[Device]) -> Job:
    return finished(fleet)


def finished(fleet: list[Device], **options: Any) -> Job:
    job = factories.make_job(fleet, "completed", **options)
    for number in (1, 2):
        factories.add_round(job, number, timezone.now() - timedelta(seconds=100 * (3 - number)))
    for part in trainings(job):
        part.metrics = {**part.metrics, **MEASURED}
        part.save()
    return job


def trainings(job: Job) -> list[Assignment]:
    return list(Assignment.objects.filter(round__job=job, task="train"))


def figures(job: Job, place: int = 0) -> dict[str, PredictionError]:
    result = prediction(job)
    assert result is not None
    return {figure.name: figure for figure in result.devices[place].figures}


def test_prediction_has_every_figure(done: Job, fleet: list[Device]) -> None:
    result = prediction(done)
    assert result is not None
    assert [device.name for device in result.devices] == [device.name for device in fleet]
    assert result.names == ("Step", "Round", "Bytes", "Peak memory", "Energy")
    assert {device.rounds for device in result.devices} == {2}


def test_measured_values_are_medians(done: Job) -> None:
    row = figures(done)
    assert row["Step"].measured == 0.5
    assert row["Round"].measured == pytest.approx(12.0 + 1.4 + 2.6)
    assert row["Bytes"].measured == 2 * 1_376_256
    assert row["Peak memory"].measured == 9e8
    assert row["Step"].error == pytest.approx((row["Step"].predicted or 0) / 0.5 - 1)


def test_prediction_uses_earlier_jobs_only(fleet: list[Device]) -> None:
    fresh = figures(finished(fleet))["Step"].predicted
    second = finished(fleet)
    Job.objects.filter(pk=second.pk).update(started_at=timezone.now())
    second.refresh_from_db()
    again = figures(second)["Step"].predicted
    assert fresh is not None and again is not None
    assert again != fresh


def test_prediction_is_none_without_basis(fleet: list[Device]) -> None:
    assert prediction(factories.make_job(fleet, "running")) is None
    assert prediction(factories.make_job(fleet, "failed")) is None
    assert prediction(finished(fleet, model={"name": "someone/some-t5"})) is None


@pytest.mark.parametrize("wrong", [-3.0, "fast", None, True, 0])
def test_implausible_figure_is_not_measured(done: Job, wrong: object) -> None:
    for part in trainings(done):
        part.metrics = {**part.metrics, **dict.fromkeys(MEASURED, wrong)}
        part.save()
    row = figures(done)
    assert row["Step"].measured is row["Peak memory"].measured is None
    assert row["Step"].error is None


def test_partial_shows_units_and_errors(done: Job) -> None:
    text = render_to_string("jobs/_prediction.html", {"prediction": prediction(done)})
    assert "Predicted and measured" in text
    assert "900 MB" in text
    assert "0.5 s" in text
    assert render_to_string("jobs/_prediction.html", {"prediction": None}).strip() == ""


def test_prediction_queries_are_constant(db: None) -> None:
    def count(job: Job) -> int:
        with CaptureQueriesContext(connection) as requests:
            assert prediction(job) is not None
        return len(requests)

    few = finished(factories.make_fleet(2))
    many = finished(factories.make_fleet(6, first=2))
    assert count(few) == count(many)
