"""Errors: problem details for all, and never a 500."""

from __future__ import annotations

from typing import Any

import pytest

from webapp.jobs.models import Job

pytestmark = pytest.mark.postgresql

NOBODYS = "52e8e6cb-12f6-4b2c-8c27-5af6f043ddd1"


def check_problem(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status and body["type"] == "about:blank"
    assert body["title"] and body["detail"]
    return body


def test_all_spec_faults_are_reported(operator_api: Any) -> None:
    spec = {
        "name": "",
        "rounds": 0,
        "train": {"learning_rate": "fast", "batch_sise": 4},
        "adapter": {"targets": ["q", "x"]},
    }
    body = check_problem(operator_api.post("/api/v1/jobs/", spec, format="json"), 400)
    assert {fault["path"] for fault in body["faults"]} == {
        "name",
        "rounds",
        "train.learning_rate",
        "train.batch_sise",
        "adapter.targets",
    }
    assert "batch_size" in body["detail"]
    assert not Job.objects.exists()


def test_device_that_does_not_exist_is_a_fault(operator_api: Any) -> None:
    spec = {"participation": {"devices": ["nobody"]}}
    body = check_problem(operator_api.post("/api/v1/jobs/", spec, format="json"), 400)
    assert body["faults"][0]["path"] == "participation.devices"


def test_rank_of_a_device_that_does_not_exist_is_a_fault(operator_api: Any) -> None:
    spec = {"adapter": {"aggregation": "flexlora", "ranks": ["nobody=4"]}}
    body = check_problem(operator_api.post("/api/v1/jobs/", spec, format="json"), 400)
    assert body["faults"][0]["path"] == "adapter.ranks"
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"17",
        b'{"rounds": NaN}',
        b'{"rounds": 1e999}',
        b'{"rounds": ' + b"9" * 5000 + b"}",
        b'{"name": "a\\u0000b"}',
        b'{"name": "a\\ud800b"}',
        b'{"participation": {"devices": ["\\udfff"]}}',
        b'{"\\u0000": 1}',
        b'{"name": "\xff"}',
        b"[" * 100_000,
    ],
)
def test_json_that_no_database_stores_is_400(operator_api: Any, raw: bytes) -> None:
    answer = operator_api.generic("POST", "/api/v1/jobs/", raw, content_type="application/json")
    if raw == b"":
        assert answer.status_code == 201  # no body is the default specification
        return
    check_problem(answer, 400)
    assert not Job.objects.exists()


def test_another_content_type_is_415(operator_api: Any) -> None:
    answer = operator_api.post("/api/v1/jobs/", "x", content_type="text/plain")
    check_problem(answer, 415)


@pytest.mark.parametrize(
    "path",
    [
        "nothing/",
        "devices/99999999999999999999999/",
        "devices/-1/",
        "devices/x/",
        "devices/1%00/",
        f"jobs/{NOBODYS}/",
        f"jobs/{NOBODYS}/live/",
        f"jobs/{NOBODYS}/events/",
        f"jobs/{NOBODYS}/download/adapter/",
        "jobs/7/",
        "artefacts/abc/",
        "artefacts/%00/",
        "artefacts/%F0%9F%98%80/bytes/",
        f"tokens/{NOBODYS}/",
        f"assignments/{NOBODYS}/",
        "enrolments/12345/",
    ],
)
def test_odd_ids_are_404(viewer_api: Any, path: str) -> None:
    check_problem(viewer_api.get(f"/api/v1/{path}"), 404)


def test_wrong_method_is_405(admin_api: Any) -> None:
    check_problem(admin_api.delete("/api/v1/jobs/"), 405)


def test_unknown_and_read_only_fields_are_400(operator_api: Any, fleet: Any) -> None:
    path = f"/api/v1/devices/{fleet['devices'][0].pk}/"
    body = check_problem(operator_api.patch(path, {"nmae": "x", "id": 7}, format="json"), 400)
    assert {fault["path"] for fault in body["faults"]} == {"nmae", "id"}


def test_duplicate_name_is_400(operator_api: Any, fleet: Any) -> None:
    path = f"/api/v1/devices/{fleet['devices'][0].pk}/"
    answer = operator_api.patch(path, {"name": "pi-porch"}, format="json")
    assert check_problem(answer, 400)["faults"][0]["path"] == "name"


def test_too_many_calls_are_429(viewer_api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from rest_framework.throttling import ScopedRateThrottle

    monkeypatch.setitem(ScopedRateThrottle.THROTTLE_RATES, "people", "2/min")
    answers = [viewer_api.get("/api/v1/me/") for _ in range(3)]
    check_problem(answers[-1], 429)
    assert int(answers[-1]["Retry-After"]) > 0


def test_refused_move_names_required_phase(operator_api: Any, fleet: Any) -> None:
    answer = operator_api.post(f"/api/v1/jobs/{fleet['job'].pk}/retry/")
    assert "needs a job that is failed" in check_problem(answer, 409)["detail"]


def test_strict_json_accepts_valid_text(operator_api: Any) -> None:
    spec = {"name": "Ünïcode 😀 ok"}
    answer = operator_api.post("/api/v1/jobs/?launch=false", spec, format="json")
    assert answer.status_code == 201 and answer.json()["name"] == "Ünïcode 😀 ok"
