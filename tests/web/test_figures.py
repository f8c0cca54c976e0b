"""Figures of trainings: plausible values are shown, others are unknown."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web import factories, measured
from webapp.devices.models import Device
from webapp.jobs.analysis.device_metrics import training_figures
from webapp.jobs.analysis.snapshot import snapshot
from webapp.jobs.models import Assignment, Job
from webapp.pages.live.readers import JobReader
from webapp.telemetry import series
from webapp.telemetry.models import Sample

WHOLE = {
    "seconds": 20.0,
    "download_s": 1.5,
    "upload_s": 2.5,
    "tokens": 4000,
    "flops": 6e12,
    "phase_s": {"load": 1.0, "forward": 6.0, "backward": 12.0},
    "energy_j": 500.0,
    "compute_j": 400.0,
}


def assignment_with(**change: Any) -> Assignment:
    return Assignment(metrics=WHOLE | change, bytes_up=700, bytes_down=0)


@pytest.fixture
def metered_job(fleet: list[Device]) -> Job:
    return measured.measured_job(fleet, rounds=2)


def test_training_figures_compute_ratios() -> None:
    work = training_figures(assignment_with())
    assert work.granularity == pytest.approx(20 / 4)
    assert work.eta_e == pytest.approx(4000 / 400)
    assert work.tokens_per_s == pytest.approx(200)
    assert work.flops_per_s == pytest.approx(3e11)
    assert (work.up_bytes, work.down_bytes, work.at_socket) == (700, None, False)


def test_socket_bytes_win_over_counted_bytes() -> None:
    work = training_figures(assignment_with(net_up_bytes=900, net_down_bytes=40))
    assert (work.up_bytes, work.down_bytes, work.at_socket) == (900, 40, True)


def test_measured_energy_wins_over_estimate() -> None:
    assert training_figures(assignment_with(energy_estimated_j=9.0)).is_estimated is False
    alone = training_figures(
        assignment_with(energy_j=None, energy_estimated_j=800.0, compute_j=None)
    )
    assert alone.is_estimated
    assert alone.eta_e == pytest.approx(5)


@pytest.mark.parametrize("absurd", [-1, float("nan"), float("inf"), 1e31, "12", None, True, [1]])
@pytest.mark.parametrize("name", ["seconds", "download_s", "tokens", "energy_j", "mfu"])
def test_implausible_figures_are_unknown(name: str, absurd: object) -> None:
    work = training_figures(assignment_with(**{name: absurd}))
    attribute = {"seconds": "compute_s", "energy_j": "measured_j"}.get(name, name)
    assert getattr(work, attribute) is None


@pytest.mark.parametrize("odd", [None, 3, [], {}, {"load": -1}, {"forward": 1e9}, {"load": "x"}])
def test_implausible_phases_are_dropped(odd: object) -> None:
    assert training_figures(assignment_with(phase_s=odd)).phase_s is None
    assert training_figures(assignment_with(seconds=0.0)).granularity == 0
    assert training_figures(assignment_with(download_s=0.0, upload_s=0.0)).granularity is None


def test_snapshot_has_energy_traffic_and_granularity(metered_job: Job) -> None:
    result = snapshot(metered_job)
    tiles = result["tiles"]
    assert (tiles["joules_of"], tiles["joules_estimated"], tiles["trainings"]) == (3, 1, 5)
    parts = [part for row in result["rounds"] for part in row["train"] if part["eta_e"]]
    spent = sum(part["tokens"] / part["eta_e"] for part in parts)
    assert tiles["eta_e"] == pytest.approx(sum(part["tokens"] for part in parts) / spent)
    jetson_parts = [row["train"][1] for row in result["rounds"] if row["number"]]
    traffic = result["devices"][1]["traffic"]
    assert traffic["up"] == sum(part["bytes_up"] for part in jetson_parts)
    assert traffic["granularity"] == jetson_parts[-1]["granularity"]


def test_live_phases_are_summed_from_samples(metered_job: Job) -> None:
    reader = JobReader(metered_job.pk)
    first = reader.read()
    assert first is not None
    running = metered_job.rounds.get(number=2).assignments.get(slot=2)
    sums = first["phase_s"][running.device_id]
    assert sums["assignment"] == str(running.pk)
    rows = Sample.objects.filter(assignment=running)
    whole = sum(row.values["forward_s"] for row in rows)
    assert sums["phase_s"]["forward"] == pytest.approx(whole)
    factories.add_samples(running, 2, running.offered_at)
    newest = Sample.objects.filter(assignment=running).order_by("-seq")[:2]
    for row in newest:
        row.values |= {"forward_s": 0.5}
        row.save()
    second = reader.read()
    assert second is not None
    assert second["phase_s"][running.device_id]["phase_s"]["forward"] == pytest.approx(1.0)


def test_samples_have_efficiency_if_power_is_known(metered_job: Job) -> None:
    result = series.history(series.job_samples(metered_job), [1, 2, 3])
    kinds = {sample["device"]: set(sample["values"]) for sample in result.samples}
    pi, jetson, nuc = (person.device_id for person in metered_job.participants.all())
    assert not kinds[pi] & {"eta_e", "eta_e_estimated"}
    assert "eta_e" in kinds[jetson]
    assert "eta_e_estimated" in kinds[nuc]
    row = next(sample["values"] for sample in result.samples if sample["device"] == jetson)
    assert row["eta_e"] == pytest.approx(row["tokens_per_s"] / row["watts"], rel=1e-3)


def test_implausible_samples_are_gaps(metered_job: Job) -> None:
    sample = Sample.objects.filter(assignment__round__job=metered_job).earliest("seq")
    sample.values |= {"mfu": 17.0, "tokens_per_s": -4.0, "watts": 0}
    sample.save()
    result = series.history(series.job_samples(metered_job), [sample.device_id]).samples
    values = next(s["values"] for s in result if s["seq"] == sample.seq)
    assert not {"mfu", "tokens_per_s", "eta_e"} & set(values)
