"""Enrolment and revocation of devices."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from tests.conftest import Enrolled
from webapp.devices import device_messages
from webapp.devices.device_messages import DeviceMessage
from webapp.devices.models import Credential, Device, Enrolment
from webapp.jobs.lifecycle import enrolment
from webapp.line.opening import open_line

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgresql]

UNENROL = "/api/v1/device/unenrol/"
ANY = "3d307612-6f86-4f5a-b76f-2b517e81b1cd"
VERBS = ("accept", "progress", "report", "fail", "refuse")
# Calls of agents from before the line.
OUTDATED = ["hello/", "measurements/", *(f"assignments/{ANY}/{verb}/" for verb in VERBS)]
DATA = {"name": "law", "domain": "law", "examples": 40, "size_bytes": 900, "columns": ["text"]}


@pytest.fixture
def token() -> str:
    return enrolment.create_enrolment(None, "", "both", timedelta(hours=1))[1]


def enrol(one_time: str, name: str = "pi-kitchen", **changes: Any) -> Any:
    body = {"token": one_time, "name": name, "agent_version": "0.1.0", "profile": {"cores": 4}}
    body |= {"datasets": [DATA], **changes}
    return APIClient().post("/api/v1/enrol/", body, format="json")


def refused(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    return str(answer.json()["detail"])


def test_device_is_enrolled(token: str) -> None:
    answer = enrol(token)
    assert answer.status_code == 201, answer.content
    values = answer.json()
    device = Device.objects.get()
    assert values["device"] == {"id": device.pk, "name": "pi-kitchen", "role": "both"}
    assert len(base64.b64decode(values["signing_public_key"])) == 32
    assert device.profile == {"cores": 4}
    assert device.datasets.get().examples == 40
    assert set(values) == {"device", "api_token", "signing_public_key"}
    # The token opens the device's line and calls, and is not stored as it is.
    line = open_line(values["api_token"])
    assert line is not None and line.device_id == device.pk
    assert Credential.objects.get().token_hash != values["api_token"]
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Device {values['api_token']}")
    assert client.post(UNENROL).status_code == 204


def test_unknown_token() -> None:
    assert "unknown; copy the whole command" in refused(enrol("ew-nonsense"), 403)


def test_used_token(token: str) -> None:
    assert enrol(token).status_code == 201
    assert "was used; create a new one" in refused(enrol(token, "pi-porch"), 403)
    assert Device.objects.count() == 1


def test_expired_token(token: str) -> None:
    Enrolment.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert "expired at" in refused(enrol(token), 403)
    assert not Device.objects.exists()


def test_token_is_used_once_under_concurrency(token: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from django.db import connection

    def attempt(number: int) -> int:
        try:
            return enrol(token, f"pi-{number}").status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        statuses = sorted(pool.map(attempt, range(4)))
    assert statuses == [201, 403, 403, 403]
    assert Device.objects.count() == 1


def test_concurrent_enrolments_of_one_name() -> None:
    from concurrent.futures import ThreadPoolExecutor

    from django.db import connection

    tokens = [enrolment.create_enrolment(None, "", "both", timedelta(hours=1))[1] for _ in range(3)]

    def attempt(token: str) -> int:
        try:
            return enrol(token).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as pool:
        statuses = sorted(pool.map(attempt, tokens))
    assert statuses == [201, 409, 409]


def test_name_in_use_leaves_token_unused(token: str, enrolled_device: Any) -> None:
    enrolled_device("pi-kitchen")
    assert "'pi-kitchen' is in use" in refused(enrol(token), 409)
    assert enrol(token, "pi-porch").status_code == 201


def test_missing_name_leaves_token_unused(token: str) -> None:
    assert "give the device a name with --name" in refused(enrol(token, ""), 400)
    assert enrol(token).status_code == 201


def test_enrolment_name_takes_precedence() -> None:
    _, token = enrolment.create_enrolment(None, "pi-attic", "trainer", timedelta(hours=1))
    assert enrol(token, "another").json()["device"] == {
        "id": Device.objects.get().pk,
        "name": "pi-attic",
        "role": "trainer",
    }


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"token": ""}, "token"),
    ({"name": "x" * 101}, "name"),
    ({"name": "a\x00b"}, "name"),
    ({"datasets": [{**DATA, "domain": "a\x00"}]}, "datasets.0.domain"),
    ({"profile": []}, "profile"),
    ({"profile": {"cpu": "x" * 30_000}}, "profile"),
    ({"profile": {"cpu": "a\x00"}}, "profile"),
    ({"datasets": {}}, "datasets"),
    ({"datasets": [DATA, DATA]}, "datasets"),
    ({"datasets": [{**DATA, "examples": -1}]}, "datasets.0.examples"),
    ({"datasets": [{**DATA, "examples": "many"}]}, "datasets.0.examples"),
    ({"datasets": [{**DATA, "examples": 10**400}]}, "datasets.0.examples"),
    ({"datasets": [{**DATA, "name": ""}]}, "datasets.0.name"),
    ({"datasets": [{**DATA, "columns": ["x" * 201]}]}, "datasets.0.columns"),
]


def test_fault_leaves_token_unused(token: str, subtests: Any) -> None:
    for changes, path in FAULTS:
        with subtests.test(str(changes)[:70]):
            answer = enrol(token, **changes)
            refused(answer, 400)
            paths = [fault["path"] for fault in answer.json()["faults"]]
            assert any(result.startswith(path) for result in paths), paths
    assert enrol(token).status_code == 201


@pytest.mark.parametrize("field", ['"name": "\\ud800"', '"profile": {"cpu": "\\udfff"}'])
def test_lone_surrogate_is_refused(token: str, field: str) -> None:
    body = f'{{"token": "{token}", {field}}}'
    answer = APIClient().post("/api/v1/enrol/", body, content_type="application/json")
    assert "surrogate" in refused(answer, 400).lower()


def test_all_faults_at_once(token: str) -> None:
    answer = enrol(token, name="x" * 101, profile=3, datasets=[{**DATA, "examples": -1}])
    assert {fault["path"] for fault in answer.json()["faults"]} == {
        "name",
        "profile",
        "datasets.0.examples",
    }


HEADERS = ["", "Device", "Device nonsense", "Token nonsense", "Device a b", "Device \xff"]


@pytest.mark.parametrize("header", HEADERS)
def test_call_without_the_right_token(header: str) -> None:
    client = APIClient()
    if header:
        client.credentials(HTTP_AUTHORIZATION=header)
    call = "/api/v1/device"
    for answer in (
        client.post(UNENROL),
        client.get(f"{call}/assignments/{ANY}/"),
        client.get(f"{call}/artefacts/{'0' * 64}/"),
    ):
        assert answer.status_code == 401
        assert answer["WWW-Authenticate"] == "Device"


@pytest.mark.parametrize("path", OUTDATED)
def test_older_agent_is_asked_to_update(
    enrolled_device: Callable[..., Enrolled], path: str
) -> None:
    """Whether its credential is good does not matter: neither would be answered."""
    for client in (enrolled_device().client, APIClient()):
        answer = client.post(f"/api/v1/device/{path}", {"boot_id": "b"}, format="json")
        assert "update it" in refused(answer, 426)


def test_revoked_device_loses_access(enrolled_device: Callable[..., Enrolled]) -> None:
    pi, other = enrolled_device("pi-kitchen"), enrolled_device("pi-porch")
    enrolment.revoke(pi.device, None)
    enrolment.revoke(pi.device, None)
    answer = pi.client.post(UNENROL)
    assert "revoked; enrol it again" in refused(answer, 401)
    assert open_line(pi.api_token) is None
    assert open_line(other.api_token) is not None


def test_revocation_ends_the_line(
    enrolled_device: Callable[..., Enrolled], monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[DeviceMessage] = []
    monkeypatch.setattr(device_messages, "publisher", published.extend)
    pi = enrolled_device("pi-kitchen")
    enrolment.revoke(pi.device, None)
    assert published == [DeviceMessage(device_messages.REVOKED, pi.device.pk)]


def test_revocation_with_broker_down_counts(
    enrolled_device: Callable[..., Enrolled], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody hears of it, and yet neither a line nor a call is open to the device."""
    monkeypatch.setattr(device_messages, "publisher", device_messages.publish)
    pi = enrolled_device("pi-kitchen")
    enrolment.revoke(pi.device, None)
    assert open_line(pi.api_token) is None
    assert pi.client.post(UNENROL).status_code == 401


def test_revoked_device_can_enrol_again(
    token: str, enrolled_device: Callable[..., Enrolled]
) -> None:
    pi = enrolled_device("pi-kitchen")
    enrolment.revoke(pi.device, None)
    values = enrol(token).json()
    assert values["device"]["id"] == pi.device.pk
    assert pi.client.post(UNENROL).status_code == 401
    assert open_line(pi.api_token) is None
    assert open_line(values["api_token"]) is not None
