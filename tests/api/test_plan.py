"""POST /api/v1/plan/: enrolled and described devices, and all faults together."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIClient

from fedcore.architecture.sizes import KNOWN
from fedcore.plan.fleet_file import KEYS, fleet_from
from fedcore.plan.planner import plan_fleet
from fedcore.plan.report import fleet_values
from fedcore.spec.parse import parse_spec

ADDRESS = "/api/v1/plan/"
SMALL = "google/flan-t5-small"
ROW: dict[str, Any] = {"name": "pi", "machine": "raspberry-pi-5", "link": "lte", "examples": 90}


def ask(client: APIClient, body: Any) -> Any:
    return client.post(ADDRESS, body, format="json")


def test_enrolled_devices_are_planned(viewer_api: APIClient, fleet: Any) -> None:
    answer = ask(viewer_api, {"spec": {"model": {"name": SMALL}, "rounds": 2}})
    assert answer.status_code == 200
    result = answer.json()
    assert {row["name"] for row in result["devices"]} <= {"pi-kitchen", "pi-porch"}
    assert result["devices"]
    assert result["rounds"] == 2


def test_described_devices_match_the_command(viewer_api: APIClient) -> None:
    spec = {"model": {"name": SMALL}, "train": {"local_steps": 5}}
    answer = ask(viewer_api, {"spec": spec, "devices": [ROW, {**ROW, "name": "b", "link": "5g"}]})
    assert answer.status_code == 200
    read = parse_spec(spec)
    rows = [ROW, {**ROW, "name": "b", "link": "5g"}]
    expected = fleet_values(plan_fleet(read, KNOWN[SMALL], fleet_from(rows, read)))
    assert answer.json() == expected
    assert expected["devices"][0]["waiting_j"] is not None


def test_plan_uses_named_devices(viewer_api: APIClient, fleet: Any) -> None:
    spec = {"participation": {"devices": ["pi-porch"]}, "data": {"min_examples": 2}}
    result = ask(viewer_api, {"spec": spec}).json()
    assert {row["name"] for row in result["devices"]} <= {"pi-porch"}


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ([], {""}),
        ({"speck": {}, "spec": {"rounds": 0, "train": {"batch": 3}}},
         {"speck", "spec.rounds", "spec.train.batch"}),
        ({"spec": {"model": {"name": "someone/some-t5"}}}, {"spec.model.name"}),
        ({"devices": []}, {"devices"}),
        ({"devices": {"a": 1}}, {"devices"}),
        ({"devices": [{**ROW, "link": {"up_bps": 0, "down_bps": -4}, "examples": 10**400}]},
         {"device 1: examples", "device 1: link: up_bps", "device 1: link: down_bps"}),
        ({"devices": [{**ROW, "machine": {"peak_flops": {"fp32": -1}, "memory_bytes": 10**400}}]},
         {"device 1: machine", "device 1: machine.memory_bandwidth_bps"}),
    ],
)  # fmt: skip
def test_all_plan_faults_are_reported(viewer_api: APIClient, body: Any, paths: set[str]) -> None:
    answer = ask(viewer_api, body)
    assert answer.status_code == 400
    assert {fault["path"] for fault in answer.json()["faults"]} == paths


def test_extreme_figures_are_refused_or_planned(viewer_api: APIClient) -> None:
    for up, status in ((1e-320, 400), (1e-3, 200), (1e299, 200)):
        answer = ask(viewer_api, {"devices": [{**ROW, "link": {"up_bps": up, "down_bps": 1.0}}]})
        assert answer.status_code == status, up


def test_document_names_the_keys_of_a_device(viewer_api: APIClient) -> None:
    schema = viewer_api.get("/api/schema/?format=json").json()
    body = schema["paths"][ADDRESS]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]["devices"]["items"]["properties"]) == set(KEYS)


def test_many_examples_cost_no_time_to_plan(viewer_api: APIClient) -> None:
    data = {"max_validation_examples": 100_000}
    rows = [{**ROW, "name": f"d{i}", "examples": 10**9, "mfu": 1e-300} for i in range(200)]
    answer = ask(viewer_api, {"spec": {"data": data}, "devices": rows})
    assert answer.status_code == 200


def test_job_for_fedpipe_is_planned_device_by_device(viewer_api: APIClient) -> None:
    targets = ["q", "k", "v", "o", "wi_0", "wi_1", "wo"]
    spec = {
        "model": {"name": SMALL},
        "adapter": {"rank": 8, "targets": targets, "aggregation": "flexlora"},
        "method": {"name": "fedpipe", "memory_budget_mb": 850},
    }
    answer = ask(viewer_api, {"spec": spec, "devices": [ROW]})
    assert answer.status_code == 200
    planned = answer.json()["devices"][0]["planned"]
    assert planned["matrices"] == 144 and 0 < len(planned["ranks"]) <= 144
    assert planned["memory_bytes"] <= 850e6 and 0 < planned["score"] < 1
    assert "of 850 MB; it adapts" in planned["why"]
    spec["method"]["memory_budget_mb"] = 100  # type: ignore[index]
    refused = ask(viewer_api, {"spec": spec, "devices": [ROW]}).json()["devices"][0]
    assert refused["planned"] is None and "needs at least" in refused["why"]
