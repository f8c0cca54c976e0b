"""Enrolment and revocation of devices."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.utils import timezone
from rest_framework.test import APIClient

from tests.conftest import Enrolled, RealBroker
from webapp.devices import broker_users
from webapp.devices.models import Credential, Device, Enrolment, hashed
from webapp.jobs.lifecycle import enrolment

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgresql]

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


def test_device_is_enrolled(token: str, device_broker: RealBroker) -> None:
    answer = enrol(token)
    assert answer.status_code == 201, answer.content
    values = answer.json()
    device = Device.objects.get()
    assert values["device"] == {"id": device.pk, "name": "pi-kitchen", "role": "both"}
    assert values["broker"]["key_prefix"] == f"dev.{device.pk}."
    assert values["broker"]["queue"] == "work"
    assert len(base64.b64decode(values["signing_public_key"])) == 32
    assert device.profile == {"cores": 4}
    assert device.datasets.get().examples == 40
    # The token opens the device's calls, and the broker's user the broker.
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Device {values['api_token']}")
    assert client.post("/api/v1/device/hello/", {"boot_id": "b"}, format="json").status_code == 200
    assert redis.Redis.from_url(values["broker"]["url"]).ping()
    # Neither secret is stored as it is.
    credential = Credential.objects.get()
    stored = {credential.token_hash, credential.broker_password_hash}
    assert values["api_token"] not in stored
    assert not any(secret in values["broker"]["url"] for secret in stored)


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


def test_broker_outage_leaves_token_unused(token: str, device_broker: RealBroker) -> None:
    device_broker.stop()
    assert "the devices' broker does not respond; start it and enrol again" in refused(
        enrol(token), 503
    )
    assert not Device.objects.exists()
    device_broker.start()
    assert enrol(token).status_code == 201


HEADERS = ["", "Device", "Device nonsense", "Token nonsense", "Device a b", "Device \xff"]


@pytest.mark.parametrize("header", HEADERS)
def test_call_without_the_right_token(header: str) -> None:
    client = APIClient()
    if header:
        client.credentials(HTTP_AUTHORIZATION=header)
    for path in ("hello/", "measurements/", "unenrol/", f"assignments/{uuid.uuid4()}/accept/"):
        answer = client.post(f"/api/v1/device/{path}", {}, format="json")
        assert answer.status_code == 401, path
        assert answer["WWW-Authenticate"] == "Device"


def test_revoked_device_loses_access(
    enrolled_device: Callable[..., Enrolled], device_broker: RealBroker
) -> None:
    pi, other = enrolled_device("pi-kitchen"), enrolled_device("pi-porch")
    connection = redis.Redis.from_url(pi.broker_url)
    connection.lpush(f"dev.{pi.device.pk}.work", "left behind")
    enrolment.revoke(pi.device, None)
    enrolment.revoke(pi.device, None)
    answer = pi.client.post("/api/v1/device/measurements/", {}, format="json")
    assert answer.status_code == 401
    assert "revoked; enrol it again" in answer.json()["detail"]
    with pytest.raises(redis.RedisError):
        connection.ping()
    assert redis.Redis.from_url(device_broker.url).keys(f"dev.{pi.device.pk}.*") == []
    assert redis.Redis.from_url(other.broker_url).ping()


def test_revoked_device_can_enrol_again(
    token: str, enrolled_device: Callable[..., Enrolled]
) -> None:
    pi = enrolled_device("pi-kitchen")
    enrolment.revoke(pi.device, None)
    values = enrol(token).json()
    assert values["device"]["id"] == pi.device.pk
    assert pi.client.post("/api/v1/device/measurements/", {}, format="json").status_code == 401
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url(pi.broker_url).ping()
    assert redis.Redis.from_url(values["broker"]["url"]).ping()


def test_revocation_with_broker_down_is_completed(
    enrolled_device: Callable[..., Enrolled], device_broker: RealBroker, tmp_path: Any
) -> None:
    """The reconcile pass makes good what the revocation promised."""
    from workers.coordinator.reconcile import sync_broker_users

    pi, other = enrolled_device("pi-kitchen"), enrolled_device("pi-porch")
    device_broker.stop()
    enrolment.revoke(pi.device, None)
    device_broker.start()
    # The server kept its users, as one with an ACL file does.
    broker_users.set_user(pi.device.pk, hashed("p"))
    stale = redis.Redis.from_url(device_broker.url)
    assert stale.acl_getuser(broker_users.user_name(pi.device.pk))
    sync_broker_users()
    users = set(stale.acl_users())
    assert broker_users.user_name(pi.device.pk) not in users
    assert broker_users.user_name(other.device.pk) in users
