"""Calls that change jobs, enrolments, devices, users, tokens; and measurements."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils.dateparse import parse_datetime
from rest_framework.test import APIClient

from tests.api.conftest import add_device, add_job, add_samples
from webapp.accounts.models import PersonToken, User
from webapp.devices.models import Credential, Device, Enrolment, hashed
from webapp.jobs.models import Job

pytestmark = pytest.mark.postgresql


def test_job_is_created_and_launched(operator_api: Any, people: Any) -> None:
    answer = operator_api.post("/api/v1/jobs/", {"name": "first", "rounds": 3}, format="json")
    assert answer.status_code == 201
    job = Job.objects.get()
    assert job.phase == "queued" and job.created_by == people["operator"]
    body = answer.json()
    assert body["id"] == str(job.pk) and body["spec"]["train"]["batch_size"] == 8
    assert body["created_by"] == "operator" and body["last_closed_round"] is None


def test_draft_is_launched_paused_resumed_and_cancelled(operator_api: Any) -> None:
    path = "/api/v1/jobs/?launch=false"
    job = operator_api.post(path, {}, format="json").json()
    assert job["phase"] == "draft"
    for move, phase in [
        ("launch", "queued"),
        ("pause", "paused"),
        ("resume", "queued"),
        ("cancel", "cancelled"),
    ]:
        answer = operator_api.post(f"/api/v1/jobs/{job['id']}/{move}/")
        assert (answer.status_code, answer.json()["phase"]) == (200, phase)
    assert operator_api.post("/api/v1/jobs/?launch=maybe", {}, format="json").status_code == 400


def test_estimate_lists_fitting_devices(viewer_api: Any, fleet: Any) -> None:
    answer = viewer_api.post("/api/v1/jobs/estimate/", {"rounds": 2}, format="json")
    assert answer.status_code == 200
    assert {part["name"] for part in answer.json()["parts"]} == {"pi-kitchen", "pi-porch"}
    bad = viewer_api.post("/api/v1/jobs/estimate/", {"rounds": 0}, format="json")
    assert bad.json()["faults"][0]["path"] == "rounds"


def test_enrolment_shows_its_token_once(operator_api: Any, settings: Any) -> None:
    settings.PUBLIC_URL = "https://edge.example"
    body = {"name": "pi", "role": "both", "valid_for_s": 600}
    created = operator_api.post("/api/v1/enrolments/", body, format="json").json()
    row = Enrolment.objects.get()
    assert row.token_hash == hashed(created["token"]) and row.role == "both"
    assert created["command"].endswith(f"--server https://edge.example --token {created['token']}")
    again = operator_api.get(f"/api/v1/enrolments/{row.pk}/").json()
    assert again["state"] == "waiting" and created["token"] not in str(again)


@pytest.mark.parametrize("valid_for_s", [0, 59, 10**9, 10**30, "soon", True, None])
def test_enrolment_lasts_a_minute_to_a_month(operator_api: Any, valid_for_s: Any) -> None:
    answer = operator_api.post("/api/v1/enrolments/", {"valid_for_s": valid_for_s}, format="json")
    assert answer.status_code == 400
    assert answer.json()["faults"][0]["path"] == "valid_for_s"


def test_revoked_device_is_shut_out(admin_api: Any, client_of: Any, enrolled_device: Any) -> None:
    enrolled = enrolled_device()
    path = f"/api/v1/devices/{enrolled.device.pk}/revoke/"
    assert admin_api.post(path).json()["presence"] == "revoked"
    assert not Credential.objects.exists()
    assert enrolled.client.post("/api/v1/device/unenrol/").status_code == 401
    assert admin_api.post(path).status_code == 200


def test_device_is_renamed(operator_api: Any) -> None:
    device = add_device("pi")
    body = operator_api.patch(
        f"/api/v1/devices/{device.pk}/", {"name": "pi-2", "role": "both"}, format="json"
    ).json()
    assert (body["name"], body["role"], body["datasets"][0]["name"]) == ("pi-2", "both", "law")
    assert Device.objects.get().name == "pi-2"


def test_tokens_are_made_used_and_revoked(viewer_api: Any, people: Any) -> None:
    created = viewer_api.post("/api/v1/tokens/", {"label": "laptop"}, format="json").json()
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {created['token']}")
    assert client.get("/api/v1/me/").json()["username"] == "viewer"
    listed = viewer_api.get(f"/api/v1/tokens/{created['id']}/").json()
    assert listed["label"] == "laptop" and listed["last_used_at"] and "token" not in listed
    assert not PersonToken.objects.filter(digest=created["token"]).exists()
    assert viewer_api.delete(f"/api/v1/tokens/{created['id']}/").status_code == 204
    assert client.get("/api/v1/me/").status_code == 401


def test_tokens_of_others_are_hidden(viewer_api: Any, admin_api: Any) -> None:
    assert viewer_api.get("/api/v1/tokens/").json()["count"] == 1
    assert admin_api.get("/api/v1/tokens/").json()["count"] == 2
    assert admin_api.get("/api/v1/tokens/?user=viewer").json()["count"] == 1
    assert viewer_api.get("/api/v1/tokens/?user=admin").json()["count"] == 0


def test_admin_creates_and_changes_users(admin_api: Any) -> None:
    new = {"username": "eve", "password": "correct-horse-9", "role": "operator"}
    created = admin_api.post("/api/v1/users/", new, format="json").json()
    assert created["role"] == "operator" and "password" not in created
    assert User.objects.get(username="eve").check_password("correct-horse-9")
    path = f"/api/v1/users/{created['id']}/"
    change = {"is_active": False, "password": "another-horse-9"}
    assert admin_api.patch(path, change, format="json").json()["is_active"] is False
    assert User.objects.get(username="eve").check_password("another-horse-9")
    assert admin_api.post("/api/v1/users/", new, format="json").status_code == 400


@pytest.mark.parametrize("password", ["short", "12345678901", "eve-eve-eve", None])
def test_weak_passwords_are_refused(admin_api: Any, password: Any) -> None:
    new = {"username": "eve-eve-eve", "password": password}
    answer = admin_api.post("/api/v1/users/", new, format="json")
    assert answer.status_code == 400
    assert {fault["path"] for fault in answer.json()["faults"]} == {"password"}


def test_admins_keep_access_and_spare_superusers(admin_api: Any, people: Any) -> None:
    admin_path = f"/api/v1/users/{people['admin'].pk}/"
    assert admin_api.patch(admin_path, {"role": "viewer"}, format="json").status_code == 409
    assert admin_api.patch(admin_path, {"is_active": False}, format="json").status_code == 409
    assert admin_api.patch(admin_path, {"first_name": "Ada"}, format="json").status_code == 200
    root = User.objects.create_superuser("root", password="x")
    change = {"password": "mine-now-12345"}
    path = f"/api/v1/users/{root.pk}/"
    assert admin_api.patch(path, change, format="json").status_code == 403


def test_users_change_themselves(viewer_api: Any, people: Any) -> None:
    body = viewer_api.patch("/api/v1/me/", {"email": "v@example.org"}, format="json").json()
    assert body["email"] == "v@example.org"
    assert viewer_api.patch("/api/v1/me/", {"role": "admin"}, format="json").status_code == 400
    path, new = "/api/v1/me/password/", "correct-horse-9"
    wrong = {"old_password": "x", "new_password": new}
    assert viewer_api.post(path, wrong, format="json").status_code == 400
    right = {"old_password": "pass-word-1", "new_password": new}
    assert viewer_api.post(path, right, format="json").status_code == 204
    people["viewer"].refresh_from_db()
    assert people["viewer"].check_password(new)


def test_series_is_thinned_and_keeps_its_extremes(viewer_api: Any) -> None:
    devices = [add_device("a"), add_device("b")]
    job = add_job(devices)
    part = job.rounds.get().assignments.get(device=devices[0])
    add_samples(devices[0], part, 1000)
    spike = devices[0].samples.order_by("seq")[500]
    spike.values = {"loss": 99.0}
    spike.save()
    query = f"/api/v1/measurements/?metric=loss&job={job.pk}&points=50"
    body = viewer_api.get(query).json()
    assert body["unit"] == "nats per token" and body["title"] == "Training loss"
    long, short = body["series"]
    assert long["device_name"] == "a" and long["thinned"] and len(long["at"]) <= 50
    assert max(long["values"]) == 99.0 and len(long["values"]) == len(long["at"])
    assert long["at"] == sorted(long["at"], key=lambda at: parse_datetime(at))
    assert short["values"] == [2.0, 1.5] and not short["thinned"]
    only = viewer_api.get(f"/api/v1/measurements/?metric=mfu&device={devices[1].pk}").json()
    assert [series["device_name"] for series in only["series"]] == ["b"]
    none = viewer_api.get(f"/api/v1/measurements/?metric=watts&job={job.pk}").json()
    assert none["series"] == []


def test_live_equals_page_snapshot(viewer_api: Any, fleet: Any) -> None:
    from webapp.jobs.analysis.snapshot import snapshot

    body = viewer_api.get(f"/api/v1/jobs/{fleet['job'].pk}/live/").json()
    assert set(body) == set(snapshot(fleet["job"]))
