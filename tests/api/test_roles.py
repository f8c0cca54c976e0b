"""Every resource by every role."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from fedcore.spec.job import JobSpec

READS = [
    "devices/",
    "devices/{device}/",
    "devices/{device}/samples/",
    "enrolments/",
    "enrolments/{enrolment}/",
    "jobs/",
    "jobs/{job}/",
    "jobs/{job}/live/",
    "jobs/{job}/alone/",
    "jobs/{job}/events/",
    "jobs/{job}/download/adapter/",
    "rounds/",
    "rounds/{round}/",
    "assignments/",
    "assignments/{assignment}/",
    "artefacts/",
    "artefacts/{artefact}/",
    "artefacts/{artefact}/bytes/",
    "events/",
    "events/{event}/",
    "measurements/?metric=loss&job={job}",
    "tokens/",
    "me/",
]
ADMIN_READS = ["users/", "users/{user}/", "artefacts/{update}/bytes/", "tokens/{token}/"]
# method, address, body, the answer of an operator, the answer of an admin
WRITES = [
    ("post", "jobs/", {"rounds": 1}, 201, 201),
    ("post", "jobs/{job}/pause/", None, 200, 200),
    ("post", "jobs/{job}/cancel/", None, 200, 200),
    ("post", "jobs/{job}/launch/", None, 409, 409),
    ("post", "jobs/{job}/resume/", None, 409, 409),
    ("post", "jobs/{job}/retry/", None, 409, 409),
    ("post", "jobs/{job}/alone/", None, 409, 409),
    ("post", "enrolments/", {"name": "new"}, 201, 201),
    ("delete", "enrolments/{enrolment}/", None, 204, 204),
    ("patch", "devices/{device}/", {"name": "renamed"}, 200, 200),
    ("post", "devices/{device}/revoke/", None, 403, 200),
    ("post", "users/", {"username": "eve", "password": "long-enough-9"}, 403, 201),
    ("patch", "users/{user}/", {"role": "operator"}, 403, 200),
    ("delete", "tokens/{token}/", None, 404, 204),
]
PERSONAL_WRITES = [
    ("post", "tokens/", {"label": "mine"}, 201),
    ("patch", "me/", {"first_name": "Ada"}, 200),
    ("post", "jobs/estimate/", JobSpec().to_dict(), 200),
    ("post", "plan/", {"spec": JobSpec().to_dict()}, 200),
]


@pytest.fixture
def address(fleet: dict[str, Any]) -> Callable[[str], str]:
    ids = {
        "device": fleet["devices"][0].pk,
        "user": fleet["users"]["viewer"].pk,
        "artefact": fleet["artefact"].sha256,
        "update": fleet["update"].sha256,
        "token": fleet["token"].public_id,
        **{name: fleet[name].pk for name in ("job", "round", "assignment", "event", "enrolment")},
    }
    return lambda path: f"/api/v1/{path.format(**ids)}"


def call(client: APIClient, method: str, path: str, body: Any) -> int:
    return int(getattr(client, method)(path, body, format="json").status_code)


@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize(
    ("who", "status"), [("nobody", 401), ("device", 401), ("viewer", 200), ("admin", 200)]
)
def test_reading(client_of: Any, address: Any, path: str, who: str, status: int) -> None:
    assert client_of(who).get(address(path)).status_code == status


@pytest.mark.parametrize("path", ADMIN_READS)
def test_only_admins_read_others_data(client_of: Any, address: Any, path: str) -> None:
    refused = 404 if path.startswith("tokens") else 403
    assert client_of("device").get(address(path)).status_code == 401
    assert client_of("viewer").get(address(path)).status_code == refused
    assert client_of("operator").get(address(path)).status_code == refused
    assert client_of("admin").get(address(path)).status_code == 200


@pytest.mark.parametrize(("method", "path", "body", "by_operator", "by_admin"), WRITES)
@pytest.mark.parametrize("who", ["nobody", "device", "viewer", "operator", "admin"])
def test_changing(
    client_of: Any,
    address: Any,
    who: str,
    method: str,
    path: str,
    body: Any,
    by_operator: int,
    by_admin: int,
) -> None:
    sent_away = 404 if path.startswith("tokens/{") else 403
    expected = {"nobody": 401, "device": 401, "viewer": sent_away}
    expected |= {"operator": by_operator, "admin": by_admin}
    assert call(client_of(who), method, address(path), body) == expected[who]


@pytest.mark.parametrize(("method", "path", "body", "status"), PERSONAL_WRITES)
def test_everybody_reads_me(
    client_of: Any, address: Any, method: str, path: str, body: Any, status: int
) -> None:
    assert call(client_of("viewer"), method, address(path), body) == status
    assert call(client_of("device"), method, address(path), body) == 401


def test_persons_token_does_not_open_the_device_api(client_of: Any, fleet: Any) -> None:
    assert client_of("admin").post("/api/v1/device/unenrol/").status_code == 401


def test_schema_and_its_page_need_a_login(client_of: Any, client: Any, people: Any) -> None:
    assert client_of("nobody").get("/api/schema/").status_code == 401
    assert client_of("viewer").get("/api/schema/").status_code == 200
    assert client.get("/api/docs/").status_code == 302


def test_session_needs_the_csrf_token(people: Any) -> None:
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(people["operator"], backend="django.contrib.auth.backends.ModelBackend")
    assert client.get("/api/v1/jobs/").status_code == 200
    assert client.post("/api/v1/jobs/", {}, format="json").status_code == 403


@pytest.mark.parametrize(
    "header", ["Token", "Token a b", "Token \xff", "Token x\0", "Token " + "z" * 64]
)
def test_invalid_tokens_are_401(db: None, header: str) -> None:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=header)
    answer = client.get("/api/v1/jobs/")
    assert answer.status_code == 401
    assert answer["Content-Type"] == "application/problem+json"


def test_inactive_user_is_401(client_of: Any, people: Any) -> None:
    client = client_of("operator")
    people["operator"].is_active = False
    people["operator"].save()
    assert client.get("/api/v1/jobs/").status_code == 401


@pytest.mark.parametrize("path", [*READS, *ADMIN_READS, "jobs/estimate/"])
def test_head_and_options_are_answered(client_of: Any, address: Any, path: str) -> None:
    client = client_of("admin")
    assert client.options(address(path)).status_code == 200
    assert client.head(address(path)).status_code == (405 if "estimate" in path else 200)
