"""The device page: roofline, verdict, power and job totals, for any profile."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests.web import measured
from webapp.devices.models import Device
from webapp.jobs.models import Assignment, Job
from webapp.jobs.planning.candidates import last_trainings
from webapp.pages.devices.job_totals import latest_jobs
from webapp.pages.devices.profile_facts import peak_facts, power_fact, probe_gaps
from webapp.pages.devices.roofline_chart import arithmetic_intensity, roofline_chart

SLOWER = {"peak_flops": {"fp32": 150e9, "bf16": 80e9}}


def newest_training(device: Device) -> Assignment:
    return last_trainings([device])[device.pk]


@pytest.fixture
def measured_fleet_job(fleet: list[Device]) -> Job:
    for device in fleet:
        measured.probe(device)
    return measured.measured_job(fleet, rounds=3)


def test_roofline_has_kernels_and_training(measured_fleet_job: Job) -> None:
    jetson = Device.objects.get(name="jetson-lab")
    chart = roofline_chart(jetson.profile, newest_training(jetson))
    assert chart["ridge"] == pytest.approx(chart["peak_flops"] / chart["bandwidth_bps"])
    assert len(chart["points"]) == len(measured.KERNELS)
    assert chart["training"]["flops_per_s"] == pytest.approx(0.36 * 8.4e12, rel=1e-3)
    assert "36.0 % of its peak" in chart["verdict"]["text"]
    assert "3 of 5" in chart["verdict"]["advice"]


def test_network_bound_training_is_recognised(measured_fleet_job: Job) -> None:
    device = Device.objects.get(name="jetson-lab")
    part = newest_training(device)
    part.metrics |= {"upload_s": 500.0}
    assert roofline_chart(device.profile, part)["verdict"]["bound"] == "network"


def test_slower_precision_is_not_called_unsupported() -> None:
    facts = {fact.label: fact.value for fact in peak_facts(SLOWER)}
    assert facts["Peak bf16"] == "80.0 GFLOP/s, slower than fp32 (150 GFLOP/s)"
    facts_without_bf16 = peak_facts({"peak_flops": {"fp32": 150e9, "bf16": 0}})
    assert "no fast path" in facts_without_bf16[-1].value


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ({"power_sensor": "ina3221"}, "INA3221"),
        ({"power_sensor": "", "kind": "Raspberry Pi 5 Model B"}, "estimated from the data sheet"),
        ({"power_sensor": "", "kind": "home-made"}, "no energy figures"),
        ({"power_sensor": 7}, "no energy figures"),
        ({}, "not reported"),
    ],
)
def test_power_fact_explains_the_sensor(profile: dict[str, Any], words: str) -> None:
    assert words in power_fact(profile).value


@pytest.mark.parametrize(
    "absurd",
    [
        {},
        {"peak_flops": None, "kernels": "many", "disk_read_bps": "fast"},
        {"peak_flops": {"fp32": -4, "bf16": "x"}, "memory_bandwidth_bps": -1},
        {"peak_flops": {"fp32": 1e300}, "memory_bandwidth_bps": 0, "kernels": [3, {"name": "a"}]},
        {"peak_flops": [1], "power_sensor": {"a": 1}, "kind": 4, "board": 9, "cores": "many"},
    ],
)
def test_device_page_accepts_any_profile(
    ada: Client, measured_fleet_job: Job, absurd: dict[str, Any]
) -> None:
    device = Device.objects.get(name="nuc-office")
    device.profile = absurd
    device.save()
    text = ada.get(reverse("device", args=[device.pk])).content.decode()
    chart = text.split('id="device-roofline" type="application/json">')[1].split("</script>")[0]
    assert json.loads(chart)["ridge"] is None
    assert "not known" in text


def test_latest_jobs_have_totals(measured_fleet_job: Job, ada: Client) -> None:
    jetson = Device.objects.get(name="jetson-lab")
    (totals,) = latest_jobs(jetson)
    assert len(totals.works) == 3
    assert totals.tokens_per_s == pytest.approx(5200, rel=1e-3)
    assert totals.eta_e == pytest.approx(5200 / 21, rel=1e-3)
    assert totals.mfu == pytest.approx(0.36)
    text = ada.get(reverse("device", args=[jetson.pk])).content.decode()
    assert "5.20 k" in text


def test_device_page_queries_do_not_grow_with_jobs(
    measured_fleet_job: Job, ada: Client, django_assert_max_num_queries: Any
) -> None:
    device = Device.objects.get(name="jetson-lab")
    for number in range(4):
        measured.measured_job(list(Device.objects.all()), rounds=2, name=f"job {number}")
    with django_assert_max_num_queries(14):
        ada.get(reverse("device", args=[device.pk]))


def test_planner_places_training_on_the_roofline(measured_fleet_job: Job, ada: Client) -> None:
    device = Device.objects.get(name="jetson-lab")
    part = newest_training(device)
    intensity = arithmetic_intensity(device, part)
    assert intensity is not None
    assert 0.1 < intensity < 1e4
    chart = roofline_chart(device.profile, part, 100.0)
    assert chart["training"]["flops_per_byte"] == 100.0
    below = roofline_chart(device.profile, part, chart["ridge"] / 2)["verdict"]
    above = roofline_chart(device.profile, part, chart["ridge"] * 2)["verdict"]
    assert (below["bound"], above["bound"]) == ("bandwidth", "compute")
    idle = part.metrics | {"flops": 4e11 * part.metrics["seconds"]}
    idle_chart = roofline_chart(device.profile, Assignment(metrics=idle, round=part.round), 100.0)
    assert idle_chart["verdict"]["bound"] == "unknown"
    assert "4.76 % of what the roof allows" in idle_chart["verdict"]["text"]
    # Above the roof at that place: the bytes that were counted cannot have moved.
    assert roofline_chart(device.profile, part, 1.0)["training"]["flops_per_byte"] is None
    part.metrics |= {"flops": 1e11 * part.metrics["seconds"]}
    part.save()
    text = ada.get(reverse("device", args=[device.pk])).content.decode()
    assert "estimated by the planner" in text
    part.round.job.spec = {"model": {"name": "no/such-model"}}
    assert arithmetic_intensity(device, part) is None


def test_probe_gaps_are_shown(measured_fleet_job: Job, ada: Client) -> None:
    device = Device.objects.get(name="jetson-lab")
    device.profile |= {"not_measured": ["disk: no space left", 7]}
    device.save()
    text = ada.get(reverse("device", args=[device.pk])).content.decode()
    assert "disk: no space left" in text
    assert probe_gaps({"not_measured": "all"}) == []


def test_verdict_without_phases(measured_fleet_job: Job) -> None:
    device = Device.objects.get(name="jetson-lab")
    part = newest_training(device)
    del part.metrics["phase_s"]
    assert "computes most of the time" in roofline_chart(device.profile, part)["verdict"]["text"]
