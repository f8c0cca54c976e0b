"""The estimate beside the new-job form."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils.html import escape

from fedcore.spec.job import JobSpec
from tests.web import factories
from tests.web.job_forms import form_data
from webapp.devices.models import Device
from webapp.jobs.analysis import device_history
from webapp.jobs.models import Job
from webapp.jobs.planning.candidates import last_trainings
from webapp.jobs.planning.job_estimate import estimate


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_estimate_requires_the_operator_role(as_role: Callable[[str], Client], role: str) -> None:
    answer = as_role(role).post(reverse("job-estimate"), form_data())
    assert answer.status_code == (403 if role == "viewer" else 200)


def test_estimate_follows_the_form(ada: Client, fleet: list[Device]) -> None:
    address = reverse("job-estimate")
    assert "Fits 3 of 3 devices" in ada.post(address, form_data()).content.decode()
    few = ada.post(address, form_data(**{"data.min_examples": "300"})).content.decode()
    assert "Fits 2 of 3 devices" in few
    assert "law has 180 of 300 examples" in few
    assert "1 setting to fix" in ada.post(address, form_data(rounds="x")).content.decode()


def test_estimate_reports_launch_errors(ada: Client, fleet: list[Device]) -> None:
    """All together: unknown devices in the list and in the tree."""
    wrong = {"participation.devices": ["ghost"], "tree.parents": ["a=b"]}
    text = ada.post(reverse("job-estimate"), form_data(**wrong)).content.decode()
    assert "3 settings to fix" in text and 'href="#o-tree-parents"' in text
    assert "no device is called ghost" in text and "is called &#x27;b&#x27;" in text
    refused = ada.post(reverse("job-new"), form_data(**wrong)).content.decode()
    assert "Fix 3 settings before launching" in refused
    sent = {"participation": {"devices": ["ghost"]}}
    answer = ada.post(reverse("api-job-estimate"), sent, content_type="application/json")
    assert answer.status_code == 400
    assert answer.json()["faults"][0]["path"] == "participation.devices"


def estimate_of(spec: JobSpec) -> Any:
    devices = list(device_history.devices_with_data())
    return estimate(spec, devices, last_trainings(devices))


def test_estimate_of_known_model(fleet: list[Device]) -> None:
    small = estimate_of(factories.make_spec(model={"name": "google/flan-t5-small"}))
    # methods.md section 0: LoRA r = 8 on q, v of FLAN-T5-small is 1.38 MB one way in fp32.
    assert small.payload == pytest.approx(1.38e6, rel=0.01)
    assert small.device_bytes == 2 * small.payload
    coded = {"uplink": "int4", "downlink": "int8"}
    fewer = estimate_of(factories.make_spec(model={"name": "google/flan-t5-small"}, wire=coded))
    assert fewer.device_bytes == pytest.approx((0.53125 + 1.015625) * small.payload / 4, rel=0.001)
    assert small.total_bytes == small.device_bytes * 3 * 10
    assert small.total_s is not None
    assert small.total_s > 0


def test_estimate_excludes_devices_without_memory(fleet: list[Device]) -> None:
    huge = estimate_of(
        factories.make_spec(
            model={"name": "google/flan-t5-xl"}, adapter={"kind": "full"}, train={"batch_size": 8}
        )
    )
    assert not huge.fitting
    assert all("needs about" in part.why for part in huge.excluded)


def test_estimate_of_unknown_model_says_so(fleet: list[Device]) -> None:
    unknown = estimate_of(factories.make_spec(model={"name": "someone/some-t5"}))
    assert (unknown.payload, unknown.total_s) == (None, None)
    assert "unknown" in unknown.assumed[0]


def test_estimate_excludes_aggregators_and_empty_devices(db: None) -> None:
    factories.make_device("folds", role="aggregator")
    empty = factories.make_device("bare", 1)
    empty.datasets.all().delete()
    result = estimate_of(factories.make_spec())
    assert {part.name: part.why for part in result.excluded} == {
        "folds": "only aggregates, in jobs with an aggregation tree",
        "bare": "has no data",
    }


def test_estimate_lists_clusters(ada: Client, fleet: list[Device]) -> None:
    names = [device.name for device in fleet]
    factories.make_device("hub", 8, role="aggregator")
    factories.make_device("spare", 9, role="aggregator")
    tree = f"{names[0]}=hub, {names[1]}=hub"
    result = estimate_of(factories.make_spec(tree={"parents": tree.split(", ")}))
    assert {c.head: set(c.children) for c in result.clusters} == {"hub": {*names[:2]}}
    assert [part.name for part in result.excluded] == ["spare"]
    assert len(result.parts) == len(names) + 1
    text = ada.post(reverse("job-estimate"), form_data(**{"tree.parents": tree})).content.decode()
    assert "<b>hub</b> merges " in text
    shared = estimate_of(factories.make_spec(tree={"parents": ["auto"]}))
    assert {name for cluster in shared.clusters for name in cluster.children} == {*names}
    assert not shared.excluded
    assert "only aggregates" in ada.get(reverse("job-new")).content.decode()


def test_budget_too_small_is_reported_at_its_option(ada: Client, fleet: list[Device]) -> None:
    sent = {
        "method.name": "fedpipe",
        "adapter.aggregation": "flexlora",
        "model.name": "google/flan-t5-base",
        "method.memory_budget_mb": "100",
    }
    text = ada.post(reverse("job-estimate"), form_data(**sent)).content.decode()
    assert 'href="#o-method-memory-budget-mb">Memory budget, MB</a>: no device can' in text
    least = re.search(r"needs at least (\S+ \SB) of memory and may use 100 MB", text)
    assert least, text
    assert "no power figures for" not in text, "no device lacks them"
    enough = ada.post(
        reverse("job-estimate"), form_data(**{**sent, "method.memory_budget_mb": "0"})
    ).content.decode()
    assert "no device can be planned" not in enough


def test_asynchronous_estimate_ignores_the_slowest_device(fleet: list[Device]) -> None:
    model = {"name": "google/flan-t5-small"}
    whole = estimate_of(factories.make_spec(model=model))
    result = estimate_of(
        factories.make_spec(model=model, participation={"mode": "buffered", "buffer_size": 2})
    )
    assert result.per_round == 2
    assert 0 < result.round_s < whole.round_s


def test_estimate_shows_the_planner_figures(ada: Client, fleet: list[Device]) -> None:
    sent = form_data(**{"model.name": "google/flan-t5-base"})
    text = ada.post(reverse("job-estimate"), sent).content.decode()
    for words in ("Slowest device", "steps of", "Compute : network", "Expected MFU", " memory",
                  "Biggest saving", "no power figures for nuc-office"):  # fmt: skip
        assert words in text, words


def test_estimate_shows_fedpipe_plans_and_their_energy(ada: Client, fleet: list[Device]) -> None:
    options = {"model.name": "google/flan-t5-base", "method.name": "fedpipe"}
    sent = form_data(**{**options, "adapter.aggregation": "flexlora"})
    text = ada.post(reverse("job-estimate"), sent).content.decode()
    result = estimate_of(
        factories.make_spec(
            model={"name": "google/flan-t5-base"},
            method={"name": "fedpipe"},
            adapter={"aggregation": "flexlora"},
        )
    )
    seen: set[bool] = set()
    for part in result.fitting:
        row = re.search(rf"<li>{part.name}: .*?</li>", text)
        assert row and part.plan.allocation
        assert escape(part.plan.allocation.why) in row[0]
        if part.plan.energy.total_j is not None:
            assert ("J computing" in row[0]) is not part.plan.energy.complete
            seen.add(part.plan.energy.complete)
    assert True in seen, "no device of the fleet has complete power figures"


def test_estimate_uses_the_newest_training(fleet: list[Device]) -> None:
    spec = factories.make_spec(model={"name": "google/flan-t5-small"})
    fresh = estimate_of(spec)
    factories.running_job(fleet, rounds=2, samples=2)
    known = estimate_of(spec)
    before = {part.name: part for part in fresh.parts}
    for part in known.parts:
        assert part.plan.step.mfu in [pytest.approx(share) for share in (0.31, 0.36, 0.41)]
        assert part.plan.step_s != before[part.name].plan.step_s
        assert part.plan.seconds["upload_s"] != before[part.name].plan.seconds["upload_s"]


def test_estimate_of_pfit_ignores_other_mfu(fleet: list[Device]) -> None:
    rewarded = {"method": {"name": "pfit"}, "adapter": {"kind": "layers"}}
    spec = factories.make_spec(model={"name": "google/flan-t5-small"}, **rewarded)
    fresh = [part.plan.step_s for part in estimate_of(spec).parts]
    factories.running_job(fleet, rounds=2, samples=2)
    assert [part.plan.step_s for part in estimate_of(spec).parts] == fresh
    Job.objects.update(spec=spec.to_dict())
    assert [part.plan.step_s for part in estimate_of(spec).parts] != fresh


def test_implausible_profile_is_reported_and_ignored(fleet: list[Device]) -> None:
    device = fleet[0]
    device.profile = {**device.profile, "memory_bytes": -8e9, "peak_flops": {"fp32": "fast"}}
    device.save()
    result = estimate_of(factories.make_spec(model={"name": "google/flan-t5-small"}))
    assert any(f"{device.name}: memory_bytes cannot be" in note for note in result.assumed)
    assert result.total_s is not None


def test_estimate_advises_large_fleets(db: None) -> None:
    factories.make_fleet(40)
    result = estimate_of(factories.make_spec(model={"name": "google/flan-t5-base"}))
    assert result.best is not None
    assert len(result.parts) == 40
    assert result.best.round_s < result.round_s
